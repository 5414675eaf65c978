FROM alpine
RUN --mount=\"a ls
