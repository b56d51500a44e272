# All of kabench, for a run from inside a cluster (controller-job.yaml). The build context is the repository's root:
#   docker build --file manifests/controller.Dockerfile --tag kabench:0.1.0 .
#
# BASE: any Debian with Python 3.11 or newer and its venv as `python3` on the PATH. On arm64 it needs a C compiler too:
# hdrhistogram has no wheel there. The secrets are those of agents/Dockerfile.
#
# It holds what requirements.lock pins, so that what runs in a cluster is what was tested; of the developers' tools only the
# largest are taken out again.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS builder
ENV PIP_CONFIG_FILE=/run/secrets/pip \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
RUN python3 -m venv /opt/kabench
COPY requirements.lock /source/
RUN --mount=type=secret,id=pip --mount=type=secret,id=ca \
    /opt/kabench/bin/pip install --quiet --no-deps --require-hashes --requirement /source/requirements.lock \
    && /opt/kabench/bin/pip uninstall --quiet --yes hypothesis kubernetes-validate mypy ruff uv
COPY . /source
RUN /opt/kabench/bin/pip install --quiet --no-deps --no-build-isolation --no-index /source

FROM ${BASE}
COPY --from=builder /opt/kabench /opt/kabench
ENV PATH=/opt/kabench/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
WORKDIR /tmp
