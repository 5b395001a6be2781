# genlab with the versions of constraints.txt.
#   docker build -t genlab .                            for the CPU
#   docker build -t genlab --build-arg DEVICE=cuda .    with the CUDA libraries that torch brings
#   docker run --rm -v "$PWD:/work" genlab train model=draw           (CUDA: --gpus all)
# Runs and data lie in the folder that is mounted at /work; run it as yourself: --user "$(id -u):$(id -g)".
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

ARG DEVICE=cpu
WORKDIR /opt/genlab
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY configs configs
COPY genlab genlab
COPY hydra_plugins hydra_plugins
# torch of the package index brings CUDA; the smaller build for the CPU has an index of its own.
RUN case "$DEVICE" in \
        cpu) export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu ;; \
        cuda) ;; \
        *) echo "DEVICE must be cpu or cuda, got $DEVICE" >&2; exit 2 ;; \
    esac \
    && pip install --no-cache-dir --constraint constraints.txt '.[sweep]' \
    && python -c 'import torch, torchvision'

ENV HOME=/tmp \
    GENLAB_DATA=/work/data
WORKDIR /work
ENTRYPOINT ["genlab"]
CMD ["--help"]
