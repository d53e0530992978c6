# The command lganet-fast in a container. Checked by hadolint; not built yet.
#
#   docker build --target cpu  -t lganet_fast .
#   docker build --target cuda -t lganet_fast:cuda .
#   docker run --rm --user "$(id -u)" -v "$PWD:/data" lganet_fast register --fixed a.nii.gz --moving b.nii.gz --out out
#   docker run --rm --gpus all -v "$PWD:/data" lganet_fast:cuda doctor

# The wheel with the CPU's operators. torch without CUDA is enough to build and to run it.
FROM python:3.12-slim AS cpu-build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu \
    PIP_NO_CACHE_DIR=1
COPY . /source
RUN pip wheel --no-deps --wheel-dir /wheels /source

FROM python:3.12-slim AS cpu
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu \
    PIP_NO_CACHE_DIR=1
RUN --mount=type=bind,from=cpu-build,source=/wheels,target=/wheels \
    pip install "$(echo /wheels/*.whl)[itk,demo]"
ENV HOME=/tmp
USER 10001
WORKDIR /data
ENTRYPOINT ["lganet-fast"]
CMD ["--help"]

# The wheel with CUDA's operators too: nvcc of the major version of PyPI's torch.
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04 AS cuda-build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ python3-dev python3-pip python3-venv \
    && rm -rf /var/lib/apt/lists/*
ENV LGANET_FAST_CUDA_ARCHS=all \
    PIP_NO_CACHE_DIR=1 \
    PATH=/opt/venv/bin:$PATH
RUN python3 -m venv /opt/venv
COPY . /source
RUN pip wheel --no-deps --wheel-dir /wheels /source

# torch brings CUDA's libraries; the driver is the host's. Triton compiles with a C compiler.
FROM ubuntu:24.04 AS cuda
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1 \
    PATH=/opt/venv/bin:$PATH
RUN --mount=type=bind,from=cuda-build,source=/wheels,target=/wheels \
    python3 -m venv /opt/venv \
    && pip install "$(echo /wheels/*.whl)[itk,demo]"
ENV HOME=/tmp
USER 10001
WORKDIR /data
ENTRYPOINT ["lganet-fast"]
CMD ["--help"]
