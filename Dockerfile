# What a node needs to run dnctl, with the versions of requirements.lock: docker build --tag REGISTRY/dnctl:0.1.0 .
# NVIDIA's driver is the host's; CUDA's libraries come with the packages. Runs as an ordinary user, 1000.
FROM python:3.11.14-slim-bookworm

SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
ENV PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0

WORKDIR /opt/dnctl
COPY requirements.lock pyproject.toml README.md ./
COPY orchestrator orchestrator
COPY recipes recipes
COPY cluster cluster
# The lock holds what is for development, too: as a constraint it gives the version of what is needed.
# Bytecode is compiled now: who runs the image may not write it. Triton and the fused block want a compiler.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/* \
    && pip install --no-cache-dir --constraint requirements.lock uv \
    && uv pip install --system --no-cache --compile-bytecode --constraint requirements.lock --build-constraint requirements.lock ".[cuda130]" \
    && useradd --uid 1000 --create-home dnctl

USER 1000
WORKDIR /home/dnctl
CMD ["dnctl", "--help"]
