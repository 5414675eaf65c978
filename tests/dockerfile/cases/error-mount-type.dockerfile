FROM alpine
RUN --mount=type=cach,target=/x ls
