"""Seconds of a training step of the source document's network: a plain port against ours, same weights.

    python -m benchmarks.pixelcnn_training --threads 1

Forward, cross-entropy, backward and Adam on random 28x28 images of 256 levels, interleaved in one process. `same
function` computes what the port computes; bf16 and compile change rounding. With one thread, times are CPU seconds.
"""

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from benchmarks.plain_pixelcnn import PlainPixelCNN, same_networks
from benchmarks.rows import keep_row
from genlab.models.pixelcnn.pixelcnn import PixelCNN
from genlab.types import Batch

# Least and aimed-for ratio.
TARGETS = {"same function": (1.17, 1.3), "bf16 and compile": (0, 2.4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="also the compiled network (a minute more)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    print(f"torch {torch.__version__}, {arguments.threads} thread(s), batch {arguments.batch}, {clock.__name__}")
    steps = make_steps(arguments.compile)
    levels = torch.randint(256, (arguments.batch, 1, 28, 28))
    losses = {name: step(levels) for name, step in steps.items()}  # the first step also compiles
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(arguments.rounds):
        for name, step in steps.items():
            start = clock()
            step(levels)
            seconds[name].append(clock() - start)
    medians = {name: sorted(times)[len(times) // 2] for name, times in seconds.items()}
    for name, median in medians.items():
        least, aim = TARGETS.get(name, (0, 0))
        ratio = f"{medians['plain port'] / median:5.2f} x (must {least}, aim {aim})"
        if least:
            keep_row("PixelCNN training step", medians["plain port"], median, must=least, aim=aim)
        print(f"{name:18s} {median:7.3f} s a step  {ratio}  first loss {losses[name]:.4f} nats a pixel")


def make_steps(with_compile: bool) -> dict[str, Callable[[torch.Tensor], float]]:
    plain, ours = same_networks()
    steps = {"plain port": plain_step(plain), "same function": our_step(ours, bf16=False)}
    steps["bf16"] = our_step(same_networks()[1], bf16=True)
    if with_compile:
        for name, bf16 in (("compile", False), ("bf16 and compile", True)):
            compiled = same_networks()[1]
            for module in compiled.compilable():
                module.compile()
            steps[name] = our_step(compiled, bf16=bf16)
    return steps


def plain_step(model: PlainPixelCNN) -> Callable[[torch.Tensor], float]:
    optimizer = torch.optim.Adam(model.train().parameters(), lr=1e-3)

    def step(levels: torch.Tensor) -> float:
        loss = F.cross_entropy(model(levels / 255), levels[:, 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def our_step(model: PixelCNN, *, bf16: bool) -> Callable[[torch.Tensor], float]:
    (phase,) = model.train().phases()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def step(levels: torch.Tensor) -> float:
        batch = Batch(images=levels / 255, labels=torch.full((len(levels),), -1))
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = phase.loss(batch).value
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item() / 784

    return step


if __name__ == "__main__":
    main()
