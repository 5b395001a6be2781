"""One training step of the assignment's two GANs against a plain port of its training loop, side by side.

    python -m benchmarks.gan_step [--threads 1] [--rounds 15] [--networks mlp|dcgan|all] [--way same|reuse|bf16|all]
                                  [--data]

Both run in one process from the same weights and the same noise, and the losses of the first step must agree before
anything is timed (with `reuse` those of the discriminator, as the generator then sees other noise; with `bf16` within
its precision). The rounds are interleaved, so that other load on the machine falls on both; the ratio of the medians of
process time is the result. The port is the document's loop with its mistakes corrected: networks one after the other,
real and generated images in two passes, gradients of the discriminator collected in the generator's step as well, and
Adam as it comes. Ours is all that `genlab train model=gan` and `model=dcgan_assignment` do in a step: seeds, delivery,
checks, metrics. The port has its images at hand, or with `--data` fetches them from a DataLoader with ToTensor, as the
document does.
"""

import argparse
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.transforms.functional import to_tensor

from benchmarks.composed import configuration_of
from benchmarks.noise import noise_dataset, random_levels
from benchmarks.processes import QUIET, our_step
from benchmarks.rows import keep_row
from benchmarks.timing import median_seconds
from genlab.config.schema import RunConfiguration
from genlab.data.dataset import Dataset
from genlab.models.base import Model
from genlab.run.record import build_model
from genlab.training.optimization import FrozenOutside, PhaseUpdate
from genlab.training.schedules import constant
from genlab.types import Batch, ImageSpec

BATCH_SIZE = 128
NUM_NOISE = 96
CPU = torch.device("cpu")
SPEC = ImageSpec(channels=1, height=28, width=28, num_levels=256, num_classes=0)
MODELS = {"mlp": "gan", "dcgan": "dcgan_assignment"}
WAYS = ("same", "reuse", "bf16")
TARGETS = {
    "mlp": {"same": (1.25, 1.3), "reuse": (1.55, 1.7), "bf16": (2.3, 2.6)},
    "dcgan": {"same": (1.05, 1.2), "reuse": (1.3, 1.45), "bf16": (2.3, 2.6)},
}  # ratios of must and aim


class View(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.view(len(x), *self.shape)


def plain_networks(kind: str) -> tuple[nn.Module, nn.Module]:
    """Return the document's discriminator and generator."""
    if kind == "mlp":
        discriminator = nn.Sequential(
            View(784),
            *(nn.Linear(784, 256), nn.LeakyReLU(0.01), nn.Linear(256, 256), nn.LeakyReLU(0.01), nn.Linear(256, 1)),
        )
        generator = nn.Sequential(
            *(nn.Linear(NUM_NOISE, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU()),
            *(nn.Linear(1024, 784), nn.Tanh(), View(1, 28, 28)),
        )
        return discriminator, generator
    discriminator = nn.Sequential(
        *(nn.Conv2d(1, 32, 5), nn.LeakyReLU(0.01), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 5), nn.LeakyReLU(0.01), nn.MaxPool2d(2)),
        *(View(1024), nn.Linear(1024, 1024), nn.LeakyReLU(0.01), nn.Linear(1024, 1)),
    )
    generator = nn.Sequential(
        *(nn.Linear(NUM_NOISE, 1024), nn.BatchNorm1d(1024), nn.ReLU()),
        *(nn.Linear(1024, 6272), nn.BatchNorm1d(6272), nn.ReLU(), View(128, 7, 7)),
        *(nn.ConvTranspose2d(128, 64, 4, 2, 1), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.ConvTranspose2d(64, 1, 4, 2, 1), nn.Tanh()),
    )
    return discriminator, generator


def plain_step(kind: str, model: Model) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return the document's step on a copy of the model's weights."""
    discriminator, generator = plain_networks(kind)
    for port, ours in ((discriminator, model.discriminator), (generator, model.generator)):
        port.load_state_dict(dict(zip(port.state_dict(), ours.state_dict().values(), strict=True)))
    adams = [torch.optim.Adam(port.parameters(), lr=1e-3, betas=(0.5, 0.999)) for port in (discriminator, generator)]

    def noise() -> Tensor:
        return torch.empty(BATCH_SIZE, NUM_NOISE).uniform_(-1, 1)

    def step(images: Tensor) -> tuple[Tensor, Tensor]:
        adams[0].zero_grad()
        fake = generator(noise()).detach()
        real_scores, fake_scores = discriminator(2 * (images - 0.5)), discriminator(fake)
        first = F.binary_cross_entropy_with_logits(real_scores, torch.ones_like(real_scores))
        first = first + F.binary_cross_entropy_with_logits(fake_scores, torch.zeros_like(fake_scores))
        first.backward()
        adams[0].step()
        adams[1].zero_grad()
        scores = discriminator(generator(noise()))
        second = F.binary_cross_entropy_with_logits(scores, torch.ones_like(scores))
        second.backward()
        adams[1].step()
        return first.detach(), second.detach()

    return step


def our_updates(kind: str, way: str) -> tuple[RunConfiguration, Model, Callable[[Tensor], tuple[Tensor, Tensor]]]:
    """Return a model's own configuration, the model, and the updates of its phases on given images."""
    overrides = [f"model={MODELS[kind]}", f"model.reuses_generated={str(way == 'reuse').lower()}"]
    overrides += [f"trainer.precision={'bfloat16' if way == 'bf16' else 'float32'}", "device=cpu"]
    overrides += [f"trainer.batch_size={BATCH_SIZE}", *(f"trainer.{name}_interval=0" for name in QUIET)]
    configuration = configuration_of(*overrides)
    torch.manual_seed(0)
    model = build_model(configuration, SPEC)
    updates = [
        PhaseUpdate(
            phase,
            optimizer=configuration.bound_optimizer(phase.name).factory(),
            schedule=lambda optimizer, num_steps: constant(optimizer),
            settings=configuration.settings,
            device=CPU,
        )
        for phase in model.phases()
    ]
    frozen = FrozenOutside(updates, model.parameters())
    labels = torch.full((BATCH_SIZE,), -1)

    def step(images: Tensor) -> tuple[Tensor, Tensor]:
        received: list[object] = []
        losses = []
        for update in updates:
            frozen.enter(update)
            metrics, received = update.run(Batch(images=images, labels=labels), received)
            frozen.leave(update)
            losses.append(metrics["adversarial_nats"])
        return losses[0], losses[1]

    return configuration, model, step


class Pictures(TorchDataset[Tensor]):
    """8-bit images as the document reads them: one at a time, through Pillow and ToTensor."""

    def __init__(self, levels: Tensor) -> None:
        self.arrays = levels[:, 0].numpy()

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, index: int) -> Tensor:
        picture: Tensor = to_tensor(Image.fromarray(self.arrays[index]))
        return picture


def data(images: Tensor, *, with_data: bool) -> tuple[Dataset, Callable[[], Tensor]]:
    """Return 8-bit images, and a function that gets the port its images of a step."""
    levels = random_levels(20_000, 1, 28, 28)
    dataset = noise_dataset(levels)
    if not with_data:
        return dataset, lambda: images
    loader = DataLoader(Pictures(levels), batch_size=BATCH_SIZE, shuffle=True, drop_last=True)
    endless = itertools.chain.from_iterable(itertools.repeat(loader))
    return dataset, lambda: next(endless)


def compare(kind: str, way: str, *, rounds: int, steps: int, with_data: bool) -> None:
    configuration, model, ours = our_updates(kind, way)
    port = plain_step(kind, model)
    images = torch.rand(BATCH_SIZE, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    losses = []
    for step in (port, ours):
        torch.manual_seed(2)
        losses.append(step(images))
    tolerance = 2e-2 if way == "bf16" else 1e-4
    torch.testing.assert_close(losses[1][0], losses[0][0], rtol=tolerance, atol=tolerance)
    if way != "reuse":
        torch.testing.assert_close(losses[1][1], losses[0][1], rtol=tolerance, atol=tolerance)
    dataset, fetch = data(images, with_data=with_data)
    with tempfile.TemporaryDirectory() as folder:
        ways = {"port": lambda: port(fetch()), "ours": our_step(configuration, dataset, Path(folder))}
        base, own = median_seconds(ways, rounds=rounds, warm_up=1, steps=steps).values()
    if way in TARGETS[kind]:
        must, aim = TARGETS[kind][way]
        keep_row(f"GAN step, {kind}, {way}", base, own, must=must, aim=aim)
    print(
        f"{kind:5} {way:5}: port {base * 1e3:7.2f} ms, ours {own * 1e3:7.2f} ms a step, "
        f"ratio of medians {base / own:.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--networks", choices=[*MODELS, "all"], default="all")
    parser.add_argument("--way", choices=[*WAYS, "all"], default="all")
    parser.add_argument("--data", action="store_true", help="fetch the batches, too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for kind in MODELS if arguments.networks == "all" else (arguments.networks,):
        for way in WAYS if arguments.way == "all" else (arguments.way,):
            compare(kind, way, rounds=arguments.rounds, steps=10 if kind == "mlp" else 3, with_data=arguments.data)


if __name__ == "__main__":
    main()
