ARG a
ARG b
