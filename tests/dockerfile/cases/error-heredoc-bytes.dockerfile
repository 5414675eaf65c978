FROM alpine
RUN <<E
ok
ÿþ
E
