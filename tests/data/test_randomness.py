"""Noise by hashing: uniform, and the same as the hash written in Python's integers."""

import pytest
import torch
from scipy import stats

from genlab.data.randomness import _bits, _hash_words_in_place, binarized, permutation, uniform_noise
from genlab.randomness import derive_seed


def _hash(word: int) -> int:
    word ^= word >> 16
    word = word * 0x21F0AAAD % 2**32
    word ^= word >> 15
    word = word * 0x735A2D97 % 2**32
    return word ^ word >> 15


def _noise(position: int, pixel: int, seed: int) -> float:
    low, high = seed % 2**32, seed >> 32
    row = _hash(_hash(position % 2**32 ^ low) ^ _hash(position >> 32 ^ high))
    return (_hash(row ^ _hash(pixel ^ _hash(high))) >> 8) / 2**24


def test_noise_is_the_hash_of_seed_position_and_pixel():
    seed = derive_seed(7, "test")
    positions = torch.tensor([0, 1, 2**31, 2**40 + 3])
    noise = uniform_noise(positions, 5, seed=seed)
    expected = [[_noise(int(position), pixel, seed) for pixel in range(5)] for position in positions]
    assert noise.tolist() == expected


def _word(position: int, seed: int) -> int:
    mixed = (position * 0x9E3779B97F4A7C15 + seed) % 2**64
    return ((mixed ^ mixed >> 32) * 0xBF58476D1CE4E5B9 % 2**64 >> 32) | 1


def _noise_of_8_bits(position: int, pixel: int, seed: int) -> int:
    row = _word(position, seed)
    word = _hash(row * _word(pixel // 4, seed ^ 0x735A2D97) % 2**32)
    return word >> 8 * (pixel % 4) & 255 or max(row >> 8 & 255, 1)


def test_binarisation_is_the_hash_of_seed_position_and_pixel():
    seed = derive_seed(7, "test")
    positions = torch.tensor([0, 1, 2**31, 2**40 + 3])
    noise = torch.tensor([[_noise_of_8_bits(int(row), pixel, seed) for pixel in range(1023)] for row in positions])
    levels = torch.arange(4 * 1023).remainder(256).to(torch.uint8).view(4, 1, 33, 31)
    expected = noise <= levels.view(4, -1)
    drawn = binarized(levels, positions, max_level=255, seed=seed)
    assert torch.equal(drawn, expected.float().view(levels.shape))


@pytest.mark.parametrize("max_level", [1, 16, 127, 254, 255])
def test_a_device_draws_what_the_cpu_draws(max_level: int):
    levels = torch.randint(max_level + 1, (1000, 3, 5, 7), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    positions = torch.arange(1000) * 977
    on_cpu = binarized(levels, positions, max_level=max_level, seed=2**63 - 1)
    assert torch.equal(on_cpu, _bits(levels, positions, torch, max_level=max_level, seed=2**63 - 1))


@pytest.mark.parametrize("max_level", [1, 7, 16, 127, 255])
def test_each_level_is_drawn_with_its_probability(max_level: int):
    num_images = 100_000
    level = torch.arange(max_level + 1)
    levels = level.to(torch.uint8).view(1, 1, 1, -1).expand(num_images, -1, -1, -1)
    drawn = binarized(levels, torch.arange(num_images), max_level=max_level, seed=derive_seed(3, "test"))
    found, probability = drawn.view(num_images, -1).mean(0), level / max_level
    deviation = (probability * (1 - probability) / num_images).sqrt()
    assert ((found - probability).abs() <= 4.5 * deviation).all()  # without any at both ends


def test_draws_of_pairs_of_pixels_and_of_images_are_independent():
    levels = torch.full((4096, 1, 1, 32), 64, dtype=torch.uint8)  # 1 with probability 1/4
    for seed in map(derive_seed, range(3)):
        by_pixel = binarized(levels, torch.arange(4096), max_level=256, seed=seed).view(4096, 32)
        by_image = binarized(levels.view(32, 1, 64, 64), torch.arange(32), max_level=256, seed=seed).view(32, 4096).T
        for drawn in (by_pixel, by_image):
            ones = drawn.sum(1)
            assert abs(float(ones.var()) / (32 * 3 / 16) - 1) < 5 * (2 / 4096) ** 0.5
            correlations = torch.corrcoef(drawn.T) - torch.eye(32)
            assert correlations.abs().max() < 5.5 / 4096**0.5


def test_words_of_any_ratio_have_independent_bytes():
    """Two columns of sub-pixels have one ratio in all images; a hash of one multiplication kept 0.8 of some."""
    words = torch.randint(-(2**31), 2**31, (2**18,), dtype=torch.int32, generator=torch.Generator().manual_seed(0)) | 1
    powers = [2**bit for bit in range(1, 32)]
    ratios = [ratio for power in powers for ratio in (power + 1, power - 1, 1 - power) if ratio not in (1, -1)]
    ratios += [-1, 0x33000001, 0xF6990789]
    first = _centred_bytes(words)
    for ratio in ratios:
        other = _centred_bytes(words * ((ratio + 2**31) % 2**32 - 2**31))
        assert (first.T @ other).abs().max() < 0.03, hex(ratio)


def _centred_bytes(words: torch.Tensor) -> torch.Tensor:
    """The sums of squares of its columns are 1."""
    hashed = words.clone()
    _hash_words_in_place(hashed)
    levels = hashed.view(torch.uint8).view(-1, 4).double()
    levels -= levels.mean(0)
    return levels / levels.norm(dim=0)


def test_noise_is_uniform_along_images_and_along_pixels():
    for seed in range(3):
        assert stats.kstest(uniform_noise(torch.arange(2), 20_000, seed=seed)[1].numpy(), "uniform").pvalue > 1e-4
        assert stats.kstest(uniform_noise(torch.arange(20_000), 2, seed=seed)[:, 1].numpy(), "uniform").pvalue > 1e-4


def test_streams_of_neighbouring_seeds_are_unrelated():
    first = uniform_noise(torch.arange(200), 100, seed=derive_seed(0, "a"))
    for seed in (derive_seed(1, "a"), derive_seed(0, "b"), derive_seed(0, "a") + 1):
        other = uniform_noise(torch.arange(200), 100, seed=seed)
        assert abs(torch.corrcoef(torch.stack([first.flatten(), other.flatten()]))[0, 1]) < 5 / 20_000**0.5


def test_names_of_seeds_do_not_run_together():
    seeds = {derive_seed(0), derive_seed(0, "a", 1), derive_seed(0, "a1"), derive_seed(0, "a", "b"), derive_seed(1)}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_permutation_is_one():
    assert permutation(100, seed=3).sort().values.tolist() == list(range(100))
    assert permutation(100, seed=3).tolist() == permutation(100, seed=3).tolist()
