"""Seconds of a training step of three networks: a plain port of each against ours, same weights.

    python -m benchmarks.pixelcnn_training [--networks document gated plus_plus] [--batch 16] [--rounds 5] [--compile]

Forward, loss, backward and Adam on random 28x28 images of 256 levels, interleaved in one process; the losses of the
first two steps must agree before anything is timed. `document` is the source document's network, `gated` and
`plus_plus` are ours in their default sizes, against the usual ways to write them (benchmarks/plain_*.py). bf16 and
compile change rounding. The ports take Adam as it comes, ours is fused as in our configurations, and only ours is
compiled. With one thread, times are CPU seconds.
"""

import argparse
import functools
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.plain_gated import PlainGatedPixelCNN
from benchmarks.plain_pixelcnn import same_networks
from benchmarks.plain_plus_plus import PlainPixelCNNPP
from benchmarks.rows import keep_row
from benchmarks.timing import median_seconds
from genlab.models.pixelcnn.autoregressive import AutoregressiveModel
from genlab.models.pixelcnn.gated import GatedPixelCNN
from genlab.models.pixelcnn.plus_plus import PixelCNNPP
from genlab.types import Batch, ImageSpec

SPEC = ImageSpec(channels=1, height=28, width=28, num_levels=256, num_classes=0)
GATED = {"num_layers": 6, "channels": 24, "input_kernel": 7, "kernel_size": 3, "head_channels": [64]}
BLOCKS_DOWN = [1, 1, 1]
PLUS_PLUS = {"filters": 16, "blocks_down": BLOCKS_DOWN, "num_components": 5}
BATCH_SIZES = {"document": 8, "gated": 16, "plus_plus": 16}
NAMES = {"document": "PixelCNN", "gated": "gated PixelCNN", "plus_plus": "PixelCNN++"}
TARGETS = {
    ("document", "same function"): (1.17, 1.3),
    ("gated", "same function"): (1.3, 1.5),
    ("gated", "compiled"): (1.3, 1.5),
    ("plus_plus", "same function"): (1.3, 1.5),
    ("plus_plus", "compiled"): (1.3, 1.5),
    ("document", "bf16 and compiled"): (0, 2.4),
}  # least and aimed-for ratio

Step = Callable[[Tensor], float]


def networks(kind: str) -> tuple[dict[str, Callable[[Tensor], Tensor]], dict[str, nn.Module], AutoregressiveModel]:
    """Return the losses of the ports in nats per image, the ports, the first being the baseline, and our model."""
    torch.manual_seed(0)
    if kind == "document":
        plain, document = same_networks()
        return (
            {"plain port": lambda levels: F.cross_entropy(plain(levels / 255), levels[:, 0]) * 784},
            {"plain port": plain},
            document,
        )
    ports: dict[str, PlainGatedPixelCNN | PlainPixelCNNPP]
    ours: AutoregressiveModel
    if kind == "gated":
        gated = GatedPixelCNN(spec=SPEC, class_conditional=False, dropout=0.0, position_bias=True, **GATED)
        ports = {
            "cropped port": PlainGatedPixelCNN(gated.network, crops=True),
            "masked port": PlainGatedPixelCNN(gated.network, crops=False),
        }
        ours = gated
    else:
        plus_plus = PixelCNNPP(spec=SPEC, class_conditional=False, dropout=0.0, **PLUS_PLUS)
        ports = {"plain port": PlainPixelCNNPP(plus_plus.network, BLOCKS_DOWN)}
        ours = plus_plus
    losses = {name: lambda levels, port=port: port.loss(levels, SPEC.num_levels) for name, port in ports.items()}
    return losses, dict(ports), ours


def make_steps(kind: str, *, compiles: bool, bf16: bool) -> dict[str, Step]:
    losses, ports, ours = networks(kind)
    steps = {
        name: step_of(loss, torch.optim.Adam(ports[name].train().parameters(), lr=1e-3))
        for name, loss in losses.items()
    }
    steps["same function"] = our_step(ours, bf16=False)
    if bf16:
        steps["bf16"] = our_step(networks(kind)[2], bf16=True)
    for with_bf16 in (False, True)[: compiles + (compiles and bf16)]:
        compiled = networks(kind)[2]
        for module in compiled.compilable():
            module.compile()
        steps["bf16 and compiled" if with_bf16 else "compiled"] = our_step(compiled, bf16=with_bf16)
    return steps


def our_step(model: AutoregressiveModel, *, bf16: bool) -> Step:
    (phase,) = model.train().phases()

    def loss(levels: Tensor) -> Tensor:
        batch = Batch(images=levels / 255, labels=torch.full((len(levels),), -1))
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return phase.loss(batch).value

    return step_of(loss, torch.optim.Adam(model.parameters(), lr=1e-3, fused=True))


def step_of(loss: Callable[[Tensor], Tensor], optimizer: torch.optim.Optimizer) -> Step:
    def step(levels: Tensor) -> float:
        value = loss(levels)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        return value.item()

    return step


def measure(kind: str, *, batch: int, rounds: int, compiles: bool, bf16: bool, clock: Callable[[], float]) -> None:
    steps = make_steps(kind, compiles=compiles, bf16=bf16)
    levels = torch.randint(SPEC.num_levels, (batch, 1, 28, 28))
    for _ in range(2):  # the first step also compiles
        losses = {name: step(levels) for name, step in steps.items()}
        baseline, *others = losses
        for name in others:
            tolerance = 1e-2 if "bf16" in name else 1e-4
            assert abs(losses[name] / losses[baseline] - 1) < tolerance, losses
    ways = {name: functools.partial(step, levels) for name, step in steps.items()}
    medians = median_seconds(ways, rounds=rounds, clock=clock)
    for name, median in medians.items():
        least, aim = TARGETS.get((kind, name), (0, 0))
        ratio = f"{medians[baseline] / median:5.2f} x (must {least}, aim {aim})"
        if least:
            work = f"{NAMES[kind]} training step, {'compiled' if name == 'compiled' else 'eager'}, batch {batch}"
            keep_row(work, medians[baseline], median, must=least, aim=aim)
        print(f"{kind:9} {name:18s} {median * 1e3:7.1f} ms a step  {ratio}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, help="8 for the document's network, 16 for the others by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="also the compiled network (a minute more)")
    parser.add_argument("--bf16", action="store_true", help="also under bfloat16 autocast")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    print(f"torch {torch.__version__}, {arguments.threads} thread(s), {clock.__name__}")
    for kind in arguments.networks:
        measure(
            kind,
            batch=arguments.batch or BATCH_SIZES[kind],
            rounds=arguments.rounds,
            compiles=arguments.compile,
            bf16=arguments.bf16,
            clock=clock,
        )


if __name__ == "__main__":
    main()
