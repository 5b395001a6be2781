"""Cost of a training step in one and in two processes, beside a bare loop; bytes of a step; cost of evaluation.

    python -m benchmarks.processes [--models draw dcgan gated_pixelcnn] [--rounds 9] [--steps 10]
    python -m benchmarks.processes --volume
    python -m benchmarks.processes --evaluation

The bare loop is the straightforward one: an index into the images, each phase's loss, its gradient and an optimiser's
step; in two processes each network is wrapped in PyTorch's DistributedDataParallel, draws its own noise and takes batch
statistics of its own images alone. Ours is the trainer's step with all that goes with it: averaged weights, checks, the
agreement on signals. Model, optimiser, data, batch and precision are those of ``genlab train model=NAME``; two
processes share the batch of one. Rounds alternate; ratios are of medians. CPU time is that of all processes together,
without what they wait; time on the wall needs a machine with a core for each.

``--volume`` counts, in one step of two processes, the bytes that each hands to the network to be summed; an override
in place of a name, such as ``experiment=draw_mnist``, counts those of any run whose data are there. From them follows
how long the step of one node must take at least for a second node to shorten it, were half a batch half of the work.

``--evaluation`` times what evaluation shares: the measures of the 1,297 training images, and drawing 5,000.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.nn.parallel import DistributedDataParallel

from benchmarks.composed import configuration_of, trainer_of
from genlab.config.build import build
from genlab.config.schema import RunConfiguration
from genlab.data.dataset import Dataset
from genlab.metrics.generation import draw_images
from genlab.models.base import GenerativeModel
from genlab.parallel.collectives import is_first, num_processes
from genlab.parallel.processes import gathered, joined
from genlab.run.record import build_model
from genlab.training.precision import resolved
from genlab.training.signals import StopRequest
from genlab.types import Batch, Phase

CPU = torch.device("cpu")
LINKS = ((1e9, 100e-6), (10e9, 100e-6), (100e9, 10e-6))
"""Bits and messages a second take: 1 and 10 Gbit/s Ethernet, 100 Gbit/s InfiniBand; assumed, used in full."""
NUM_DRAWN = 5000
QUIET = ("validation", "sample", "checkpoint")  # periodic actions, which are not part of a step


def configured(model: str, *overrides: str) -> tuple[RunConfiguration, Dataset]:
    """Return the configuration and dataset of `genlab train model=NAME`, or of overrides, for steps alone."""
    words = [
        *(model if "=" in model else f"model={model}", *overrides),
        "device=cpu",
        *(f"trainer.{name}_interval=0" for name in QUIET),
    ]
    configuration = configuration_of(*words)
    dataset: Dataset = build(configuration.dataset, "dataset", expects=Dataset)
    return configuration, dataset


class PhaseLoss(nn.Module):
    """A phase's loss as the forward pass of a module, as DistributedDataParallel wants it."""

    def __init__(self, phase: Phase, precision: str) -> None:
        super().__init__()
        self.dtype = getattr(torch, precision)
        self.modules_of_phase = nn.ModuleList(phase.modules)
        self.loss = phase.loss

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=self.dtype, enabled=self.dtype != torch.float32):
            value: Tensor = self.loss(Batch(images=images, labels=labels)).value
        return value


def bare_step(configuration: RunConfiguration, dataset: Dataset) -> Callable[[], None]:
    """Return the straightforward loop's step; with several processes each holds its share of the batch."""
    torch.manual_seed(0)
    model = build_model(configuration, dataset.spec).train()
    phases = model.phases()
    losses: list[nn.Module] = [PhaseLoss(phase, resolved(configuration.settings.precision, CPU)) for phase in phases]
    if num_processes() > 1:
        losses = [DistributedDataParallel(loss) for loss in losses]
    optimizers = [
        configuration.bound_optimizer(phase.name).factory()(list(loss.parameters()))
        for phase, loss in zip(phases, losses, strict=True)
    ]
    all_images = dataset.at("train", torch.arange(dataset.num_images("train")), 0, CPU)
    num_images = configuration.settings.batch_size // num_processes()

    def step() -> None:
        for phase, loss, optimizer in zip(phases, losses, optimizers, strict=True):
            model.requires_grad_(False)
            loss.requires_grad_(True)
            for _ in range(phase.repeats):
                rows = torch.randint(len(all_images.images), (num_images,))
                optimizer.zero_grad()
                loss(all_images.images[rows], all_images.labels[rows]).backward()
                optimizer.step()

    return step


def our_step(configuration: RunConfiguration, dataset: Dataset, folder: Path) -> Callable[[], None]:
    """Return the trainer's step, as it runs between two log lines."""
    trainer = trainer_of(configuration, dataset, folder, device=CPU)
    request = StopRequest(str)

    def step() -> None:
        trainer._training_step()
        trainer._observe(request)
        trainer.metrics.take()  # written and forgotten at every line of the log

    return step


def measure(model: str, rounds: int, steps: int) -> dict[str, tuple[float, float]]:
    """Median CPU and wall milliseconds of a step, of the bare loop and of ours; CPU time of all processes together."""
    torch.set_num_threads(1)
    with joined(CPU), tempfile.TemporaryDirectory() as folder:
        configuration, dataset = configured(model)
        ways = {"bare": bare_step(configuration, dataset), "genlab": our_step(configuration, dataset, Path(folder))}
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for turn in range(rounds + 1):  # the first warms up
            for name, step in ways.items():
                gathered(None)
                cpu, wall = time.process_time(), time.perf_counter()
                for _ in range(steps):
                    step()
                spent = time.process_time() - cpu, time.perf_counter() - wall
                all_spent = gathered(spent)
                if turn > 0:
                    times[name].append((sum(cpu for cpu, _ in all_spent), max(wall for _, wall in all_spent)))
        return {
            name: tuple(statistics.median(values) / steps * 1e3 for values in zip(*measured, strict=True))  # type: ignore[misc]
            for name, measured in times.items()
        }


@contextmanager
def counted() -> Iterator[list[int]]:
    """The bytes of every message that is summed over processes meanwhile."""
    messages: list[int] = []
    all_reduce = dist.all_reduce

    def counting(tensor: Tensor, *arguments: Any, **settings: Any) -> Any:
        messages.append(tensor.numel() * tensor.element_size())
        return all_reduce(tensor, *arguments, **settings)

    dist.all_reduce = counting
    try:
        yield messages
    finally:
        dist.all_reduce = all_reduce


def print_volumes(models: Sequence[str]) -> None:
    """A table of what a step of each model sends: the gradients' bytes, those of all else, the number of messages."""
    torch.set_num_threads(1)
    with joined(CPU):
        tell(
            "| model | gradients | other | messages | 1 Gbit/s Ethernet | 10 Gbit/s Ethernet | 100 Gbit/s InfiniBand |"
        )
        tell("|---|---|---|---|---|---|---|")
        for model in models:
            with tempfile.TemporaryDirectory() as folder:
                trainer = trainer_of(*configured(model), Path(folder), device=CPU)
                trainer.state.initialize()
                gradients = sum(
                    parameter.numel() * parameter.element_size() * phase.repeats
                    for phase in trainer.model.phases()
                    for module in phase.modules
                    for parameter in module.parameters()
                )
                with counted() as messages:
                    trainer._training_step()
                    trainer._observe(StopRequest(str))
                other = (sum(messages) - gradients) / 1e3
                pays = (2e3 * (8 * sum(messages) / rate + len(messages) * latency) for rate, latency in LINKS)
                cells = " | ".join(f"{cost:{'.2g' if cost < 10 else '.0f'}} ms" for cost in pays)
                tell(f"| `{model}` | {gradients / 1e6:.3f} MB | {other:.2f} kB | {len(messages)} | {cells} |")


def measure_evaluation(model: str, rounds: int) -> list[tuple[float, float]]:
    """Median CPU and wall seconds of the measures of images, and of drawing others; CPU time of all processes."""
    torch.set_num_threads(1)
    with joined(CPU), tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(*configured(model), Path(folder), device=CPU)
        trainer.state.initialize()
        drawn = trainer.state.evaluated_model()
        assert isinstance(drawn, GenerativeModel)
        ways: tuple[Callable[[], object], ...] = (
            lambda: trainer.evaluate("train"),
            lambda: draw_images(drawn, NUM_DRAWN, labels=None, seed=0, device=CPU),
        )
        times: list[list[tuple[float, float]]] = [[] for _ in ways]
        for turn in range(rounds + 1):  # the first warms up
            for way, measured in zip(ways, times, strict=True):
                gathered(None)
                cpu, wall = time.process_time(), time.perf_counter()
                way()
                all_spent = gathered((time.process_time() - cpu, time.perf_counter() - wall))
                if turn > 0:
                    measured.append((sum(cpu for cpu, _ in all_spent), max(wall for _, wall in all_spent)))
        return [
            (statistics.median(cpus), statistics.median(walls))
            for cpus, walls in (zip(*seen, strict=True) for seen in times)
        ]


def print_evaluation(models: Sequence[str], rounds: int) -> None:
    """A table of both numbers of processes."""
    print("| model | processes | measures, CPU | measures, wall | drawing, CPU | drawing, wall |")
    print("|---|---|---|---|---|---|")
    for model in models:
        for num in (1, 2):
            (cpu, wall), (draw_cpu, draw_wall) = in_processes(num, measure_evaluation, model, rounds)
            print(
                f"| {model} | {num} | {cpu:.3f} s | {wall:.3f} s | {draw_cpu:.3f} s | {draw_wall:.3f} s |",
                flush=True,
            )


def tell(line: str) -> None:
    """A line from the first process."""
    if is_first():
        print(line, flush=True)


def in_processes(num: int, work: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of the first of `num` processes."""
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num,
        run_id="benchmark",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
    )
    return elastic_launch(config, work)(*arguments)[0]


def compare(models: Sequence[str], rounds: int, steps: int) -> None:
    """A table of both numbers of processes."""
    print("| model | processes | bare, CPU | genlab, CPU | ratio | bare, wall | genlab, wall | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for model in models:
        for num in (1, 2):
            found = in_processes(num, measure, model, rounds, steps)
            (bare_cpu, bare_wall), (our_cpu, our_wall) = found["bare"], found["genlab"]
            print(
                f"| {model} | {num} | {bare_cpu:.1f} ms | {our_cpu:.1f} ms | {our_cpu / bare_cpu:.3f} "
                f"| {bare_wall:.1f} ms | {our_wall:.1f} ms | {our_wall / bare_wall:.3f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["draw", "dcgan", "gated_pixelcnn"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=10)
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--volume", action="store_true", help="count what is sent instead")
    instead.add_argument("--evaluation", action="store_true", help="time evaluation and drawing instead")
    arguments = parser.parse_args()
    if arguments.volume:
        in_processes(2, print_volumes, arguments.models)
    elif arguments.evaluation:
        print_evaluation(arguments.models, arguments.rounds)
    else:
        compare(arguments.models, arguments.rounds, arguments.steps)


if __name__ == "__main__":
    main()
