"""Our batch path against torch's DataLoader with ToTensor and shuffle, on the same MNIST training images.

Both deliver shuffled batches of floats in [0, 1] with their labels; they take turns in one process on one thread, and
what is printed is the ratio of the median times. Beside them stands the plain way of somebody who holds the images in
memory, ``images[rows].float() / 255``. Usage, with MNIST in GENLAB_DATA or downloaded:

    OMP_NUM_THREADS=1 python -m benchmarks.data_path [--batch-size 128] [--rounds 40]
"""

import argparse
import itertools
import platform
from collections.abc import Callable, Iterator

import torch
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

from benchmarks.rows import keep_row
from benchmarks.timing import median_seconds
from genlab.data.dataset import Dataset
from genlab.data.location import resolve_root
from genlab.data.mnist import mnist
from genlab.errors import DataError

BATCHES_PER_TURN = 20
PLAIN = "images[rows].float() / 255"
RATIOS = {"none": (25, 150), "threshold": (25, 150), "stochastic": (25, 100)}  # must and aim


def endless(loader: DataLoader) -> Iterator[object]:
    while True:
        yield from loader


def build(binarization: str) -> Dataset:
    return mnist(
        root=None,
        download=True,
        num_validation=10_000,
        binarization=binarization,
        threshold=0.5,
        classes=None,
        num_labels_per_class=None,
        label_seed=0,
    )


def in_order(batch: Callable[[int], object]) -> Callable[[], object]:
    indices = itertools.count()
    return lambda: batch(next(indices))


def batch_paths(batch_size: int) -> dict[str, Callable[[], object]]:
    ours = build("none")
    images = Subset(MNIST(resolve_root(None), train=True, transform=ToTensor()), range(ours.num_images("train")))
    loader = endless(DataLoader(images, batch_size=batch_size, shuffle=True, drop_last=True))
    named: dict[str, Callable[[], object]] = {"DataLoader": lambda: next(loader)}
    levels = ours.store_on("train", torch.device("cpu")).gather(torch.arange(ours.num_images("train")))[0]
    rows = torch.randperm(len(levels)).split(batch_size)[:-1]
    named[PLAIN] = in_order(lambda index: levels[rows[index % len(rows)]].float() / 255)
    for binarization in RATIOS:
        stream = build(binarization).stream(batch_size=batch_size, seed=0, device=torch.device("cpu"))
        named[f"genlab, binarization={binarization}"] = in_order(stream.batch)
    return named


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        named = batch_paths(options.batch_size)
    except DataError as error:
        print(f"not measured, the real files are needed: {error}")
        return
    medians = median_seconds(named, rounds=options.rounds - 1, warm_up=1, steps=BATCHES_PER_TURN)
    baseline = medians["DataLoader"]
    print(
        f"torch {torch.__version__}, {platform.processor() or platform.machine()}, batch {options.batch_size}, 1 thread"
    )
    for name, seconds in medians.items():
        wanted = RATIOS.get(name.rpartition("=")[2])
        goal = f"  (must {wanted[0]}, aim {wanted[1]})" if wanted else ""
        print(f"{name:<34} {seconds * 1e6:9.1f} us a batch  {baseline / seconds:6.1f} x{goal}")
        if wanted:
            work = f"batch, {name.rpartition('=')[2]}"
            keep_row(f"{work}, DataLoader", baseline, seconds, must=wanted[0], aim=wanted[1])
            keep_row(f"{work}, {PLAIN}", medians[PLAIN], seconds, must=0.5, aim=1.0)


if __name__ == "__main__":
    main()
