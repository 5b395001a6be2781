import math

import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric

from genlab.metrics.inception_score import inception_style_score


def test_bounds_are_one_and_the_number_of_classes() -> None:
    certain = 1000 * torch.eye(10).repeat(6, 1)
    assert inception_style_score(certain, num_parts=6) == pytest.approx((10.0, 0.0))
    assert inception_style_score(torch.zeros(60, 10), num_parts=6) == pytest.approx((1.0, 0.0))
    collapsed = 1000 * torch.eye(10)[:1].repeat(60, 1)
    assert inception_style_score(collapsed, num_parts=6)[0] == pytest.approx(1.0)


def test_two_parts_by_hand() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [0.6, 0.4]])
    scores = []
    for part in (probabilities[:2], probabilities[2:]):
        marginal = part.mean(0)
        scores.append(math.exp((part * (part / marginal).log()).sum(1).mean()))
    mean, error = inception_style_score(probabilities.log(), num_parts=2)
    assert mean == pytest.approx(sum(scores) / 2)
    assert error == pytest.approx(abs(scores[0] - scores[1]) / 2)


def test_against_torch_fidelity() -> None:
    logits = 3 * torch.randn(500, 12, generator=torch.Generator().manual_seed(0))
    theirs = isc_features_to_metric(logits.double(), splits=10, shuffle=False)
    mean, error = inception_style_score(logits, num_parts=10)
    assert mean == pytest.approx(theirs["inception_score_mean"], rel=1e-9)
    # Theirs is the population deviation over parts.
    assert error * math.sqrt(10) == pytest.approx(theirs["inception_score_std"] * math.sqrt(10 / 9), rel=1e-9)


def test_fewer_images_than_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="got 9 in 10"):
        inception_style_score(torch.zeros(9, 3))
