FROM alpine

RUNN echo
RUN true
RUN false
RUN x
