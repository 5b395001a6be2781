"""Base class of autoregressive image models: p(x) = prod_i p(x_i | x_<i), in an order that the model defines.

Each factor is a categorical distribution over the values of one symbol: a sub-pixel for most models, a block of
pixels for :class:`genlab.models.pixelcnn.blocks.PixelCNNBlocks`. A model gives the logits of all symbols at once
for a known image (likelihood, training), and a faster sampler if it has a decoder that gives them one at a time
(:class:`genlab.models.capabilities.SamplesIncrementally`); both describe the same distribution.

Dimensions: B batch, n or N images, C channels, H height, W width, S symbols per site, h rows and w columns of sites,
r rows redrawn, K values of a symbol.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from genlab.graphs import CudaGraphs
from genlab.measures import Measure, bits_per_dim, negative_log_likelihood
from genlab.models.base import GenerativeModel, evaluation_mode, require_labels_of_samples, table_side
from genlab.models.capabilities import Completes, Decoder, IsCausal, SamplesIncrementally
from genlab.models.pixelcnn.given import given_mask, num_given_sites
from genlab.models.pixelcnn.parallel import SamplingMethod, solve_symbols
from genlab.models.pixelcnn.sampler import draw_symbols, images_that_fit, invert_cdf
from genlab.models.ranges import require_images
from genlab.numerics import float32_products
from genlab.parallel.collectives import share_rows
from genlab.types import UNLABELLED, Batch, ImageSpec, Loss, Phase

# More frames than this make a film longer to watch, not clearer.
MOST_FILM_FRAMES = 32
FILMED_IMAGES = 16
UNSEEN_GREY = 0.5


class AutoregressiveModel(GenerativeModel, IsCausal, Completes):
    """Base class with exact likelihood, sampling, completion and their pictures, from a network's logits.

    Args:
        spec: The images.
        num_symbols: Symbols per site, S; the channels, where a symbol is a sub-pixel.
        num_values: Values of a symbol, K.
        grid: Rows and columns of sites.
        class_conditional: True if the class is an input.

    Raises:
        ValueError: Class conditioning was asked for and the images have no labels.
    """

    selection_measure = "nll_nats"
    picture_groups = MappingProxyType({"completions": 4, "entropy": 2})
    measures: Mapping[str, Measure] = MappingProxyType(
        {"nll_nats": negative_log_likelihood("exact"), "bits_per_dim": bits_per_dim("exact")}
    )

    def __init__(
        self, *, spec: ImageSpec, num_symbols: int, num_values: int, grid: tuple[int, int], class_conditional: bool
    ) -> None:
        super().__init__()
        if class_conditional and spec.num_classes == 0:
            raise ValueError("model.class_conditional needs images with labels, and these have none: set it to false")
        self.spec = spec
        self.num_symbols = num_symbols
        self.num_values = num_values
        self.grid = grid
        self.num_classes = spec.num_classes if class_conditional else 0
        if class_conditional:
            nats, bits = negative_log_likelihood("exact", given_class=True), bits_per_dim("exact", given_class=True)
            self.measures = {"nll_nats": nats, "bits_per_dim": bits}

    # ---- to be defined by a model

    @abstractmethod
    def logits(self, symbols: Int[Tensor, "B S h w"], labels: Int[Tensor, " B"]) -> Float[Tensor, "B S K h w"]:
        """Return the unnormalised log-probabilities of every symbol given those before it, fp32."""

    def to_symbols(self, images: Float[Tensor, "B C H W"]) -> Int[Tensor, "B S h w"]:
        """Return the levels of images in [0, 1]; rounding, only here, undoes the division by num_levels - 1."""
        return images.mul(self.spec.num_levels - 1).round().long()

    def to_images(self, symbols: Int[Tensor, "B S h w"]) -> Float[Tensor, "B C H W"]:
        """Return the images that :meth:`to_symbols` maps to these symbols."""
        return symbols.to(self.dtype) / (self.spec.num_levels - 1)

    def nll(self, symbols: Int[Tensor, "B S h w"], labels: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Return the exact negative log-likelihood, nats per image, as a sum over all symbols."""
        # A row per symbol, as they lie in channels-last memory: over another dimension the softmax takes twice as long.
        rows = self.logits(symbols, labels).permute(0, 3, 4, 1, 2)  # (B, h, w, S, K)
        targets = symbols.movedim(1, -1)
        nats = F.cross_entropy(rows.flatten(0, 3), targets.flatten(), reduction="none")
        return nats.view(len(symbols), -1).sum(1)

    # ---- likelihood

    @property
    def num_dimensions(self) -> int:
        """The number of sub-pixels of an image."""
        return self.spec.channels * self.spec.height * self.spec.width

    def phases(self) -> tuple[Phase, ...]:
        return (Phase(name="model", modules=(self,), loss=self._loss),)

    def _loss(self, batch: Batch) -> Loss:
        value = self.nll(self.to_symbols(batch.images), batch.labels).mean()
        nats = value.detach()
        return Loss(value=value, metrics={"nll_nats": nats, "bits_per_dim": self._bits_per_dim(nats)})

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> dict[str, Float[Tensor, "B ..."]]:
        """Return exact nats per image and bits per sub-pixel, in evaluation mode (no dropout, no batch statistics).

        Raises:
            ValueError: The images are not of the model's size, a value is no level in [0, 1], or a label is no class.
        """
        require_images(batch.images, self.spec)
        if self.num_classes > 0 and not bool(((batch.labels >= UNLABELLED) & (batch.labels < self.num_classes)).all()):
            raise ValueError(f"labels must be between 0 and {self.num_classes - 1}, or {UNLABELLED} without a class")
        with evaluation_mode(self), float32_products():
            nats = self.nll(self.to_symbols(batch.images), batch.labels)
        return {"nll_nats": nats, "bits_per_dim": self._bits_per_dim(nats)}

    def _bits_per_dim(self, nats: Tensor) -> Tensor:
        return nats / (math.log(2) * self.num_dimensions)

    @torch.no_grad()
    def entropy_map(self, batch: Batch) -> Float[Tensor, "B S h w"]:
        """Return the entropy of the prediction of each symbol of given images, nats, between 0 and log K."""
        with evaluation_mode(self), float32_products():
            log_probabilities = self.logits(self.to_symbols(batch.images), batch.labels).log_softmax(2)
        return -(log_probabilities.exp() * log_probabilities).sum(2)

    # ---- sampling

    def sample(
        self,
        num_samples: int,
        *,
        labels: Int[Tensor, " N"] | None = None,
        generator: Generator | None = None,
        temperature: float = 1.0,
        method: SamplingMethod = "auto",
        progress: bool = False,
    ) -> Float[Tensor, "N C H W"]:
        """Draw images in [0, 1], exactly.

        Args:
            num_samples: Number of images.
            labels: Their classes; drawn uniformly where the model is class-conditional and none are given.
            generator: Source of the uniforms; torch's default CPU generator when None.
            temperature: Divides the logits; 1 is the model, below 1 is sharper and less varied.
            method: The sampler. The images of both are equal, but for uniforms within rounding of a boundary:
                ``incremental`` computes every activation once, by the model's decoder; ``parallel`` repeats full
                passes until no symbol changes (:mod:`genlab.models.pixelcnn.parallel`); ``auto`` is incremental
                where there is a decoder.
            progress: Show a bar with the time left.

        Raises:
            ValueError: Labels were given to a model without classes, or are out of range; temperature not positive;
                ``incremental`` for a model without a decoder.
        """
        chosen = self._choose_labels(num_samples, labels, generator)
        return self._draw(chosen, generator=generator, temperature=temperature, method=method, progress=progress)

    def complete(
        self,
        images: Float[Tensor, "N C H W"],
        given: Bool[Tensor, "H W"] | int,
        *,
        labels: Int[Tensor, " N"] | None = None,
        generator: Generator | None = None,
        temperature: float = 1.0,
        method: SamplingMethod = "auto",
        progress: bool = False,
    ) -> Float[Tensor, "N C H W"]:
        """Draw the hidden part of images given the rest, exactly.

        Args:
            images: In [0, 1]; hidden pixels are not looked at.
            given: Pixels to keep: the number of rows from the top, or a mask that is True on a prefix of the
                model's order (raster order over pixels, or over blocks).
            labels: Classes, where the model is class-conditional.
            generator: Source of the uniforms.
            temperature: Divides the logits.
            method: As for :meth:`sample`.
            progress: Show a bar with the time left.

        Raises:
            ValueError: The given pixels are no prefix of the order, so the conditional distribution is not
                available by sampling in that order; or an argument is refused as by :meth:`sample`.
        """
        num_sites = num_given_sites(given_mask(given, self.spec), self.grid)
        chosen = self._choose_labels(len(images), labels, generator)
        return self._draw(
            chosen,
            given=self.to_symbols(images),
            num_given_sites=num_sites,
            generator=generator,
            temperature=temperature,
            method=method,
            progress=progress,
        )

    def redraw(
        self,
        symbols: Int[Tensor, "B S h w"],
        labels: Int[Tensor, " B"],
        uniforms: Float[Tensor, "B S r w"],
        *,
        rows: slice,
        temperature: float,
    ) -> Int[Tensor, "B S r w"]:
        """Return symbols of some rows, each drawn given the symbols before it: a pass of the parallel sampler.

        Args:
            symbols: Whole images.
            labels: Their classes, or UNLABELLED.
            uniforms: Of the rows.
            rows: To be drawn.
            temperature: Divides the logits.
        """
        logits = self.logits(symbols, labels)[..., rows, :].movedim(2, -1)  # (B, S, r, w, K)
        return invert_cdf(logits.flatten(0, 3), uniforms.flatten(), temperature=temperature).view_as(uniforms)

    def _draw(
        self,
        labels: Tensor,
        *,
        given: Tensor | None = None,
        num_given_sites: int = 0,
        generator: Generator | None,
        temperature: float,
        method: SamplingMethod,
        progress: bool,
    ) -> Tensor:
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature must be positive and finite, got {temperature}")
        if method == "incremental" and not isinstance(self, SamplesIncrementally):
            raise ValueError(
                f"method must be auto or parallel for {type(self).__name__}, which has no decoder, got incremental"
            )
        uniforms = self.uniforms(len(labels), generator=generator)
        known = torch.zeros_like(uniforms, dtype=torch.long) if given is None else given
        options: dict[str, Any] = {"num_given_sites": num_given_sites, "progress": progress}

        def in_parallel(images: slice) -> Tensor:
            classes, thresholds = labels[images], uniforms[images]

            def redraw(symbols: Tensor, unsolved: Tensor, rows: slice) -> Tensor:
                own = thresholds[unsolved][:, :, rows]
                return self.redraw(symbols, classes[unsolved], own, rows=rows, temperature=temperature)

            return solve_symbols(redraw, known[images], **options).symbols

        with torch.no_grad(), evaluation_mode(self), float32_products():
            if method == "parallel" or not isinstance(self, SamplesIncrementally):
                symbols = share_rows(in_parallel, len(labels))
            else:
                device = labels.device
                dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else self.dtype
                make_decoder = partial(self.decoder, dtype=dtype)

                def incrementally(images: slice) -> Tensor:
                    parts = labels[images], uniforms[images], known[images]
                    return _draw_incrementally(make_decoder, *parts, temperature=temperature, **options)

                symbols = share_rows(incrementally, len(labels))
        return self.to_images(symbols)

    def uniforms(self, num_samples: int, *, generator: Generator | None = None) -> Float[Tensor, "n S h w"]:
        """Return the random numbers of n images: all the randomness of a sample, on the model's device."""
        # Drawn on the CPU, unless the generator is elsewhere, for equal images from a seed on every device.
        source = generator.device if generator is not None else torch.device("cpu")
        shape = (num_samples, self.num_symbols, *self.grid)
        return torch.rand(shape, generator=generator, device=source).to(self._device)

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device

    def _choose_labels(self, num_samples: int, labels: Tensor | None, generator: Generator | None) -> Tensor:
        require_labels_of_samples(labels, num_samples, self)
        if not self.num_classes:
            return torch.full((num_samples,), UNLABELLED, device=self._device)
        if labels is None:
            source = generator.device if generator is not None else torch.device("cpu")
            labels = torch.randint(self.num_classes, (num_samples,), generator=generator, device=source)
        return labels.to(self._device)

    # ---- pictures

    def visualize(
        self,
        batch: Batch | None,
        *,
        num_samples: int,
        generator: Generator | None = None,
        temperature: float = 1.0,
        method: SamplingMethod = "auto",
        label: int | None = None,
        given: Bool[Tensor, "H W"] | int | None = None,
        progress: bool = False,
    ) -> dict[str, Float[Tensor, "..."]]:
        """Return samples, a film of their generation, every class if there are classes, completions and entropies.

        Args:
            batch: Images for the pictures of :meth:`visualize_given`; None leaves these out.
            num_samples: At most this many images in each picture.
            generator: Source of the uniforms.
            temperature: Divides the logits.
            method: As for :meth:`sample`.
            label: The class of all samples and completions; None draws classes uniformly where the model is
                class-conditional, and completes each image as one of its own class.
            given: Pixels that a completion keeps, as for :meth:`complete`; None keeps half of the rows.
            progress: Show a bar with the time left.

        Raises:
            ValueError: A class was given to a model without classes, or an argument is out of its range.
        """
        draw: dict[str, Any] = {
            "generator": generator,
            "temperature": temperature,
            "method": method,
            "progress": progress,
        }
        labels = None if label is None else torch.full((num_samples,), label)
        samples = self.sample(num_samples, labels=labels, **draw)
        pictures = {"samples": samples, "film": self._film(samples[:FILMED_IMAGES])}
        if self.num_classes and label is None:
            side = table_side(self.num_classes, num_samples)
            labels = torch.arange(side).repeat_interleave(side)
            pictures["class_grid"] = self.sample(len(labels), labels=labels, **draw)
        if batch is not None:
            rows = slice(max(num_samples // 4, 1))
            shown = Batch(images=batch.images[rows], labels=batch.labels[rows])
            pictures |= self.visualize_given(shown, label=label, given=given, **draw)
        return pictures

    def visualize_given(
        self,
        batch: Batch,
        *,
        generator: Generator | None = None,
        temperature: float = 1.0,
        method: SamplingMethod = "auto",
        label: int | None = None,
        given: Bool[Tensor, "H W"] | int | None = None,
        progress: bool = False,
    ) -> dict[str, Float[Tensor, "..."]]:
        """Return completions and entropies of images.

        ``completions`` holds, for each image, what was given, two completions and the image; ``entropy`` pairs each
        image with its entropy map, white being log K nats; of a class-conditional model each image with a class.

        Args:
            batch: The images.
            generator: Source of the uniforms.
            temperature: Divides the logits.
            method: As for :meth:`sample`.
            label: The class of all images; None takes theirs. Completions of images without a label are of random
                classes.
            given: Pixels that a completion keeps, as for :meth:`complete`; None keeps half of the rows.
            progress: Show a bar with the time left.

        Raises:
            ValueError: As :meth:`complete`.
        """
        images, labels = batch.images, batch.labels if label is None else torch.full_like(batch.labels, label)
        if label is not None:
            require_labels_of_samples(labels, len(images), self)
        rows = self.grid[0] // 2 * (self.spec.height // self.grid[0])
        mask = given_mask(rows if given is None else given, self.spec).to(images.device)
        completions = self._completions(
            images, labels, mask, generator=generator, temperature=temperature, method=method, progress=progress
        )
        if self.num_classes:
            # Only unlabelled images train what the model knows of an image without a class: often there was none.
            images, labels = images[labels != UNLABELLED], labels[labels != UNLABELLED]
        if not len(images):
            return {"completions": completions}
        entropies = self.entropy_map(Batch(images=images, labels=labels)) / math.log(self.num_values)
        entropies = self._to_pixels(entropies).expand_as(images)
        return {"completions": completions, "entropy": torch.stack((images, entropies), 1).flatten(0, 1)}

    def _film(self, images: Tensor) -> Tensor:
        """Return the film of a sample: a drawn site never changes, so every frame is a part of the final image."""
        rows = self.grid[0]
        num_frames = min(rows, MOST_FILM_FRAMES) + 1
        seen = torch.linspace(0, rows, num_frames, device=images.device).round() * (self.spec.height // rows)
        visible = torch.arange(self.spec.height, device=images.device) < seen[:, None]  # (T, H)
        return torch.where(visible[:, None, None, :, None], images, UNSEEN_GREY)

    def _completions(
        self, images: Tensor, labels: Tensor, given: Tensor, *, generator: Generator | None, **draw: Any
    ) -> Tensor:
        repeated = images.repeat_interleave(2, 0)
        classes = labels.repeat_interleave(2, 0) if self.num_classes else None
        if classes is not None and bool((classes == UNLABELLED).any()):
            classes = classes.where(classes != UNLABELLED, self._choose_labels(len(classes), None, generator))
        completed = self.complete(repeated, given, labels=classes, generator=generator, **draw)
        hidden = torch.where(given, images, UNSEEN_GREY)
        return torch.stack((hidden, completed[::2], completed[1::2], images), 1).flatten(0, 1)

    def _to_pixels(self, sites: Tensor) -> Tensor:
        """Average over the symbols of a site, repeated over the site's pixels."""
        tall, wide = self.spec.height // self.grid[0], self.spec.width // self.grid[1]
        return sites.mean(1, keepdim=True).repeat_interleave(tall, 2).repeat_interleave(wide, 3)


def _draw_incrementally(
    make_decoder: Callable[[Tensor], Decoder], labels: Tensor, uniforms: Tensor, given: Tensor, **options: Any
) -> Int[Tensor, "n S h w"]:
    """Draw images with decoders, in parts if their activations do not fit on the device together."""
    device = labels.device
    with torch.autocast(device.type, enabled=False):
        size = images_that_fit(lambda num: make_decoder(labels[:num]), len(labels), device)
        drawn = []
        for part in zip(*(torch.split(x, size) for x in (labels, uniforms, given)), strict=True):
            classes, thresholds, known = part
            graphs = CudaGraphs(device) if device.type == "cuda" else None
            drawn.append(draw_symbols(make_decoder(classes), thresholds, given=known, graphs=graphs, **options))
        return torch.cat(drawn)
