"""Several processes draw and measure images together: the same ones as a single process, each once."""

import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from benchmarks.composed import configuration_of
from genlab.metrics.generation import IMAGES_AT_ONCE, draw_images
from genlab.models.base import GenerativeModel
from genlab.parallel.collectives import alone, rank, share_rows, shared_work
from genlab.parallel.processes import dealt
from genlab.run.record import build_model
from genlab.training.randomness import generator_for
from genlab.types import ImageSpec
from tests.pair import NUM_PROCESSES, Pair
from tests.parallel.test_distributed import FAMILIES, train
from tests.thinning import thinned

SPEC = ImageSpec(channels=1, height=8, width=8, num_levels=2, num_classes=10)
MODELS = {
    "draw": ("model=draw", "model.num_glimpses=2", "model.num_units=8"),
    "dcgan": ("model=dcgan", "model.generator.channels=4", "model.discriminator.channels=4"),
    "cgan": ("model=cgan", "model.generator.channels=4", "model.discriminator.channels=4"),
    "gated_pixelcnn": ("model=gated_pixelcnn", "model.num_layers=2", "model.channels=4"),
}
PLACES = {"draw": "draw.draw", "dcgan": "gan.gan", "cgan": "gan.gan", "gated_pixelcnn": "pixelcnn.autoregressive"}


def built(name: str) -> GenerativeModel:
    configuration = configuration_of(*MODELS[name], "dataset.size=8")
    torch.manual_seed(0)
    model = build_model(configuration, SPEC)
    assert isinstance(model, GenerativeModel)
    return model.eval()


def squares(num_rows: int, *, is_shared: bool = True, is_alone: bool = False) -> tuple[list[int], Tensor]:
    """Return the rows that this process computed, and the squares of all."""
    numbers, own = torch.arange(num_rows), []

    def compute(rows: slice) -> Tensor:
        own.extend(numbers[rows].tolist())
        return torch.stack((numbers[rows], numbers[rows].square()), 1).double()

    with ExitStack() as stack:
        if is_shared:
            stack.enter_context(shared_work())
        if is_alone:
            stack.enter_context(alone())
        return own, share_rows(compute, num_rows)


def test_the_pair_is_two_processes(pair: Pair) -> None:
    assert pair.run(rank) == [0, 1]
    assert len(set(pair.run(os.getpid))) == 2


@pytest.mark.parametrize("num_rows", [1, 2, 3, 8])
def test_rows_are_computed_once_and_known_to_all(pair: Pair, num_rows: int) -> None:
    numbers = torch.arange(num_rows).double()
    expected = torch.stack((numbers, numbers.square()), 1)
    found = pair.run(squares, num_rows)
    for _, results in found:
        assert torch.equal(results, expected)
    computed = [row for own, _ in found for row in own]
    assert sorted(computed) == list(range(num_rows)) if num_rows >= NUM_PROCESSES else computed == [0, 0]


def by_itself() -> list[list[int]]:
    unshared, _ = squares(4, is_shared=False)
    lonely, _ = squares(4, is_alone=True)
    return [unshared, lonely]


def test_nothing_is_shared_unless_all_agree(pair: Pair) -> None:
    assert pair.run(by_itself) == [[[0, 1, 2, 3]] * 2] * NUM_PROCESSES


def dealt_squares(num_items: int) -> tuple[list[int], list[int]]:
    own: list[int] = []

    def compute(item: int) -> int:
        own.append(item)
        return item**2

    return own, dealt(iter(range(num_items)), compute)


@pytest.mark.parametrize("num_items", [0, 1, 2, 5])
def test_items_are_dealt_in_turn(pair: Pair, num_items: int) -> None:
    expected = [item**2 for item in range(num_items)]
    for process, (own, results) in enumerate(pair.run(dealt_squares, num_items)):
        assert own == list(range(process, num_items, NUM_PROCESSES))
        assert results == expected


def sampled(name: str, num_samples: int, seeds_differ: bool = False) -> tuple[int, Tensor]:
    """Return the number of rows that this process computed, and the samples, whose work processes share."""
    num_own = 0

    def counting(compute: Callable[[slice], Tensor], num_rows: int) -> Tensor:
        def counted(rows: slice) -> Tensor:
            nonlocal num_own
            num_own += len(range(num_rows)[rows])
            return compute(rows)

        return share_rows(counted, num_rows)

    generator = generator_for(rank() if seeds_differ else 0, "a test", device=torch.device("cpu"))
    with mock.patch(f"genlab.models.{PLACES[name]}.share_rows", counting), shared_work():
        samples = built(name).sample(num_samples, generator=generator)
    return num_own, samples


@pytest.mark.parametrize("name", thinned(MODELS, 4))
def test_processes_share_the_samples_of_one(pair: Pair, name: str) -> None:
    num_samples = 7
    num_own, expected = sampled(name, num_samples)
    assert num_own == num_samples
    found = pair.run(sampled, name, num_samples)
    assert sorted(num for num, _ in found) == [3, 4]
    for _, samples in found:
        assert torch.allclose(samples, expected, atol=1e-6)
    (_, ours), (_, theirs) = pair.run(sampled, name, num_samples, True)
    assert torch.equal(ours, theirs)
    assert not torch.allclose(ours, expected, atol=1e-6)  # half of them from other noise: this test would notice


def drawn(num_images: int) -> Tensor:
    return draw_images(built("dcgan"), num_images, labels=None, seed=3, device=torch.device("cpu"))


def test_images_to_be_measured_are_those_of_one_process(pair: Pair) -> None:
    num_images = 2 * IMAGES_AT_ONCE + 10
    expected = drawn(num_images)
    assert len(expected.unique(dim=0)) == num_images
    for images in pair.run(drawn, num_images):
        assert torch.equal(images, expected)


@pytest.mark.slow
def test_pictures_of_training_are_those_of_one_process(pair: Pair, tmp_path: Path) -> None:
    arguments = (*FAMILIES["dcgan"], "trainer.sample_interval=5", "trainer.num_sample_images=9")
    train(tmp_path / "one", arguments, {})
    pair.run(train, tmp_path / "two", arguments, {})
    names = [path.name for path in sorted((tmp_path / "one" / "samples").glob("*.png"))]
    assert "step_00000005.png" in names
    for name in names:
        one, two = (np.asarray(Image.open(tmp_path / run / "samples" / name), dtype=int) for run in ("one", "two"))
        assert np.abs(one - two).max() <= 1, name  # a level, where the weights' rounding tips one over


@pytest.mark.slow
def test_the_watch_sees_what_it_would_in_one_process(pair: Pair, tmp_path: Path) -> None:
    arguments = (*FAMILIES["dcgan"], "trainer.watch_interval=5", "trainer.watch_images=15")
    train(tmp_path / "one", arguments, {})
    pair.run(train, tmp_path / "two", arguments, {})
    ratios = [
        json.loads((tmp_path / run / "summary.json").read_text(encoding="utf-8"))["collapse"]["diversity_ratio"]
        for run in ("one", "two")
    ]
    assert ratios[1] == pytest.approx(ratios[0], rel=1e-3)
