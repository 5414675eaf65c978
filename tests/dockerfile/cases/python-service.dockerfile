# syntax=docker/dockerfile:1.7
# escape=\

# A usual service.
ARG VERSION=3.12
FROM --platform=$BUILDPLATFORM python:${VERSION}-slim AS Base
WORKDIR /app
COPY requirements.txt .
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install -r requirements.txt && \
    rm -rf /tmp/*

FROM base
COPY --from=base --chown=app:app /app /app
ENV A=1 B="two words" C=three\ words
EXPOSE 8080 53/udp 9000-9003
USER app:app
HEALTHCHECK --interval=30s --timeout=1m30s --retries=3 CMD curl -f http://localhost/ || exit 1
ENTRYPOINT ["python", "-m"]
CMD ["app"]
