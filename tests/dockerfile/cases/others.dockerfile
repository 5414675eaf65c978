FROM scratch as final.stage-1_x
MAINTAINER A B <a@example.com>
STOPSIGNAL SIGTERM
STOPSIGNAL rtmin+3
STOPSIGNAL 9
STOPSIGNAL $sig
HEALTHCHECK NONE
HEALTHCHECK --start-period=0 --start-interval=1.5s cmd true
HEALTHCHECK --interval=1h2m3s4ms CMD [ "a" ]
ONBUILD COPY . /src
onbuild   run   make
USER "a b"
WORKDIR /a dir/with blanks
EXPOSE 80/TCP $port 127.0.0.1:8080:81 "82"
VOLUME  /x	/y
SHELL ["sh"]
