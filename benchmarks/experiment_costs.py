"""How long published experiments would take here, estimated from a few steps of each.

    python -m benchmarks.experiment_costs [NAME ...] [--device cpu] [--threads 1] [--batch 8] [--steps 2]

Without names, all experiments whose header says "not run". The steps are those of `genlab train` on images of noise of
the same shape. A step of `--batch` images comes first; where a whole one would take less than 30 s, it is measured,
otherwise the first is scaled to it, which is too high where a larger batch takes less time an image. Validation,
samples and tests are not counted.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from benchmarks.gpu.measuring import median_ms
from benchmarks.gpu.subjects import Subject, configuration_of, step, trainer_of
from genlab.comparison.published import read_experiments
from genlab.config.location import config_directory
from genlab.run.environment import describe_cpu

SHAPES: Mapping[str, Mapping[str, Any]] = {
    "cifar10": {"channels": 3, "side": 32, "num_classes": 10},
    "svhn": {"channels": 3, "side": 32, "num_classes": 10},
    "mnist": {"num_classes": 10},
    "stacked_mnist": {"channels": 3, "num_classes": 1000},
    "binarized_mnist": {"num_levels": 2},
    "two_digit_mnist": {"side": 60, "num_levels": 2},
}
"""Images of a data set, by the last part of its ``_target_``."""
LONGEST_STEP = 30.0
"""Seconds of a step that is still measured whole."""


def estimate(name: str, *, device: torch.device, batch: int, steps: int) -> tuple[int, int, float]:
    """Return an experiment's number of steps, its batch size, and seconds of a whole step.

    Args:
        name: Of the experiment.
        device: To train on.
        batch: Images of the step that comes first, if the experiment's own batch is not smaller.
        steps: Measured steps, after one that is not.
    """
    own = configuration_of(f"experiment={name}", quiet=False)
    dataset, whole = own.dataset, own.settings.batch_size

    def seconds(size: int) -> float:
        subject = Subject(
            overrides=(f"experiment={name}", f"trainer.batch_size={size}", "trainer.num_initialization_images=64"),
            binarization=dataset.get("binarization", "none"),
            **SHAPES[dataset["_target_"].rsplit(".", 1)[1]],
        )
        trainer = trainer_of(subject, device, captured=device.type == "cuda")
        return median_ms(lambda: step(trainer), device, repeats=steps, seconds=60) / 1e3 * whole / size

    of_step = seconds(min(batch, whole))
    if batch < whole and of_step < LONGEST_STEP:
        of_step = seconds(whole)
    return own.settings.num_steps, whole, of_step


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2)
    arguments = parser.parse_args(words)
    torch.set_num_threads(arguments.threads)
    experiments = read_experiments([config_directory()])
    names = arguments.names or [each.name for each in experiments if each.ours.startswith("not run")]
    print(f"{describe_cpu()}, {arguments.threads} thread(s), {arguments.device}\n")
    print("| experiment | steps | batch | seconds a step | hours |\n|---|---|---|---|---|")
    for name in names:
        steps, size, seconds = estimate(name, device=arguments.device, batch=arguments.batch, steps=arguments.steps)
        print(f"| `{name}` | {steps:,} | {size} | {seconds:.2f} | {steps * seconds / 3600:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
