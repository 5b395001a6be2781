# genlab with the versions of constraints.txt.
#   docker build -t genlab .                                  with the CUDA libraries that torch brings; the CPU works too
#   docker build -t genlab --build-arg PIP_EXTRA_INDEX_URL=ADDRESS .    smaller: ADDRESS of PyTorch's builds for the CPU
#   docker run --rm -v "$PWD:/runs" genlab train model=draw             (CUDA: --gpus all)
# Runs and data lie in the folder that is mounted at /runs; run it as yourself: --user "$(id -u):$(id -g)".
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

# torch.compile builds kernels with it, as trainer.compile=auto and trainer=gpu do.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

ARG PIP_EXTRA_INDEX_URL
WORKDIR /opt/genlab
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY configs configs
COPY genlab genlab
COPY hydra_plugins hydra_plugins
RUN pip install --no-cache-dir --constraint constraints.txt '.[sweep]' \
    && python -c 'import torch, torchvision'

ENV HOME=/tmp \
    GENLAB_DATA=/runs/data
WORKDIR /runs
ENTRYPOINT ["genlab"]
CMD ["--help"]
