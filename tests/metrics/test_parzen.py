import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import norm

from genlab.metrics import distances
from genlab.metrics.parzen import BANDWIDTHS, parzen_estimate, parzen_log_densities


@pytest.mark.parametrize("piece", [5, 2**22])
def test_against_the_mixture_by_scipy(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "_MAX_ENTRIES", piece)
    torch.manual_seed(0)
    samples, images = torch.rand(6, 1, 2, 2), torch.rand(4, 1, 2, 2)
    found = parzen_log_densities(samples, images, bandwidths=(0.2, 0.7))
    for row, bandwidth in zip(found, (0.2, 0.7), strict=True):
        for value, image in zip(row, images.double(), strict=True):
            logs = [norm(c.numpy(), bandwidth).logpdf(image.numpy()).sum() for c in samples.double()]
            assert value.item() == pytest.approx(logsumexp(logs) - math.log(6))


def test_the_density_integrates_to_one() -> None:
    grid = torch.linspace(-4, 5, 2001)
    densities = parzen_log_densities(torch.rand(5, 1), grid.unsqueeze(1), bandwidths=(0.3,)).exp()
    assert torch.trapezoid(densities, grid.double()).item() == pytest.approx(1, abs=1e-6)


def test_validation_chooses_the_bandwidth_and_test_is_scored_with_it() -> None:
    generator = torch.Generator().manual_seed(0)
    samples, validation, test = (torch.randn(n, 2, generator=generator) for n in (400, 100, 60))
    estimate = parzen_estimate(samples, validation=validation, test=test)
    scores = parzen_log_densities(samples, validation, bandwidths=BANDWIDTHS).mean(1)
    assert estimate.bandwidth == BANDWIDTHS[int(scores.argmax())]
    (densities,) = parzen_log_densities(samples, test, bandwidths=(estimate.bandwidth,))
    assert estimate.log_likelihood_nats == pytest.approx(densities.mean().item())
    assert estimate.standard_error == pytest.approx(np.std(densities.numpy(), ddof=1) / math.sqrt(60))
    # A standard normal in two dimensions has a log-density of -log(2 pi e) on average.
    assert estimate.log_likelihood_nats == pytest.approx(-math.log(2 * math.pi * math.e), abs=0.3)


def test_bandwidths_are_those_of_the_papers() -> None:
    np.testing.assert_allclose(BANDWIDTHS, np.logspace(-1, 0, 10))
