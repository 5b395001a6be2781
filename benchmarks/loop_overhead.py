"""Overhead of the generic loop over a hand-written one, on the smallest GAN of the assignment.

Both train the same two perceptrons (discriminator 267,009 parameters, noise 96) on the same uint8 images with the same
fused Adam. The bare loop shuffles, slices, steps, and does nothing else; ours has everything at its default: gradient
checks, logging, TensorBoard, validation, pictures, verified checkpoints. Runs alternate; ratios are of medians of
process CPU time. Must: 1.05.

    python -m benchmarks.loop_overhead [--steps 500] [--repeats 5] [--threads 1]
"""

import argparse
import functools
import logging
import statistics
import tempfile
import time
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F

from genlab.config.location import config_directory
from genlab.data.dataset import Dataset
from genlab.data.store import Store
from genlab.models.base import GenerativeModel
from genlab.training.schedules import constant
from genlab.training.settings import TrainerSettings
from genlab.training.trainer import Trainer
from genlab.types import Batch, Loss, Phase

BATCH_SIZE = 128
NUM_NOISE = 96
CPU = torch.device("cpu")


def make_networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    discriminator = nn.Sequential(
        nn.Linear(784, 256), nn.LeakyReLU(0.01), nn.Linear(256, 256), nn.LeakyReLU(0.01), nn.Linear(256, 1)
    )
    generator = nn.Sequential(
        nn.Linear(NUM_NOISE, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 784), nn.Tanh()
    )
    return discriminator, generator


class PerceptronGAN(GenerativeModel):
    def __init__(self) -> None:
        super().__init__()
        self.discriminator, self.generator = make_networks()

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


def bare_loop(images: Tensor, num_steps: int) -> None:
    discriminator, generator = make_networks()
    adam = functools.partial(torch.optim.Adam, lr=1e-3, betas=(0.5, 0.999), fused=True)
    discriminator_adam, generator_adam = adam(discriminator.parameters()), adam(generator.parameters())
    step = 0
    while step < num_steps:
        for rows in torch.randperm(len(images)).split(BATCH_SIZE)[:-1]:
            real = images[rows].flatten(1).float() / 255 * 2 - 1
            with torch.no_grad():
                fake = generator(torch.rand(BATCH_SIZE, NUM_NOISE) * 2 - 1)
            loss = F.softplus(-discriminator(real)).mean() + F.softplus(discriminator(fake)).mean()
            discriminator_adam.zero_grad()
            loss.backward()
            discriminator_adam.step()
            discriminator.requires_grad_(False)
            loss = F.softplus(-discriminator(generator(torch.rand(BATCH_SIZE, NUM_NOISE) * 2 - 1))).mean()
            generator_adam.zero_grad()
            loss.backward()
            generator_adam.step()
            discriminator.requires_grad_(True)
            step += 1
            if step == num_steps:
                return


def our_loop(dataset: Dataset, num_steps: int) -> None:
    defaults = OmegaConf.to_container(OmegaConf.load(config_directory() / "trainer" / "base.yaml"))
    own = {"num_steps": num_steps, "batch_size": BATCH_SIZE, "precision": "float32", "test_at_end": False}
    settings = TrainerSettings(**{**defaults, **own})
    adam = functools.partial(torch.optim.Adam, lr=1e-3, betas=(0.5, 0.999), fused=True)
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            model=PerceptronGAN(),
            dataset=dataset,
            optimizers={"discriminator": adam, "generator": adam},
            schedule=lambda optimizer, num_steps: constant(optimizer),
            settings=settings,
            run_folder=Path(folder),
            device=CPU,
            seed=0,
            hyperparameters={"model": "perceptron"},
        ).fit(resume=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
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
    seconds: dict[str, list[float]] = {"bare": [], "genlab": []}
    bare_loop(images[:50_000], 20)
    our_loop(dataset, 20)
    for _ in range(arguments.repeats):
        for name, run in (
            ("bare", lambda: bare_loop(images[:50_000], arguments.steps)),
            ("genlab", lambda: our_loop(dataset, arguments.steps)),
        ):
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    medians = {name: statistics.median(values) / arguments.steps * 1e3 for name, values in seconds.items()}
    print(f"bare {medians['bare']:.2f} ms a step, genlab {medians['genlab']:.2f} ms a step (CPU time)")
    print(f"ratio of medians {medians['genlab'] / medians['bare']:.3f} (must be at most 1.05)")


if __name__ == "__main__":
    main()
