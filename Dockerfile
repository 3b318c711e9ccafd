# One CT or a folder in, results out. CPU by default; for NVIDIA GPUs: --build-arg INDEX=https://download.pytorch.org/whl/cu130
#
#   docker build -t ravnet .
#   docker run --rm --network none --read-only --tmpfs /tmp -v "$PWD/CTS:/in:ro" -v "$PWD/LIVERS:/out" ravnet segment /in -o /out
#
# LIVERS must be there, and writable for user 1000, or for the one that `--user` names. GPUs: `--gpus all`.
FROM python:3.11-slim

ARG INDEX=https://download.pytorch.org/whl/cpu
COPY . /src
# The versions are the Makefile's (PyTorch) and pyproject.toml's (all others).
RUN cd /src \
    && torch="$(sed -n 's/^TORCH ?= \(torch==[^ ]*\).*/\1/p' Makefile)" \
    && pip install --no-cache-dir "$torch" --extra-index-url "$INDEX" \
    && pip install --no-cache-dir '.[tested]' \
    && rm -rf /src \
    && useradd --uid 1000 --no-create-home ravnet

# All that is written at run time goes to /out and /tmp.
ENV HOME=/tmp MPLCONFIGDIR=/tmp PYTHONDONTWRITEBYTECODE=1
USER 1000
WORKDIR /tmp
ENTRYPOINT ["ravnet"]
CMD ["--help"]
