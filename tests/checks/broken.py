"""Models of the tree with one mistake each, of the kinds that training curves do not show."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genlab.models.capabilities import Decoder
from genlab.models.draw.attention import FilterGrid
from genlab.models.draw.draw import DRAW
from genlab.models.gan.gan import GAN
from genlab.models.gan.techniques.base import StepTensors
from genlab.models.gan.techniques.gradient_penalty import GradientPenalty
from genlab.models.pixelcnn.autoregressive import AutoregressiveModel
from genlab.models.pixelcnn.pixelcnn import PixelCNN
from genlab.types import Batch, Loss, Phase


def _grids_of(model: DRAW) -> list[FilterGrid]:
    return [module for module in model.modules() if isinstance(module, FilterGrid)]


class ShiftedFilters(DRAW):
    """Filters that stand half a stride beside the centre: i - N/2 for i - N/2 - 0.5 (eq. 19)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for grid in _grids_of(self):
            grid.offsets += 0.5


class OtherFilters(DRAW):
    """Filters of another class of grids."""

    grid: type[FilterGrid]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for grid in _grids_of(self):
            grid.__class__ = self.grid


class DividedGrid(FilterGrid):
    """The sum of the paper, which underflows to zero far outside of the image."""

    def forward(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        centers, (variance, stride, gamma) = self._decode(parameters)
        means_x, means_y = torch.addcmul(centers.t().unsqueeze(2), self.offsets, stride).unsqueeze(3).unbind(0)
        precision = (-0.5 / variance).unsqueeze(2)
        filters_x = torch.exp((self.columns - means_x).square() * precision)
        filters_y = torch.exp((self.rows - means_y).square() * precision)
        return filters_y / filters_y.sum(-1, keepdim=True), filters_x / filters_x.sum(-1, keepdim=True), gamma


class DividedFilters(OtherFilters):
    """Filters that are NaN far outside of the image."""

    grid = DividedGrid


class UnnormalizedGrid(FilterGrid):
    """Filters that sum to 1.01."""

    def forward(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        filters_y, filters_x, gamma = super().forward(parameters)
        return 1.01 * filters_y, filters_x, gamma


class UnnormalizedFilters(OtherFilters):
    """Filters that sum to 1.01."""

    grid = UnnormalizedGrid


class StretchedPenalty(GradientPenalty):
    """(|w| - 1)^2 with the mean instead of the sum over pixels in the norm."""

    def discriminator_term(self, tensors: StepTensors) -> Loss:
        loss = super().discriminator_term(tensors)
        return Loss(value=loss.value / tensors.real[0].numel(), metrics=loss.metrics)


class OtherSampler(PixelCNN):
    """A sampler that draws from logits a little warmer than those that are trained."""

    def decoder(self, labels: Tensor, *, dtype: torch.dtype) -> Decoder:
        decoder = super().decoder(labels, dtype=dtype)
        exact = decoder.logits
        decoder.logits = lambda column, channel: 0.9 * exact(column, channel)  # type: ignore[method-assign]
        return decoder


class ForgetfulCompletion(PixelCNN):
    """A completion that draws every pixel anew."""

    def complete(self, images: Tensor, given: Tensor | int, **kwargs: Any) -> Tensor:
        return AutoregressiveModel.sample(self, len(images), **kwargs)


class AttachedImages(GAN):
    """Images of the generator are scored with their graph, so that the discriminator's loss has a gradient in it."""

    def _discriminator_loss(self, batch: Batch) -> Loss:
        generated = self._generate_for(batch.labels)
        fake = self._scores(self.discriminator(generated.images, generated.conditions).outputs)
        real = self._scores(self.discriminator(2 * batch.images - 1, self._conditions(batch.labels)).outputs)
        value = self.objective.discriminator_loss(real, fake)
        return Loss(value=value, metrics={"adversarial_nats": value.detach()})


class AttachedByNaN(GAN):
    """The discriminator's loss depends on the generated images by a root at zero, whose gradient is no number."""

    def _discriminator_loss(self, batch: Batch) -> Loss:
        loss = super()._discriminator_loss(batch)
        return replace(loss, value=loss.value + (0 * self._generate_for(batch.labels).images).sum().sqrt())


class OneOptimizer(AttachedImages):
    """The discriminator's phase lists the generator, too."""

    def phases(self) -> tuple[Phase, ...]:
        _, generator = super().phases()
        both = (self.discriminator, self.generator)
        return (Phase(name="discriminator", modules=both, loss=self._discriminator_loss), generator)


class TrainsForeignNetwork(GAN):
    """A phase with a network that is no part of the model, and so of no checkpoint."""

    def phases(self) -> tuple[Phase, ...]:
        discriminator, generator = super().phases()
        return (replace(discriminator, modules=(self.discriminator, torch.nn.Linear(1, 1))), generator)


class BoundedScores(GAN):
    """A sigmoid before an objective that takes logits."""

    def _scores(self, output: Any) -> Tensor:
        return torch.sigmoid(super()._scores(output))


class IdleLayer(GAN):
    """A layer that no loss reaches."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.generator.idle = torch.nn.Linear(2, 2)


class ConstantTensor(GAN):
    """A weight that is no parameter of the model."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.generator.scale = torch.ones(1, requires_grad=True)


class ComparesSamples(GAN):
    """Generated images are normalised by the batch, in evaluation too, and only these: the given ones stay apart."""

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        measures = super().evaluate(batch)
        return measures | {"score_fake": measures["score_fake"] / measures["score_fake"].std()}


class AveragedMeasures(DRAW):
    """Measures already averaged over the batch: the last, smaller batch of a data set would weigh too much."""

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        return {name: value.mean() for name, value in super().evaluate(batch).items()}


class DeafSampler(DRAW):
    """Samples from torch's default generator, whatever generator is given."""

    def sample(self, num_samples: int, *, labels: Tensor | None = None, generator: Any = None) -> Tensor:
        return super().sample(num_samples, labels=labels)


class FixedNoise(DRAW):
    """Noise from a generator that is seeded for every batch: the same on all ranks, and at all steps."""

    def _noise(self, num_rows: int, generator: torch.Generator | None = None) -> Tensor:
        del generator
        shape = (self.num_glimpses, num_rows, self.latent_size)
        return torch.randn(shape, generator=torch.Generator().manual_seed(0))


class ReseededGenerator(FixedNoise):
    """The default generator, seeded for every batch."""

    def _noise(self, num_rows: int, generator: torch.Generator | None = None) -> Tensor:
        torch.manual_seed(0)
        return torch.randn(self.num_glimpses, num_rows, self.latent_size)


class NoiseOfNumPy(FixedNoise):
    """Noise that torch's generators know nothing of."""

    def _noise(self, num_rows: int, generator: torch.Generator | None = None) -> Tensor:
        shape = (self.num_glimpses, num_rows, self.latent_size)
        return torch.from_numpy(np.random.standard_normal(shape)).float()


class OwnStatistics(GAN):
    """A running mean of the images of this rank."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.register_buffer("mean_image", torch.zeros(()))

    def _discriminator_loss(self, batch: Batch) -> Loss:
        self.mean_image.lerp_(self._statistic(batch), 0.1)
        return super()._discriminator_loss(batch)

    def _statistic(self, batch: Batch) -> Tensor:
        return batch.images.mean()


class DrawnBuffer(OwnStatistics):
    """A buffer that is drawn anew at every step, as if all ranks drew the same numbers."""

    def _statistic(self, batch: Batch) -> Tensor:
        return torch.rand(())


class UnsavedPart(DRAW):
    """A random constant that the state does not hold."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("scale", torch.rand(()), persistent=False)

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        return {name: value * self.scale for name, value in super().evaluate(batch).items()}


class UnsavedStatistics(DRAW):
    """Running statistics in a buffer that no checkpoint holds: what was measured in memory is never measured again."""

    running_mean: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("running_mean", torch.zeros(()), persistent=False)

    def loss(self, batch: Batch) -> Loss:
        self.running_mean.lerp_(batch.images.mean(), 0.1)
        return super().loss(batch)

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        return {name: value + self.running_mean for name, value in super().evaluate(batch).items()}
