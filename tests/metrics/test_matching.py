from itertools import permutations

import pytest
import torch
from torch import nn

from genlab.data.dataset import Dataset
from genlab.data.store import Store
from genlab.metrics.matching import UNMATCHED, CodePredictor, code_averages, code_errors, match_codes


def test_one_to_one_against_all_permutations() -> None:
    codes, labels = torch.randint(0, 4, (60,)), torch.randint(0, 4, (60,))
    classes = match_codes(codes, labels, matching="one_to_one")
    best = min((torch.tensor(order)[codes] != labels).double().mean() for order in permutations(range(4)))
    assert code_errors(codes, labels, classes=classes).mean() == best
    assert sorted(classes.tolist()) == [0, 1, 2, 3]


def test_two_codes_for_one_class_are_allowed_only_many_to_one() -> None:
    codes = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])
    labels = torch.tensor([1, 1, 1, 1, 1, 0, 0, 1])
    many = match_codes(codes, labels, matching="many_to_one")
    assert many.tolist() == [1, 1, 0]
    assert code_errors(codes, labels, classes=many).sum() == 1
    one = match_codes(codes, labels, matching="one_to_one")
    assert one.tolist() == [1, UNMATCHED, 0]
    assert code_errors(codes, labels, classes=one).sum() == 3


def test_a_renamed_code_is_perfect_and_an_unseen_one_is_wrong() -> None:
    labels = torch.arange(10).repeat(3)
    codes = (labels * 3 + 1) % 10
    for matching in ("many_to_one", "one_to_one"):
        classes = match_codes(codes, labels, matching=matching)
        assert code_errors(codes, labels, classes=classes).sum() == 0
    assert code_errors(torch.tensor([10, 12]), torch.tensor([0, 1]), classes=classes).tolist() == [1, 1]
    for matching in ("many_to_one", "one_to_one"):  # code 1, between codes that were seen
        classes = match_codes(torch.tensor([0, 0, 2, 2]), torch.tensor([1, 1, 0, 2]), matching=matching)
        assert classes[1] == UNMATCHED
        assert code_errors(torch.tensor([1, 1]), torch.tensor([0, 1]), classes=classes).tolist() == [1, 1]


@pytest.mark.parametrize("has_method", [True, False])
def test_a_model_with_a_code_is_known_by_its_method(has_method: bool) -> None:
    class Predictor(nn.Module):
        def predict_code(self, images: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(images), dtype=torch.int64)

    assert isinstance(Predictor() if has_method else nn.Module(), CodePredictor) == has_method


class Fixed(nn.Module):
    """Reads the brightness of an image as its code; the fourth category never appears in training."""

    def __init__(self, *, has_code: bool) -> None:
        super().__init__()
        self.has_code = has_code

    def predict_code(self, images: torch.Tensor) -> torch.Tensor | None:
        return (images[:, 0, 0, 0] * 3).round().long() if self.has_code else None


def test_codes_are_matched_on_training_images_and_measured_on_the_split() -> None:
    def store(levels: list[int], labels: list[int]) -> Store:
        return Store(torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1), torch.tensor(labels))

    data = Dataset(
        name="tiny",
        stores={
            "train": store([0, 0, 0, 0, 1, 1, 2], [-1, 2, -1, 2, 0, 0, 1]),  # unlabelled images match nothing
            "validation": store([0], [0]),
            "test": store([0, 1, 2, 3, 3], [2, 0, 0, 1, -1]),  # the last one, without a class, is left out
        },
        num_levels=4,
        class_names=("a", "b", "c"),
        binarization="none",
        threshold=None,
        source="tiny",
    )
    settings = {"limit": None, "batch_size": 3, "seed": 0, "device": torch.device("cpu")}
    averages = code_averages(Fixed(has_code=True), data, "test", **settings)
    assert {name: average.mean for name, average in averages.items()} == {
        "code_error_many_to_one": 0.5,
        "code_error_one_to_one": 0.5,
    }
    assert averages["code_error_one_to_one"].num_examples == 4
    assert code_averages(Fixed(has_code=False), data, "test", **settings) == {}
