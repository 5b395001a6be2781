"""The generators that models draw from, seeded from the run's seed and a purpose."""

import random

import numpy as np
import torch
from torch import Generator

from genlab.parallel.collectives import num_processes, rank, seed_same_draws
from genlab.randomness import derive_seed


def seed_everything(seed: int) -> None:
    """Seed the generators from which a model draws its initial weights."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def seed_default_generators(seed: int, device: torch.device) -> None:
    """Seed the generators that a model draws from, on the CPU and on its device.

    Cheaper than ``torch.manual_seed``, which visits every accelerator backend; this runs at every step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def seed_training_step(seed: int, step: int, device: torch.device) -> None:
    """Seed the default generators for a training step: from seed, step and rank, and :func:`same_draws` without rank.

    A single process draws what several draw in :func:`same_draws`.
    """
    common = derive_seed(seed, "step", step)
    if num_processes() == 1:
        seed_default_generators(common, device)
        return
    cpu = torch.device("cpu")
    seed_same_draws(common, (cpu, device) if device.type == "cuda" else (cpu,))
    seed_default_generators(derive_seed(seed, "step", step, "rank", rank()), device)


def generator_for(seed: int, *purpose: int | str, device: torch.device) -> Generator:
    """Return a generator for one purpose, such as the noise of a sample grid that must not change over time."""
    return Generator(device=device).manual_seed(derive_seed(seed, *purpose))
