# escape=`
FROM windows
COPY testfile.txt c:\
RUN dir c:\ `
  /s
ENV P=c:\dir Q=a` b
