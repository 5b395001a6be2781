import math

import pytest
import torch
import torch.nn.functional as F

from genlab.metrics.inception_score import inception_style_score


def test_bounds_are_one_and_the_number_of_classes() -> None:
    certain = 1000 * torch.eye(10).repeat(3000, 1)
    assert inception_style_score(certain, num_parts=6) == pytest.approx((10.0, 0.0), abs=0.02)
    assert inception_style_score(torch.zeros(60, 10), num_parts=6) == pytest.approx((1.0, 0.0))
    collapsed = 1000 * torch.eye(10)[:1].repeat(60, 1)
    assert inception_style_score(collapsed, num_parts=6)[0] == pytest.approx(1.0)


def test_two_parts_by_hand() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [0.6, 0.4]])

    def score(*rows: int) -> float:
        part = probabilities[list(rows)]
        return math.exp((part * (part / part.mean(0)).log()).sum(1).mean())

    ways = [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2))]
    expected = [(score(*one), score(*other)) for one, other in ways]
    mean, error = inception_style_score(probabilities.log(), num_parts=2)
    assert any(
        mean == pytest.approx((one + other) / 2) and error == pytest.approx(abs(one - other) / 2)
        for one, other in expected
    )


def test_images_in_the_order_of_their_classes_score_as_shuffled_ones() -> None:
    logits = 1000 * torch.eye(10).repeat_interleave(100, 0)
    assert inception_style_score(logits)[0] == pytest.approx(10, abs=0.7)  # 1 where a part is one class


def test_against_torch_fidelity() -> None:
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = 3 * torch.randn(500, 12, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(500, generator=torch.Generator().manual_seed(0))
    theirs = isc_features_to_metric(logits[order].double(), splits=10, shuffle=False)
    mean, error = inception_style_score(logits, num_parts=10)
    assert mean == pytest.approx(theirs["inception_score_mean"], rel=1e-9)
    # Theirs is the population deviation over parts.
    assert error * math.sqrt(10) == pytest.approx(theirs["inception_score_std"] * math.sqrt(10 / 9), rel=1e-9)


def test_fewer_images_than_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="got 9 in 10"):
        inception_style_score(torch.zeros(9, 3))


def test_certain_classes_have_the_score_of_their_number() -> None:
    assert inception_style_score(torch.eye(5).repeat(20, 1).log(), num_parts=2)[0] == pytest.approx(5, abs=0.3)


@pytest.mark.parametrize(("num_classes", "expected", "tolerance"), [(10, 9.955, 0.03), (1000, 560.0, 20.0)])
def test_few_images_in_a_part_make_the_score_of_perfect_samples_low(
    num_classes: int, expected: float, tolerance: float
) -> None:
    """By a factor of about exp((1 - K) / (2 n)) for n images in a part, and by more where n is not above K."""
    logits = 1e4 * F.one_hot(torch.randint(num_classes, (10_000,)), num_classes).float()
    score, _ = inception_style_score(logits)
    assert abs(score - expected) < tolerance
