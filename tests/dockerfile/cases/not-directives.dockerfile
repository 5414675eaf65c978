# syntax=docker/dockerfile:1@sha256:00
#check=skip=all
# unknown=1
# escape=`
FROM alpine
RUN a \
  b
