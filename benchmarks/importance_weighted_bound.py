"""The importance-weighted bound of DRAW with K samples against one pass for each sample, side by side.

    python -m benchmarks.importance_weighted_bound [--threads 1] [--samples 100] [--images 64] [--rounds 3] [--compile]

The base is the plain port of the source document (draw_step.py) called once for each sample on the batch; ours takes
about a thousand rows to a pass, which is also all the memory it needs. Rounds are interleaved in one process on the
same weights; the two estimates must agree within their standard error before the ratio means anything.
"""

import argparse

import torch
from torch import Tensor

from benchmarks.draw_step import SETTINGS, SIDE, PlainPort, build, copy_weights, keep_medians, report
from benchmarks.timing import median_seconds
from genlab.functional import importance_weighted_nll
from genlab.types import Batch


@torch.no_grad()
def measure(name: str, setting: dict[str, int], arguments: argparse.Namespace) -> None:
    torch.manual_seed(0)
    model, port = build(setting), PlainPort(**setting)
    copy_weights(model, port)
    images = (torch.rand(arguments.images, 1, SIDE, SIDE) < 0.2).float()
    batch = Batch(images=images, labels=torch.full((arguments.images,), -1))
    estimates: dict[str, list[Tensor]] = {"one pass per sample": [], "genlab": []}

    def base() -> None:
        log_weights = torch.stack([port.log_weight(images) for _ in range(arguments.samples)])
        estimates["one pass per sample"].append(importance_weighted_nll(log_weights))

    def ours() -> None:
        measures = model.diagnose(batch, num_importance_samples=arguments.samples)
        estimates["genlab"].append(measures["nll_importance_weighted_nats"])

    if arguments.compile:
        for module in model.compilable():
            module.compile()
    seconds = median_seconds({"one pass per sample": base, "genlab": ours}, rounds=arguments.rounds, warm_up=2)
    means = [torch.stack(values).mean(1) for values in estimates.values()]
    spread = torch.stack([values.std() for values in means]).norm().item()
    difference = (means[0].mean() - means[1].mean()).abs().item()
    if difference > 4 * spread + 1e-3:
        raise RuntimeError(f"the two estimates differ by {difference:.4f} nats, which is no noise")
    report(name, seconds)
    keep_medians(f"importance-weighted bound, K={arguments.samples}", seconds, 1.3, 1.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="compile the glimpses of our model")
    parser.add_argument("--setting", choices=[*SETTINGS, "all"], default="small")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name, setting in SETTINGS.items():
        if arguments.setting in (name, "all"):
            measure(name, setting, arguments)


if __name__ == "__main__":
    main()
