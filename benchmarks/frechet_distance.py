"""The Frechet distance between two Gaussians against the formula with scipy's matrix root, side by side.

    python -m benchmarks.frechet_distance [--threads 1] [--features 2048] [--images 10000] [--rounds 3]

Only the distance is timed: means and covariances are given. Rounds are interleaved in one process, process time; the
two values must agree before the ratio means anything.
"""

import argparse
import functools
import platform

import numpy as np
import scipy.linalg
import torch
from threadpoolctl import threadpool_limits

from benchmarks.rows import keep_row
from benchmarks.timing import median_seconds
from genlab.metrics.frechet import Gaussian, fit_gaussian, frechet_distance

MUST, AMBITIOUS = 3, 7


def by_matrix_root(first: Gaussian, second: Gaussian) -> float:
    covariances = first.covariance.numpy(), second.covariance.numpy()
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    offset = (first.mean - second.mean).square().sum().item()
    return offset + float(sum(np.trace(each) for each in covariances) - 2 * np.trace(root))


def draw(num_images: int, num_features: int) -> Gaussian:
    """Rectified and correlated, with a spectrum that falls, as the features of a network are."""
    spectrum = torch.arange(1, num_features + 1) ** -0.5
    mix = torch.linalg.qr(torch.randn(num_features, num_features)).Q * spectrum
    return fit_gaussian((torch.randn(num_images, num_features) @ mix.t()).relu())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    first, second = (draw(arguments.images, arguments.features) for _ in range(2))
    distances = {"scipy.linalg.sqrtm": by_matrix_root, "genlab": frechet_distance}
    values: dict[str, float] = {}

    def measure(name: str) -> None:
        values[name] = distances[name](first, second)

    with threadpool_limits(arguments.threads):
        ways = {name: functools.partial(measure, name) for name in distances}
        medians = median_seconds(ways, rounds=arguments.rounds)
    base, ours = values.values()
    if abs(ours - base) > 1e-6 * abs(base):
        raise RuntimeError(f"the two distances differ: {base} and {ours}")
    machine = platform.processor() or platform.machine()
    print(f"torch {torch.__version__}, {machine}, {arguments.features} features, {arguments.threads} thread(s)")
    for name, value in medians.items():
        print(f"{name:<20} {value:8.3f} s")
    keep_row(f"Frechet distance, {arguments.features}", *medians.values(), must=MUST, aim=AMBITIOUS)
    print(f"ratio {medians['scipy.linalg.sqrtm'] / medians['genlab']:.1f} (must {MUST}, ambitious {AMBITIOUS})")


if __name__ == "__main__":
    main()
