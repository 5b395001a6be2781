"""Seconds for a batch of 28x28 samples: the tutorial's sampler (a full pass per pixel) against ours, same weights.

    python -m benchmarks.pixelcnn_sampling --threads 1 --batches 1 16 64 [--plus-plus]

The tutorial's sampler costs the same for every pixel, so it is timed on a few and extrapolated to 784 (--pixels 784
runs it in full). Both are interleaved in one process. With one thread, times are CPU seconds of the process, which
other load on the machine disturbs least; with more, they are wall seconds. With --plus-plus it is PixelCNN++ in its
default size instead: the probabilities of all 256 levels of every pixel, with subnormal numbers as PyTorch has them,
against the search in their cumulative one without such numbers.
"""

import argparse
import functools
import time
from collections.abc import Callable

import torch

from benchmarks.pixelcnn_training import PLUS_PLUS, SPEC
from benchmarks.plain_pixelcnn import PlainPixelCNN, same_networks
from benchmarks.rows import keep_row
from benchmarks.timing import median_seconds
from genlab.checks.autoregressive import decode
from genlab.models.pixelcnn.pixelcnn import PixelCNN
from genlab.models.pixelcnn.plus_plus import PixelCNNPP
from genlab.models.pixelcnn.plus_plus_decoder import TwoStreamDecoder

# Least and aimed-for ratio at batch sizes 1, 16, 64.
TARGETS = {1: (50, 120), 16: (400, 800), 64: (900, 1400)}
PLUS_PLUS_TARGETS = {16: 1.6, 64: 3.2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pixels", type=int, default=1, help="pixels of the tutorial's sampler timed per round")
    parser.add_argument("--bf16", action="store_true", help="ours in bfloat16: another distribution, not the same")
    parser.add_argument("--plus-plus", action="store_true", help="PixelCNN++ and its search")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    if arguments.plus_plus:
        measure_plus_plus(arguments.batches, arguments.rounds, clock)
        return
    plain, ours = same_networks()
    print(f"torch {torch.__version__}, {arguments.threads} thread(s), {clock.__name__}")
    print(f"incremental against full pass, greatest relative difference of logits: {logit_difference(ours):.1e}")
    for batch in arguments.batches:
        ways = {
            "plain": functools.partial(draw_plainly, plain, batch, arguments.pixels),
            "ours": functools.partial(draw_ours, ours, batch, arguments.bf16),
        }
        of_some, mine = median_seconds(ways, rounds=arguments.rounds, clock=clock).values()
        theirs = of_some / arguments.pixels * 784
        least, aim = TARGETS.get(batch, (0, 0))
        ratio = f"{theirs / mine:7.0f} x (must {least}, aim {aim})"
        keep_row(f"PixelCNN sampling, batch {batch}", theirs, mine, must=least, aim=aim)
        print(f"batch {batch:4d}: plain {theirs:9.1f} s, ours {mine:7.3f} s, {ratio}")


class AllLevelsDecoder(TwoStreamDecoder):
    """The decoder without its search, so that the sampler asks for the logits of all levels."""

    invert_cdf = None  # type: ignore[assignment]


class AllLevelsPixelCNNPP(PixelCNNPP):
    def decoder(self, labels: torch.Tensor, *, dtype: torch.dtype) -> AllLevelsDecoder:
        return AllLevelsDecoder(self.network, spec=self.spec, labels=labels, dtype=dtype)


def measure_plus_plus(batches: list[int], rounds: int, clock: Callable[[], float]) -> None:
    torch.manual_seed(0)
    options = {"spec": SPEC, "class_conditional": False, "dropout": 0.0, **PLUS_PLUS}
    plain, ours = AllLevelsPixelCNNPP(**options).eval(), PixelCNNPP(**options).eval()
    ours.load_state_dict(plain.state_dict())
    drawn: dict[PixelCNNPP, torch.Tensor] = {}

    def draw(model: PixelCNNPP, batch: int) -> None:
        torch.set_flush_denormal(model is ours)  # as genlab sample does (genlab.numerics)
        drawn[model] = model.sample(batch, generator=torch.Generator().manual_seed(1))

    for batch in batches:
        ways = {"all levels": functools.partial(draw, plain, batch), "search": functools.partial(draw, ours, batch)}
        theirs, mine = median_seconds(ways, rounds=rounds, clock=clock).values()
        assert (drawn[plain] == drawn[ours]).float().mean() > 0.99
        must = PLUS_PLUS_TARGETS.get(batch, 0)
        keep_row(f"PixelCNN++ sampling, batch {batch}", theirs, mine, must=must)
        print(
            f"batch {batch:4d}: all levels {theirs:6.2f} s, search {mine:6.2f} s, {theirs / mine:5.2f} x (must {must})"
        )


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
    expected = model.logits(symbols, labels)
    found = decode(model, symbols, labels, torch.float32)
    return float((found - expected).abs().max() / expected.abs().max())


if __name__ == "__main__":
    main()
