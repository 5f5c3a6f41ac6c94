# Fetches one small package as the builds of our images fetch theirs, to see whether a container reaches the index.
ARG PYTHON_IMAGE
FROM ${PYTHON_IMAGE} AS fetching
ENV PIP_CONFIG_FILE=/run/secrets/pip_conf PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
RUN --mount=type=secret,id=pip_conf --mount=type=secret,id=ca_bundle \
    /opt/venv/bin/pip download --no-cache-dir --no-deps --retries 1 --timeout 30 --dest /fetched structlog

FROM scratch
COPY --from=fetching /fetched /
