"""Cost of the reference layers beside PyTorch's own: milliseconds forward, backward and twice backward.

    python -m benchmarks.convolution_layers [--threads 1] [--batch 64] [--rounds 15]

The shapes are those of a DCGAN for 28x28 images. Both layers have the same weights, and their outputs and gradients
must agree before anything is timed; rounds are interleaved in one process, and the ratio is of medians of process time
(of all threads). `penalty` is a gradient penalty from its forward pass to the gradient of the weight. The ratio is a
price to know, not a target: the reference is there to be read.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from genlab.nn.convolution.layers import ConvolutionLayers, builtin_layers, reference_layers

# Name, layer, shape of its input without the batch.
LAYERS: list[tuple[str, Callable[[ConvolutionLayers], nn.Module], tuple[int, int, int]]] = [
    ("Conv2d 4x4, stride 2", lambda layers: layers.conv2d(64, 128, 4, stride=2, padding=1), (64, 14, 14)),
    ("Conv2d 3x3", lambda layers: layers.conv2d(64, 64, 3, padding=1), (64, 14, 14)),
    ("ConvTranspose2d 4x4, stride 2", lambda layers: layers.conv_transpose2d(128, 64, 4, 2, 1), (128, 7, 7)),
    ("MaxPool2d 2x2", lambda layers: layers.max_pool2d(2), (64, 28, 28)),
    ("AvgPool2d 2x2", lambda layers: layers.avg_pool2d(2), (64, 28, 28)),
]


class Passes:
    """The three passes of one layer on one batch, each from scratch."""

    def __init__(self, layer: nn.Module, x: Tensor) -> None:
        self.layer, self.x = layer, x
        self.inputs = [x, *layer.parameters()]
        self.dz = torch.ones_like(layer(x))

    def run(self) -> Iterator[tuple[str, float, list[Tensor]]]:
        """Name, seconds of process time and results of every pass."""
        start = time.process_time()
        z = self.layer(self.x)
        yield "forward", time.process_time() - start, [z]
        start = time.process_time()
        gradients = torch.autograd.grad(z, self.inputs, self.dz)
        yield "backward", time.process_time() - start, list(gradients)
        if isinstance(self.layer, nn.MaxPool2d | nn.AvgPool2d):
            return  # linear where it can be differentiated: no second order
        start = time.process_time()
        (gradient,) = torch.autograd.grad(self.layer(self.x), self.x, self.dz, create_graph=True)
        second = torch.autograd.grad(gradient.square().sum(), self.layer.weight)
        yield "penalty", time.process_time() - start, list(second)


def measure(
    name: str, build: Callable[[ConvolutionLayers], nn.Module], shape: tuple[int, int, int], *, batch: int, rounds: int
) -> None:
    passes = []
    for layers in (builtin_layers(), reference_layers()):
        torch.manual_seed(0)
        layer = build(layers)
        passes.append(Passes(layer, torch.randn(batch, *shape, requires_grad=True)))
    for (_, _, theirs), (_, _, ours) in zip(passes[0].run(), passes[1].run(), strict=True):
        for a, b in zip(theirs, ours, strict=True):
            torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4 * a.abs().max().item())
    seconds: dict[str, tuple[list[float], list[float]]] = {}
    for _ in range(rounds):
        for index, layer_passes in enumerate(passes):
            for kind, elapsed, _ in layer_passes.run():
                seconds.setdefault(kind, ([], []))[index].append(elapsed)
    for kind, times in seconds.items():
        builtin, reference = (1e3 * statistics.median(values) for values in times)
        print(f"{name:30s} {kind:8s} {builtin:8.2f} ms  {reference:8.2f} ms  costs {reference / builtin:5.2f} x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {arguments.threads} thread(s), batch {arguments.batch}; built-in, reference")
    for name, build, shape in LAYERS:
        measure(name, build, shape, batch=arguments.batch, rounds=arguments.rounds)


if __name__ == "__main__":
    main()
