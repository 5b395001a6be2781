"""Real processes of genlab on tiny runs, to be killed, starved and lied to."""

import os
import subprocess
import sys
from pathlib import Path

import torch

_COMMON = (
    *("dataset.size=8", "device=cpu", "num_threads=1", "trainer.batch_size=16", "trainer.test_at_end=false"),
    *("trainer.num_steps=40", "trainer.log_interval=5", "trainer.checkpoint_interval=5", "trainer.sample_interval=0"),
    *("trainer.validation_interval=20", "trainer.validation_images=32", "trainer.ema_decay=0.9", "schedule=linear"),
)
TINY = {
    "draw": (
        *("model=draw", "model.num_glimpses=2", "model.num_units=16", "dataset=digits_grey"),
        *("dataset.binarization=stochastic", "trainer.gradient_accumulation=2", *_COMMON),
    ),
    "gan": (*("model=dcgan", "technique=[virtual_batch_norm,historical_averaging,spectral_normalization]", *_COMMON),),
    "gated_pixelcnn": ("model=gated_pixelcnn", *_COMMON),
}
"""The words of ``genlab train`` for a run of seconds of each family: 40 steps, 16 images of 8x8 each."""


def environment(**variables: str) -> dict[str, str]:
    """This process's environment, one thread, with some variables set."""
    return {**os.environ, "OMP_NUM_THREADS": "1", **variables}


def start(*words: str, folder: Path | None = None, **variables: str) -> subprocess.Popen[str]:
    """Start ``genlab WORDS`` in a process group of its own.

    Args:
        words: The line after the program's name.
        folder: The run folder of ``train``.
        variables: Set in the environment of the process.
    """
    place = [] if folder is None else [f"hydra.run.dir={folder}"]
    return subprocess.Popen(
        [sys.executable, "-m", "genlab", *words, *place],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment(**variables),
    )


def run(
    *words: str, folder: Path | None = None, timeout: float = 120, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run ``genlab WORDS`` to its end, as `start` starts it."""
    process = start(*words, folder=folder, **variables)
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def checkpoint_of(folder: Path, name: str = "last.pt") -> dict[str, object]:
    """A checkpoint of a run, read without genlab."""
    return dict(torch.load(folder / "checkpoints" / name, weights_only=True))
