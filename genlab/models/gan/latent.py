"""Latent distributions: the noise that a generator maps to images, and paths between two draws.

Dimensions: N images, Z size of the noise.
"""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from genlab.functional import spherical_interpolation
from genlab.models.ranges import require_count
from genlab.parallel.collectives import draw_rows


class Latent(ABC):
    """Independent noise of a fixed size.

    Args:
        size: Z, at least 1.

    Raises:
        ValueError: The size is out of range.
    """

    def __init__(self, *, size: int) -> None:
        require_count("model.latent.size", size)
        self.size = size

    @abstractmethod
    def draw(self, num: int, *, generator: Generator | None, device: torch.device) -> Float[Tensor, "N Z"]:
        """Return independent draws, made on the generator's device if one is given."""

    @abstractmethod
    def confine(self, noise: Float[Tensor, "*shape Z"]) -> Float[Tensor, "*shape Z"]:
        """Return the nearest noise in the region of the prior's draws."""

    @abstractmethod
    def between(
        self, start: Float[Tensor, "*shape"], end: Float[Tensor, "*shape"], fraction: float
    ) -> Float[Tensor, "*shape"]:
        """Return a point on the path from one draw to another; the path stays in a region of high probability."""


class UniformNoise(Latent):
    """Uniform on (-1, 1) in every dimension; paths are straight, which a convex support allows."""

    def draw(self, num: int, *, generator: Generator | None, device: torch.device) -> Float[Tensor, "N Z"]:
        place = device if generator is None else generator.device
        return draw_rows(
            lambda rows: torch.empty(rows, self.size, device=place).uniform_(-1, 1, generator=generator), num
        ).to(device)

    def confine(self, noise: Float[Tensor, "*shape Z"]) -> Float[Tensor, "*shape Z"]:
        return noise.clamp(-1, 1)

    def between(
        self, start: Float[Tensor, "*shape"], end: Float[Tensor, "*shape"], fraction: float
    ) -> Float[Tensor, "*shape"]:
        return torch.lerp(start, end, fraction)


class GaussianNoise(Latent):
    """Standard normal; paths are great arcs, because a straight line passes through a middle that draws never reach."""

    def draw(self, num: int, *, generator: Generator | None, device: torch.device) -> Float[Tensor, "N Z"]:
        place = device if generator is None else generator.device
        return draw_rows(lambda rows: torch.randn(rows, self.size, generator=generator, device=place), num).to(device)

    def confine(self, noise: Float[Tensor, "*shape Z"]) -> Float[Tensor, "*shape Z"]:
        # The length of a draw is within sqrt(Z) + 3, four deviations, with a probability above 0.9999.
        length: Tensor = torch.linalg.vector_norm(noise, dim=-1, keepdim=True)
        return noise * (math.sqrt(self.size) + 3) / length.clamp(min=math.sqrt(self.size) + 3)

    def between(
        self, start: Float[Tensor, "*shape"], end: Float[Tensor, "*shape"], fraction: float
    ) -> Float[Tensor, "*shape"]:
        return spherical_interpolation(start, end, fraction)
