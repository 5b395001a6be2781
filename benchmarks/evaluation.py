"""Evaluation of DRAW as genlab does it against batches of the training's size, side by side.

    python -m benchmarks.evaluation [--threads 1] [--setting small|paper|all] [--samples 0 1 10] [--rounds 3]

Both measure the same 512 images, with K importance samples where K is not 0; the base 64 at a time, ours as many as
``genlab train`` and ``genlab evaluate`` take, without subnormal numbers (genlab.numerics), as they do. Rounds are
interleaved in one process on the same weights; ratios are of medians of process CPU time.
"""

import argparse

import torch

from benchmarks.draw_step import SETTINGS, SIDE, build, keep_medians, report
from benchmarks.timing import median_seconds
from genlab.training.evaluation import average_measures, evaluation_batch_size
from genlab.types import Batch

TRAINING_SIZE = 64
NUM_IMAGES = 512


def measure(setting: dict[str, int], num_samples: int, rounds: int) -> dict[str, float]:
    torch.manual_seed(0)
    model = build(setting)
    images = (torch.rand(NUM_IMAGES, 1, SIDE, SIDE) < 0.2).float()
    labels = torch.full((NUM_IMAGES,), -1)

    def evaluate(size: int, *, flushes: bool) -> None:
        torch.set_flush_denormal(flushes)
        batches = (Batch(images=i, labels=j) for i, j in zip(images.split(size), labels.split(size), strict=True))
        average_measures(lambda batch: model.diagnose(batch, num_importance_samples=num_samples), batches)

    own = evaluation_batch_size(model, TRAINING_SIZE)
    return median_seconds(
        {
            f"batches of {TRAINING_SIZE}": lambda: evaluate(TRAINING_SIZE, flushes=False),
            f"of {own}": lambda: evaluate(own, flushes=True),
        },
        rounds=rounds,
        warm_up=2,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--setting", choices=[*SETTINGS, "all"], default="small")
    parser.add_argument("--samples", type=int, nargs="+", default=[0, 1, 10])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name, setting in SETTINGS.items():
        if arguments.setting in (name, "all"):
            for num in arguments.samples:
                seconds = measure(setting, num, arguments.rounds)
                report(f"{name}, K={num}", seconds)
                targets = (1.0, 1.3) if num else (1.3, None)
                keep_medians(f"evaluation of DRAW, T={setting['num_glimpses']}, K={num}", seconds, *targets)


if __name__ == "__main__":
    main()
