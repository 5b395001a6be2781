"""The step of ``genlab train`` against a bare loop over the same network, on grey and on colour images.

    python -m benchmarks.training_step [--models gated_pixelcnn pixelcnn_pp ...] [--rounds 5] [--steps 2] [--compile]

The bare loop is that of ``benchmarks/processes.py``: an index into the images, each phase's loss, its gradient and an
optimiser's step. Images are noise, 28x28 grey, and 32x32 in colour for the names that end in ``/colour``. Rounds are
interleaved in one process on one thread; ratios are of medians of process CPU time. The limit is the time that the
step's products and convolutions would take at the speed of a large matrix product in float32, measured beside it; a
model with a must for it trains in float32 too.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.composed import configuration_of
from benchmarks.noise import noise_dataset, random_levels
from benchmarks.processes import QUIET, bare_step, our_step
from benchmarks.rows import keep_row
from benchmarks.timing import median_seconds
from genlab.launch.runtimes import keep_freed_memory

MODELS = ("draw", "dcgan", "gated_pixelcnn", "pixelcnn_pp", "gated_pixelcnn/colour", "pixelcnn_pp/colour")
MUST, AIM = 1.05, 1.02
MOST_OVER_LIMIT = {"dcgan": 1.7}
MATRIX_SIDE = 1024


def measure(name: str, rounds: int, steps: int, *, compiles: bool) -> dict[str, float]:
    """Return the median seconds of a step, of the bare loop, of ours and of its arithmetic at full speed."""
    model, _, kind = name.partition("/")
    words = [f"model={model}", "device=cpu", *(f"trainer.{action}_interval=0" for action in QUIET)]
    words += ["trainer.compile=true"] if compiles else []
    words += ["trainer.precision=float32"] if name in MOST_OVER_LIMIT else []
    words += ["model.channels=24"] if kind == "colour" and model == "gated_pixelcnn" else []
    configuration = configuration_of(*words)
    dataset = noise_dataset(random_levels(1000, *((3, 32, 32) if kind == "colour" else (1, 28, 28))))
    matrix = torch.randn(MATRIX_SIDE, MATRIX_SIDE)
    with tempfile.TemporaryDirectory() as folder:
        ways: dict[str, Callable[[], object]] = {
            "bare": bare_step(configuration, dataset),
            "genlab": our_step(configuration, dataset, Path(folder)),
            "limit": lambda: torch.mm(matrix, matrix),
        }
        with FlopCounterMode(display=False) as counter:
            ways["bare"]()
        products = counter.get_total_flops() / (2 * MATRIX_SIDE**3)
        medians = median_seconds(ways, rounds=rounds, warm_up=1, steps=steps)
    return {**medians, "limit": medians["limit"] * products}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="ours with trainer.compile=true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    for name in arguments.models:
        seconds = measure(name, arguments.rounds, arguments.steps, compiles=arguments.compile)
        bare, ours, limit = seconds["bare"], seconds["genlab"], seconds["limit"]
        print(
            f"{name:22} bare {bare * 1e3:7.1f} ms, genlab {ours * 1e3:7.1f} ms a step, ratio {ours / bare:.3f}; "
            f"limit {limit * 1e3:7.1f} ms, {ours / limit:.2f} times"
        )
        keep_row(f"step of genlab train, {name}", bare, ours, must=MUST, aim=AIM, lower_is_better=True)
        if name in MOST_OVER_LIMIT:
            work = f"the same over the limit of its arithmetic, {name}"
            keep_row(work, limit, ours, must=MOST_OVER_LIMIT[name], lower_is_better=True)


if __name__ == "__main__":
    main()
