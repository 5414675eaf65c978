# Syntax = docker/dockerfile:1
FROM alpine
RUN echo a \
  b

LABEL x=y
