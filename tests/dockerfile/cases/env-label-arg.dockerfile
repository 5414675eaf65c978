ARG a b=1 c="x y" d='q' e=f\ g h=
FROM alpine
ENV old style value  with "quotes" = and blanks
ENV one=1
ENV a=b c="d e" f='g h' i=j\ k l="m\"n" o= p="q=r"
LABEL version=1.0 "com.example.name"="My App" multi="a \
  b"
LABEL old style
ARG  x
ARG y=$x z="a b"
