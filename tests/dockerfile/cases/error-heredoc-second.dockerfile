FROM alpine
RUN cat <<A <<B
x
A
y
