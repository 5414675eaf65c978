# syntax=example.com/other:2
FROM alpine
