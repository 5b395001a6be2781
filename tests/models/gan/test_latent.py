"""Noise against its distribution, paths against geometry."""

import pytest
import torch
from scipy import stats
from torch import Generator

from genlab.models.gan.latent import GaussianNoise, Latent, UniformNoise

CPU = torch.device("cpu")


def draws(latent: Latent, num: int = 4000) -> torch.Tensor:
    return latent.draw(num, generator=Generator().manual_seed(0), device=CPU)


def test_uniform_noise_is_uniform_and_not_triangular() -> None:
    noise = draws(UniformNoise(size=5))
    assert noise.shape == (4000, 5)
    values = noise.flatten().numpy()
    assert stats.kstest(values, stats.uniform(-1, 2).cdf).pvalue > 0.01
    assert stats.kstest(values, stats.triang(0.5, -1, 2).cdf).pvalue < 1e-30
    triangular = torch.rand(20000, generator=Generator().manual_seed(1))
    triangular -= torch.rand(20000, generator=Generator().manual_seed(2))
    assert stats.kstest(triangular.numpy(), stats.uniform(-1, 2).cdf).pvalue < 1e-30, "the test sees the mistake"


def test_gaussian_noise_is_standard_normal() -> None:
    assert stats.kstest(draws(GaussianNoise(size=5)).flatten().numpy(), stats.norm().cdf).pvalue > 0.01


@pytest.mark.parametrize("latent", [UniformNoise(size=3), GaussianNoise(size=3)])
def test_dimensions_and_draws_are_independent(latent: Latent) -> None:
    noise = draws(latent)
    correlation = torch.corrcoef(torch.cat((noise[:2000], noise[2000:]), 1).T)
    torch.testing.assert_close(correlation, torch.eye(6), atol=5 / 2000**0.5, rtol=0)


@pytest.mark.parametrize("latent", [UniformNoise(size=3), GaussianNoise(size=3)])
def test_a_generator_alone_decides_where_one_is_given(latent: Latent) -> None:
    first = draws(latent, 4)
    torch.manual_seed(1)
    assert torch.equal(first, draws(latent, 4))
    torch.manual_seed(0)
    default = latent.draw(4, generator=None, device=CPU)
    assert not torch.equal(default, latent.draw(4, generator=None, device=CPU))


@pytest.mark.parametrize("latent", [UniformNoise(size=50), GaussianNoise(size=50)])
def test_paths_meet_their_ends(latent: Latent) -> None:
    start, end = draws(latent, 2)
    torch.testing.assert_close(latent.between(start, end, 0.0), start)
    torch.testing.assert_close(latent.between(start, end, 1.0), end)


def test_a_uniform_path_is_straight_and_a_gaussian_one_keeps_the_norm() -> None:
    start, end = draws(UniformNoise(size=50), 2)
    torch.testing.assert_close(UniformNoise(size=50).between(start, end, 0.25), 0.75 * start + 0.25 * end)
    latent = GaussianNoise(size=50)
    start, end = draws(latent, 2)
    end = end / end.norm() * start.norm()
    middle = latent.between(start, end, 0.5)
    torch.testing.assert_close(middle.norm(), start.norm())
    torch.testing.assert_close(torch.dot(middle, start), torch.dot(middle, end))
    for fraction in (0.1, 0.3, 0.8):
        torch.testing.assert_close(latent.between(start, end, fraction).norm(), start.norm())


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=r"model\.latent\.size"):
        UniformNoise(size=size)


def test_noise_is_confined_to_where_draws_lie() -> None:
    """A length of normal noise is within sqrt(Z) + 3; beyond it the direction stays."""
    noise = torch.tensor([[3.0, 4.0, 0.0, 0.0], [6.0, 8.0, 0.0, 0.0]])
    torch.testing.assert_close(GaussianNoise(size=4).confine(noise), noise * torch.tensor([[1.0], [0.5]]))
    assert UniformNoise(size=2).confine(torch.tensor([-0.5, 1.5])).tolist() == [-0.5, 1.0]
