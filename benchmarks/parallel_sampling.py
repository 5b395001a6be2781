"""Seconds for a batch of samples of a trained run: the incremental sampler against the parallel one.

    python -m benchmarks.parallel_sampling [RUN] --batches 1 4 16 --threads 1

Without RUN a gated PixelCNN is trained for 140 steps on the digits first.

Both draw from the same uniforms, interleaved in one process. The first column of passes is with all rows at once
(Jacobi), the second with one row after another (blocks of Gauss-Seidel).
"""

import argparse
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch

import genlab
from genlab.models.pixelcnn import autoregressive
from genlab.models.pixelcnn.parallel import FixedPoint, solve_symbols
from genlab.run.loading import load_trained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with TemporaryDirectory() as place:
        run = arguments.run or _trained(Path(place) / "gated_pixelcnn", arguments.threads)
        model = load_trained(run, checkpoint="last", device=torch.device("cpu")).model
    assert isinstance(model, autoregressive.AutoregressiveModel)
    capability = torch.backends.cpu.get_cpu_capability()
    print(f"torch {torch.__version__}, {arguments.threads} thread(s), {capability}, {run.name}")
    print("images  incremental s  parallel s (passes)  by rows s (passes)  equal images")
    for batch in arguments.batches:
        rounds = [_draw_all(model, batch, seed) for seed in range(arguments.rounds)]
        seconds = [median(times) for times in zip(*(times for times, _, _ in rounds), strict=True)]
        passes = [round(median(counts)) for counts in zip(*(counts for _, counts, _ in rounds), strict=True)]
        equal = sum(num for _, _, num in rounds)
        row = f"{seconds[1]:10.3f} ({passes[0]:4d})  {seconds[2]:12.3f} ({passes[1]:4d})"
        print(f"{batch:6d}  {seconds[0]:13.3f}  {row}  {equal:6d} of {batch * arguments.rounds}")


def _trained(folder: Path, num_threads: int) -> Path:
    lengths = ("trainer.num_steps=140", "trainer.validation_interval=0", "trainer.sample_interval=0")
    settings = (*lengths, "trainer.test_at_end=false", "device=cpu", f"num_threads={num_threads}")
    return genlab.train("gated_pixelcnn", dataset="digits", overrides=[*settings, f"hydra.run.dir={folder}"]).folder


def _draw_all(model: autoregressive.AutoregressiveModel, batch: int, seed: int) -> tuple[list[float], list[int], int]:
    """Return seconds of the three samplers, passes of the latter two, and the images that all three draw alike."""
    passes: list[int] = []

    def draw(rows_at_once: int | None, **options: Any) -> tuple[float, torch.Tensor]:
        def counted(*arguments: Any, **keywords: Any) -> FixedPoint:
            solved = solve_symbols(*arguments, rows_at_once=rows_at_once, **keywords)
            passes.append(solved.num_passes)
            return solved

        with patch.object(autoregressive, "solve_symbols", counted):
            start = time.perf_counter()
            images = model.sample(batch, generator=torch.Generator().manual_seed(seed), **options)
            return time.perf_counter() - start, images

    drawn = draw(None, method="incremental"), draw(None, method="parallel"), draw(1, method="parallel")
    first, *others = (images for _, images in drawn)
    is_equal = torch.stack([(first == other).flatten(1).all(1) for other in others]).all(0)
    return [seconds for seconds, _ in drawn], passes, int(is_equal.sum())


if __name__ == "__main__":
    main()
