import math

import pytest
import torch

from genlab.training.evaluation import average_measures
from genlab.types import Batch


def batches(sizes: list[int]) -> list[Batch]:
    images = torch.arange(sum(sizes), dtype=torch.float32).view(-1, 1, 1, 1)
    labels = torch.full((sum(sizes),), -1)
    return [Batch(images=i, labels=part) for i, part in zip(images.split(sizes), labels.split(sizes), strict=True)]


def test_the_last_partial_batch_counts_by_its_size() -> None:
    """A mean of batch means would give (0.5 + 2.5 + 4) / 3; a division by the wrong batch count is off too."""
    average = average_measures(lambda batch: {"x": batch.images.flatten()}, batches([2, 2, 1]))["x"]
    assert average.mean == 2.0
    assert average.num_examples == 5
    assert average.standard_error == pytest.approx(math.sqrt(2.5) / math.sqrt(5))


def test_curves_are_averaged_point_by_point() -> None:
    average = average_measures(
        lambda batch: {"c": torch.cat([batch.images.view(-1, 1), -batch.images.view(-1, 1)], 1)}, batches([3, 2])
    )["c"]
    assert average.mean == [2.0, -2.0]


def test_sums_do_not_lose_precision() -> None:
    big = average_measures(lambda batch: {"x": torch.full((len(batch.images),), 1e8 + 1)}, batches([1000] * 3))["x"]
    assert big.mean == float(torch.tensor(1e8 + 1))


def test_a_reduced_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="per example"):
        average_measures(lambda batch: {"x": batch.images.mean()}, batches([2]))
    with pytest.raises(ValueError, match="no images"):
        average_measures(lambda batch: {}, [])
