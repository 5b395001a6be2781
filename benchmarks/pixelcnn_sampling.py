"""Seconds for a batch of 28x28 samples: the tutorial's sampler (a full pass per pixel) against ours, same weights.

    python -m benchmarks.pixelcnn_sampling --threads 1 --batches 1 16 64

The tutorial's sampler costs the same for every pixel, so it is timed on a few and extrapolated to 784 (--pixels 784
runs it in full). Both are interleaved in one process. With one thread, times are CPU seconds of the process, which
other load on the machine disturbs least; with more, they are wall seconds.
"""

import argparse
import time
from collections.abc import Callable

import torch

from benchmarks.plain_pixelcnn import PlainPixelCNN, same_networks
from benchmarks.rows import keep_row
from genlab.models.pixelcnn.pixelcnn import PixelCNN

# Least and aimed-for ratio at batch sizes 1, 16, 64.
TARGETS = {1: (50, 120), 16: (400, 800), 64: (900, 1400)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pixels", type=int, default=1, help="pixels of the tutorial's sampler timed per round")
    parser.add_argument("--bf16", action="store_true", help="ours in bfloat16: another distribution, not the same")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    plain, ours = same_networks()
    print(f"torch {torch.__version__}, {arguments.threads} thread(s), {clock.__name__}")
    print(f"incremental against full pass, greatest relative difference of logits: {logit_difference(ours):.1e}")
    for batch in arguments.batches:
        rounds = [
            (
                timed(clock, draw_plainly, plain, batch, arguments.pixels) / arguments.pixels * 784,
                timed(clock, draw_ours, ours, batch, arguments.bf16),
            )
            for _ in range(arguments.rounds)
        ]
        theirs = sorted(pair[0] for pair in rounds)[len(rounds) // 2]
        mine = sorted(pair[1] for pair in rounds)[len(rounds) // 2]
        least, aim = TARGETS.get(batch, (0, 0))
        ratio = f"{theirs / mine:7.0f} x (must {least}, aim {aim})"
        keep_row(f"PixelCNN sampling, batch {batch}", theirs, mine, must=least, aim=aim)
        print(f"batch {batch:4d}: plain {theirs:9.1f} s, ours {mine:7.3f} s, {ratio}")


def timed(clock: Callable[[], float], work: Callable[..., object], *arguments: object) -> float:
    start = clock()
    work(*arguments)
    return clock() - start


def draw_plainly(model: PlainPixelCNN, batch: int, num_pixels: int) -> None:
    images = torch.zeros(batch, 1, 28, 28)
    for index in range(num_pixels):
        model.draw_pixel(images, index // 28, index % 28)


def draw_ours(model: PixelCNN, batch: int, bf16: bool) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        model.sample(batch)


@torch.no_grad()
def logit_difference(model: PixelCNN) -> float:
    """Feed both ways of computing the logits the same random image."""
    symbols = torch.randint(256, (2, 1, 28, 28))
    labels = torch.full((2,), -1)
    expected = model.logits(symbols, labels)[:, 0]
    decoder = model.decoder(labels, dtype=torch.float32)
    worst = 0.0
    for row in range(28):
        decoder.begin_row(row)
        for column in range(28):
            decoder.advance(column, 0)
            difference = decoder.logits(column, 0) - expected[:, :, row, column]
            worst = max(worst, float(difference.abs().max()))
            decoder.write(column, 0, symbols[:, 0, row, column])
    return worst / float(expected.abs().max())


if __name__ == "__main__":
    main()
