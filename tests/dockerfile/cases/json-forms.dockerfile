FROM alpine
RUN ["echo", "a\tb", "\u00e9\ud83d\ude00", "\ud800"]
RUN [ "spaces" , "around" ]
RUN ['single', 'quotes']
RUN ["trailing", ]
RUN ["unclosed"
RUN ["a"] tail
RUN [ -f x ] && echo y
CMD []
ENTRYPOINT []
COPY ["a b", "c", "/dest dir/"]
COPY [a, b]
ADD ["x", "/y"]
VOLUME ["/data", "/more data"]
VOLUME /a /b
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
HEALTHCHECK CMD ["curl", "localhost"]
CMD
