FROM alpine
[31mX [0m red
