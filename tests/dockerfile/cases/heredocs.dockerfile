FROM alpine
RUN <<EOF
echo hello $x
  # not a comment
\
EOF
RUN python3 <<'PY' && cat 3<<-"T W" | sh
print("<<EOF")
PY
		indented
	T W
COPY <<EOF <<-script.sh plain /dest/
content $x
EOF
	#!/bin/sh
	echo hi
	script.sh
RUN <<-EOF
	#!/usr/bin/env python3
	print(1)
EOF
RUN <<EOF cat > /x
tail
EOF
RUN echo "<<not" 'a <<not' \<<not <<< not cat<<not
RUN ["echo", "<<EOF"]
ONBUILD RUN <<EOF
trigger
EOF
ADD <<empty /empty
empty
