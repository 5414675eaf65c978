FROM alpine
RUN echo one \
    two \
# a comment within

  # an indented one
	
    three
RUN echo trailing blanks \  	
  four
RUN echo doubled \\
RUN echo tripled \\\
RUN \
  echo first line is bare
run echo \
last \
