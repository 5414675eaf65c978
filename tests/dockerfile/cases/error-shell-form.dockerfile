FROM alpine
SHELL bash -c
