FROM alpine
COPY a <<EOF
EOF
