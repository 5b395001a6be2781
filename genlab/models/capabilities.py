"""Capabilities of models: protocols by which `genlab check` finds the checks that apply to a model of any class.

Two of them are for `genlab sample images=FOLDER`: :class:`VisualizesGiven` and :class:`RendersInputs`.

A model has a capability if it has all attributes and methods of the protocol. It need not derive from the protocol; if
it does, mypy checks the signatures. A likelihood, a bound on one and an importance-weighted bound are capabilities,
too: they are declared in :attr:`genlab.models.base.Model.measures`.

docs/checks.md lists the checks of each capability and shows a variational autoencoder.

Dimensions: B batch, N or n images (of filters: filters of a bank), C channels, H height, W width, Z latents of a group,
S symbols per site, h rows and w columns of sites, K values of a symbol, I inputs of a generator.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, Num
from torch import Generator, Tensor, nn
from torch.distributions import Distribution

from genlab.types import Batch


@dataclass(frozen=True, kw_only=True)
class Latent:
    """A group of latent variables in one evaluation: of a glimpse, or of a level of a hierarchy."""

    posterior: Distribution
    """q(z | x); for a later group, the distribution given the groups before it."""
    prior: Distribution
    """p(z), of any shape that broadcasts to that of the posterior."""
    value: Num[Tensor, "B *Z"]
    """The draw from the posterior, which is the input of the decoder."""


@runtime_checkable
class HasKL(Protocol):
    """A model with latent variables, an approximate posterior and a KL divergence from the prior."""

    kl_measure: ClassVar[str]
    """Key of ``evaluate`` with KL(q(z | x) || p(z)) of each image, summed over all latent variables, in nats."""

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        """See :meth:`genlab.models.base.Model.evaluate`."""

    def latents(self, batch: Batch) -> Sequence[Latent]:
        """Return all groups of latent variables of one evaluation.

        The draws are those of :meth:`evaluate`: from the same state of torch's default generator, both have the same.
        """


@runtime_checkable
class HasPosteriorLayers(HasKL, Protocol):
    """A model whose posterior equals the prior if the outputs of some layers are zero."""

    def posterior_layers(self) -> tuple[nn.Module, ...]:
        """Return the layers: for a prior N(0, 1), those of the mean and of log sigma."""


@runtime_checkable
class HasScores(Protocol):
    """A model with a discriminator or a critic, which has its own phase."""

    score_measure: ClassVar[str]
    """Key of ``evaluate`` with the score of each given image."""

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        """See :meth:`genlab.models.base.Model.evaluate`."""

    def score_layers(self) -> tuple[nn.Module, ...]:
        """Return the last layers of the discriminator; a constant added to their outputs is added to the score."""


@runtime_checkable
class IsCausal(Protocol):
    """A model that predicts the symbols of an image from those before them in raster order."""

    num_values: int
    """Values of a symbol, K."""

    def to_symbols(self, images: Float[Tensor, "B C H W"]) -> Int[Tensor, "B S h w"]:
        """Return the symbols of images in [0, 1]: their levels, if a symbol is a sub-pixel."""

    def to_images(self, symbols: Int[Tensor, "B S h w"]) -> Float[Tensor, "B C H W"]:
        """Return the images that :meth:`to_symbols` maps to these symbols."""

    def logits(self, symbols: Int[Tensor, "B S h w"], labels: Int[Tensor, " B"]) -> Float[Tensor, "B S K h w"]:
        """Return the unnormalised log-probabilities of each symbol given those before it."""


@runtime_checkable
class Decoder(Protocol):
    """Protocol of a network that takes the symbols one by one and caches its activations."""

    def begin_row(self, row: int) -> None:
        """Compute the part of a row that depends on the rows above only."""

    def advance(self, column: int, channel: int) -> None:
        """Compute the features of the next symbol from the symbols before it."""

    def logits(self, column: int, channel: int) -> Float[Tensor, "n K"]:
        """Return the unnormalised log-probabilities of the next symbol, fp32."""

    def write(self, column: int, channel: int, symbols: Int[Tensor, " n"]) -> None:
        """Store the drawn or given symbol."""


@runtime_checkable
class RepeatingDecoder(Decoder, Protocol):
    """A decoder whose rows can be recorded as CUDA graphs: their state is in tensors that each row overwrites."""

    @property
    def row_period(self) -> int:
        """The period of the rows: the operations of a row depend only on its number modulo this."""


@runtime_checkable
class InvertingDecoder(Decoder, Protocol):
    """A decoder that draws the next symbol without the probabilities of all its values."""

    def invert_cdf(self, column: int, channel: int, uniforms: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Return :func:`genlab.models.pixelcnn.sampler.invert_cdf` of the logits at temperature 1."""


@runtime_checkable
class SamplesIncrementally(IsCausal, Protocol):
    """A causal model with a sampler that computes the logits of one symbol after another."""

    num_classes: int
    """Number of classes that :meth:`sample` takes as labels; 0 without labels."""

    def decoder(self, labels: Int[Tensor, " N"], *, dtype: torch.dtype) -> Decoder:
        """Return a fresh decoder, whose logits equal those of :meth:`logits`."""

    def uniforms(self, num_samples: int, *, generator: Generator | None = None) -> Float[Tensor, "N S h w"]:
        """Return the random numbers of :meth:`sample`: a symbol is the inverse CDF of its uniform."""

    def sample(
        self, num_samples: int, *, labels: Int[Tensor, " N"] | None = None, generator: Generator | None = None
    ) -> Float[Tensor, "N C H W"]:
        """See :meth:`genlab.models.base.GenerativeModel.sample`."""


@runtime_checkable
class Completes(Protocol):
    """A model that completes images from their first rows."""

    num_classes: int
    """Number of classes that :meth:`sample` takes as labels; 0 without labels."""

    def complete(
        self,
        images: Float[Tensor, "N C H W"],
        given: int,
        *,
        labels: Int[Tensor, " N"] | None = None,
        generator: Generator | None = None,
    ) -> Float[Tensor, "N C H W"]:
        """Keep the given number of rows from the top and draw the rest; with 0 rows as :meth:`sample` does."""

    def sample(
        self, num_samples: int, *, labels: Int[Tensor, " N"] | None = None, generator: Generator | None = None
    ) -> Float[Tensor, "N C H W"]:
        """See :meth:`genlab.models.base.GenerativeModel.sample`."""


@runtime_checkable
class VisualizesGiven(Protocol):
    """A model with pictures of given images: reconstructions, completions."""

    def visualize_given(self, batch: Batch, *, generator: Generator | None = None) -> dict[str, Float[Tensor, "..."]]:
        """Return pictures of all images of the batch, as :meth:`genlab.models.base.Model.visualize` does.

        Labels may be UNLABELLED. Further keyword arguments are settings of `genlab sample`, such as ``label``.
        """


@runtime_checkable
class RendersInputs(Protocol):
    """A model that maps noise to images, so that the noise of a given image can be searched for."""

    num_noise: int
    """Z: inputs, the first ones, that the search changes; the others (a class, a code) stay as they were drawn."""

    def draw_inputs(
        self, num: int, *, labels: Int[Tensor, " N"] | None = None, generator: Generator | None = None
    ) -> Float[Tensor, "N I"]:
        """Return random inputs, for given classes if the model has classes."""

    def render(self, inputs: Float[Tensor, "N I"]) -> Float[Tensor, "N C H W"]:
        """Return the images in [0, 1] of inputs, differentiable by them."""

    def confine(self, noise: Float[Tensor, "N Z"]) -> Float[Tensor, "N Z"]:
        """Return the nearest noise in the region of the prior's draws."""


@runtime_checkable
class HasFilterBanks(Protocol):
    """A layer with Gaussian filters over the rows and columns of an image (arXiv:1502.04623, section 3.2)."""

    def filter_banks(self, parameters: Float[Tensor, "B 5"]) -> tuple[Float[Tensor, "B N H"], Float[Tensor, "B N W"]]:
        """Return F_y and F_x for windows (gx~, gy~, log sigma^2, log delta~, log gamma), eqs. 19 to 26."""
