"""Overhead of the generic loop over a hand-written one, on two GANs of perceptrons.

``mlp`` is the smallest GAN of the assignment (discriminator 267,009 parameters, noise 96) with batches of 64; ``tiny``
has hidden layers of 64 units and batches of 32, a step of about a millisecond in which nothing hides. Both loops train
the same networks on the same uint8 images with the same fused Adam. The bare loop shuffles, slices, steps, and does
nothing else. Ours is all of ``genlab train``: seeds, checks, norms, log lines; with ``--everything`` also what the
defaults do every 500 steps: validation, pictures, verified checkpoints. An observer of the run lets the bare loop take
its turn, so that both meet the same load; ratios are of medians of process CPU time.

    python -m benchmarks.loop_overhead [--networks mlp tiny] [--everything] [--repeats 15] [--steps 100] [--threads 1]
"""

import argparse
import functools
import logging
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.rows import keep_row
from genlab.config.location import config_directory
from genlab.data.dataset import Dataset
from genlab.data.store import Store
from genlab.models.base import GenerativeModel
from genlab.training.observer import Observer
from genlab.training.run import TrainingRun
from genlab.training.schedules import constant
from genlab.training.settings import TrainerSettings
from genlab.training.trainer import Trainer
from genlab.types import Batch, Loss, Phase

NUM_NOISE = 96
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Size:
    """One of the GANs: widths of the hidden layers, and the ratio that is asked of the loop."""

    discriminator: int
    generator: int
    batch: int
    must: float
    aim: float


SIZES = {"mlp": Size(256, 1024, 64, 1.04, 1.02), "tiny": Size(64, 64, 32, 1.10, 1.05)}


def make_networks(size: Size) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    inner, outer = size.discriminator, size.generator
    discriminator = nn.Sequential(
        nn.Linear(784, inner), nn.LeakyReLU(0.01), nn.Linear(inner, inner), nn.LeakyReLU(0.01), nn.Linear(inner, 1)
    )
    generator = nn.Sequential(
        *(nn.Linear(NUM_NOISE, outer), nn.ReLU(), nn.Linear(outer, outer), nn.ReLU(), nn.Linear(outer, 784), nn.Tanh())
    )
    return discriminator, generator


class PerceptronGAN(GenerativeModel):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.discriminator, self.generator = make_networks(size)

    def phases(self) -> tuple[Phase, ...]:
        return (
            Phase(name="discriminator", modules=(self.discriminator,), loss=self.discriminator_loss),
            Phase(name="generator", modules=(self.generator,), loss=self.generator_loss),
        )

    def discriminator_loss(self, batch: Batch) -> Loss:
        real = self.discriminator(batch.images.flatten(1) * 2 - 1)
        fake = self.discriminator(self.generator(torch.rand(len(batch.images), NUM_NOISE) * 2 - 1))
        value = F.softplus(-real).mean() + F.softplus(fake).mean()
        return Loss(value=value, metrics={"adversarial_nats": value})

    def generator_loss(self, batch: Batch) -> Loss:
        fake = self.discriminator(self.generator(torch.rand(len(batch.images), NUM_NOISE) * 2 - 1))
        value = F.softplus(-fake).mean()
        return Loss(value=value, metrics={"adversarial_nats": value})

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        return {"real_logit": self.discriminator(batch.images.flatten(1) * 2 - 1)[:, 0]}

    def sample(self, num_samples, *, labels=None, generator=None):
        noise = torch.rand(num_samples, NUM_NOISE, generator=generator) * 2 - 1
        return (self.generator(noise).view(-1, 1, 28, 28) + 1) / 2

    def visualize(self, batch, *, num_samples, generator=None):
        return {"samples": self.sample(num_samples, generator=generator)}


def bare_loop(images: Tensor, size: Size) -> Iterator[None]:
    """Train without end, a step at a time."""
    discriminator, generator = make_networks(size)
    adam = functools.partial(torch.optim.Adam, lr=1e-3, betas=(0.5, 0.999), fused=True)
    discriminator_adam, generator_adam = adam(discriminator.parameters()), adam(generator.parameters())
    while True:
        for rows in torch.randperm(len(images)).split(size.batch)[:-1]:
            real = images[rows].flatten(1).float() / 255 * 2 - 1
            with torch.no_grad():
                fake = generator(torch.rand(size.batch, NUM_NOISE) * 2 - 1)
            loss = F.softplus(-discriminator(real)).mean() + F.softplus(discriminator(fake)).mean()
            discriminator_adam.zero_grad()
            loss.backward()
            discriminator_adam.step()
            discriminator.requires_grad_(False)
            loss = F.softplus(-discriminator(generator(torch.rand(size.batch, NUM_NOISE) * 2 - 1))).mean()
            generator_adam.zero_grad()
            loss.backward()
            generator_adam.step()
            discriminator.requires_grad_(True)
            yield


class Turns(Observer):
    """Lets the bare loop do as many steps as ours has done, and keeps the seconds of both."""

    def __init__(self, run: TrainingRun, *, interval: int, bare: Iterator[None]) -> None:
        super().__init__(run, interval=interval)
        self.bare = bare
        self.seconds: dict[str, list[float]] = {"bare": [], "genlab": []}
        self._start = time.process_time()

    def observe(self, step: int) -> None:
        del step
        ours = time.process_time()
        next(islice(self.bare, self.interval - 1, None))
        end = time.process_time()
        self.seconds["genlab"].append(ours - self._start)
        self.seconds["bare"].append(end - ours)
        self._start = time.process_time()


def measure(size: Size, dataset: Dataset, images: Tensor, *, everything: bool, repeats: int, steps: int) -> Turns:
    """Train for a turn more than asked, the first of which warms up."""
    defaults = OmegaConf.to_container(OmegaConf.load(config_directory() / "trainer" / "base.yaml"))
    settings = {"num_steps": (repeats + 1) * steps, "batch_size": size.batch, "precision": "float32"}
    settings |= {"test_at_end": False}
    if not everything:
        settings |= {f"{name}_interval": 0 for name in ("validation", "sample", "checkpoint")}
    adam = functools.partial(torch.optim.Adam, lr=1e-3, betas=(0.5, 0.999), fused=True)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=PerceptronGAN(size),
            dataset=dataset,
            optimizers={"discriminator": adam, "generator": adam},
            schedule=lambda optimizer, num_steps: constant(optimizer),
            settings=TrainerSettings(**{**defaults, **settings}),
            run_folder=Path(folder),
            device=CPU,
            seed=0,
            hyperparameters={"model": "perceptron"},
            observers={"turns": functools.partial(Turns, interval=steps, bare=bare_loop(images, size))},
        )
        trainer.fit(resume=False)
    turns = trainer.observers["turns"]
    assert isinstance(turns, Turns)
    return turns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--everything", action="store_true", help="with validation, pictures and checkpoints")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.disable(logging.INFO)
    images = torch.randint(0, 256, (60_000, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    stores = {
        split: Store(images[start:stop], torch.full((stop - start,), -1))
        for split, start, stop in (("train", 0, 50_000), ("validation", 50_000, 52_000), ("test", 52_000, 54_000))
    }
    dataset = Dataset(
        name="noise", stores=stores, num_levels=256, class_names=(), binarization="none", threshold=0.5, source="noise"
    )
    for name in arguments.networks:
        size = SIZES[name]
        turns = measure(
            *(size, dataset, images[:50_000]),
            everything=arguments.everything,
            repeats=arguments.repeats,
            steps=arguments.steps,
        )
        middle = statistics.mean if arguments.everything else statistics.median
        bare, ours = (middle(turns.seconds[way][1:]) / arguments.steps * 1e3 for way in ("bare", "genlab"))
        print(
            f"{name:5} bare {bare:.3f} ms, genlab {ours:.3f} ms a step, ratio {ours / bare:.3f} "
            f"(must be at most {size.must}, aim {size.aim})"
        )
        work = f"loop, {name} GAN"
        keep_row(work, bare / 1e3, ours / 1e3, must=size.must, aim=size.aim, lower_is_better=True)


if __name__ == "__main__":
    main()
