"""Generative adversarial networks (Goodfellow et al. 2014, arXiv:1406.2661): two networks and an objective.

A GAN is its parts: noise, a generator, a discriminator, an objective, conditioning, and techniques by name. Every
preset of the literature is a choice of these in YAML. Inside, images are in the range of the output function.

Dimensions: B batch, R real images of the game, N images, C channels, H height, W width, Z noise, E extra inputs of the
generator, I = Z + E, K conditions, O outputs of the discriminator.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from genlab.functional import at_least_float32
from genlab.models.base import GenerativeModel, evaluation_mode, require_labels_of_samples
from genlab.models.capabilities import HasScores
from genlab.models.gan.conditioning import Conditioning
from genlab.models.gan.discriminator import Discriminator, DiscriminatorOutput
from genlab.models.gan.infogan import HiddenCodes
from genlab.models.gan.latent import Latent
from genlab.models.gan.networks import DiscriminatorNetwork, GaussianNoiseLayer, GeneratorNetwork
from genlab.models.gan.objectives import GAME_MEASURES, Objective, pair_differences
from genlab.models.gan.output import ImageOutput
from genlab.models.gan.packs import of_single_images, packed, rows_of_whole_packs
from genlab.models.gan.pictures import class_grid, interpolation, traversals
from genlab.models.gan.techniques.base import Parts, StepTensors, Technique
from genlab.models.gan.techniques.collection import Techniques
from genlab.models.gan.techniques.compatibility import Combination, remarks
from genlab.models.ranges import require_count
from genlab.nn.convolution.layers import ConvolutionLayers
from genlab.parallel.collectives import share_rows
from genlab.types import Batch, ImageSpec, Loss, Phase


@dataclass(frozen=True, kw_only=True)
class Generated:
    """Images of the generator and their inputs."""

    images: Float[Tensor, "B C H W"]
    extra_inputs: Float[Tensor, "B E"]
    conditions: Float[Tensor, "B K"]
    """Extra inputs of the discriminator for these images."""


class RealBatch(NamedTuple):
    """Training images in the form of the discriminator's inputs."""

    images: Float[Tensor, "packs joint H W"]
    conditions: Float[Tensor, "packs joint_K"]
    labels: Int[Tensor, " R"]


class GAN(GenerativeModel, HasScores):
    """A generator and a discriminator trained in turn.

    Args:
        spec: The images.
        latent: The noise.
        generator: Called with ``spec``, which has classes if it is conditioned on them, and ``num_inputs``.
        output: The function behind the generator's last layer.
        discriminator: Called with ``spec`` and ``num_conditions``.
        layers: Convolutions and poolings that take the place of PyTorch's in both networks.
        objective: The two losses.
        conditioning: Extra inputs and outputs of the networks.
        techniques: By name; None leaves one out.
        n_critic: Updates of the discriminator in a training step.
        generator_repeats: Updates of the generator in a training step.
        pack: Images that the discriminator scores together, joined along the channels (arXiv:1712.04086).
        reuses_generated: True if the generator's update scores the images of the discriminator's last update again
            instead of drawing new ones: cheaper, and a little different from the papers.

    Raises:
        ValueError: An argument is out of range, or a part does not fit the data or another part.
    """

    training_counts = ("techniques.",)

    score_measure = "score_real"

    def __init__(
        self,
        *,
        spec: ImageSpec,
        latent: Latent,
        generator: Callable[..., GeneratorNetwork],
        output: ImageOutput,
        discriminator: Callable[..., DiscriminatorNetwork],
        layers: ConvolutionLayers,
        objective: Objective,
        conditioning: Conditioning,
        techniques: Mapping[str, Technique | None],
        n_critic: int,
        generator_repeats: int,
        pack: int,
        reuses_generated: bool,
    ) -> None:
        super().__init__()
        require_count("model.n_critic", n_critic)
        require_count("model.generator_repeats", generator_repeats)
        require_count("model.pack", pack)
        if pack > 1 and conditioning.reads_single_images:
            raise ValueError(
                f"model.pack must be 1 with {type(conditioning).__name__}, which reads something in each single image, "
                f"got {pack}: set model/conditioning to none, class_labels or class_projection"
            )
        if generator_repeats > 1 and reuses_generated:
            raise ValueError(
                f"model.generator_repeats must be 1 with model.reuses_generated=true, got {generator_repeats}: the "
                "discriminator's images are good for one update"
            )
        self.spec = spec
        self.latent = latent
        self.output = output
        self.n_critic = n_critic
        self.generator_repeats = generator_repeats
        self.pack = pack
        self.reuses_generated = reuses_generated
        self.conditioning = conditioning
        sizes = conditioning.sizes(spec)
        self.num_classes = conditioning.num_classes
        self.measures = {**GAME_MEASURES, **conditioning.declarations}
        self.selection_measure = conditioning.selection_measure
        self.followed = conditioning.followed
        used = {name: technique for name, technique in techniques.items() if technique is not None}
        self.techniques = Techniques(used)

        num_conditions = pack * sizes.num_conditions
        num_projected = num_conditions if sizes.projects_conditions else 0
        network = discriminator(
            spec=replace(spec, channels=pack * spec.channels), num_conditions=num_conditions - num_projected
        )
        generator_network = generator(
            spec=replace(spec, num_classes=self.num_classes), num_inputs=latent.size + sizes.num_inputs
        )
        for part in (network, generator_network):
            layers.exchange_in(part)
        device = torch.get_default_device()
        parts = Parts(
            generator=generator_network,
            network=network,
            feature_layer=GaussianNoiseLayer(network.output_noise) if network.output_noise else nn.Identity(),
            num_features=network.num_features,
            draw_inputs=lambda num: self._inputs(num, labels=None, generator=None, device=device)[0],
        )
        conditioning.build_head(network.num_features)
        self.techniques.rebuild(parts)
        combination = Combination(
            objective=objective,
            techniques=used,
            network=parts.network,
            num_levels=spec.num_levels,
            projects_conditions=sizes.projects_conditions,
        )
        self.objective = combination.game
        if reuses_generated and n_critic > 1 and self.num_classes and self.objective.compares_pairs:
            raise ValueError(
                f"model.n_critic must be 1 with model.reuses_generated=true, classes and {type(objective).__name__}, "
                f"got {n_critic}: the images of the last update would be paired with real ones of other classes"
            )
        found = remarks(combination)
        if found and found[0].is_refusal:
            raise ValueError(found[0].message)
        self._warnings = tuple(remark.message for remark in found)
        self.generator = parts.generator
        self.discriminator = Discriminator(
            parts.network,
            feature_layer=parts.feature_layer,
            num_joint_features=parts.num_features,
            num_outputs=sizes.num_outputs,
            num_projected=num_projected,
        )
        self.techniques.prepare(self.generator, self.discriminator)

    def warnings(self) -> tuple[str, ...]:
        return self._warnings

    @property
    def needs_whole_batch(self) -> str | None:
        if self.conditioning.needs_whole_batch:
            return f"model.conditioning {type(self.conditioning).__name__}"
        return next(
            (f"model.techniques.{name}" for name, part in self.techniques.items() if part.needs_whole_batch), None
        )

    def warning_in_training(self, course: Sequence[Mapping[str, float]]) -> str | None:
        return self.conditioning.warning_in_training(course)

    @property
    def group_size(self) -> int:
        return self.pack

    @property
    def couples_images(self) -> bool:
        return self.pack > 1 or super().couples_images

    # ---- training

    def initialize(self, batch: Batch) -> None:
        """Set the values of the discriminator that a technique takes from the data."""
        rows = rows_of_whole_packs(len(batch.images), self.pack, device=batch.labels.device)
        images, conditions = self._to_network(batch.images[rows]), self._conditions(batch.labels[rows])
        self.techniques.initialize(self.discriminator, packed(images, self.pack), packed(conditions, self.pack))

    def phases(self) -> tuple[Phase, ...]:
        """Return the discriminator with the head that reads codes, ``n_critic`` times, then the generator."""
        discriminator = Phase(
            name="discriminator",
            modules=(self.discriminator, self.conditioning),
            loss=self._discriminator_loss,
            repeats=self.n_critic,
            project=partial(self.techniques.project, self.discriminator),
            records=(self.generator,) if self.reuses_generated else (),
        )
        generator = Phase(
            name="generator",
            modules=(self.generator,),
            loss=self._generator_loss,
            repeats=self.generator_repeats,
            receives=self.reuses_generated,
        )
        return (discriminator, generator)

    def score_layers(self) -> tuple[nn.Module, ...]:
        return (self.discriminator.output,)

    def compilable(self) -> tuple[nn.Module, ...]:
        return (self.generator, self.discriminator)

    def shardable(self) -> tuple[nn.Module, ...]:
        if self.reuses_generated or any(part.uses_bare_weights for part in self.techniques.values()):
            return ()
        return (self.generator, self.discriminator.network, self.discriminator, *self.conditioning.children())

    def _discriminator_loss(self, batch: Batch) -> Loss:
        real, left_out = self._split(batch)
        generated = self._generate_for(real.labels)
        fake, fake_conditions = self._seen(generated.images.detach()), packed(generated.conditions, self.pack)
        real_output, fake_output = self.discriminator.forward_both(real.images, fake, real.conditions, fake_conditions)
        real_scores, fake_scores = self._scores(real_output.outputs), self._scores(fake_output.outputs)
        adversarial = self.objective.discriminator_loss(real_scores, fake_scores)

        supervised: DiscriminatorOutput | None = real_output
        labels = batch.labels
        if left_out is not None:
            labels = left_out.labels
            supervised = self.discriminator(left_out.images, left_out.conditions) if len(labels) else None
        extra = [self.conditioning.discriminator_term(supervised, labels, fake_output, generated.extra_inputs)]
        extra += self.techniques.discriminator_terms(self._step_tensors(real, fake, fake_conditions, fake_output))
        loss = self.objective.with_terms(adversarial, extra, weight=self.conditioning.game_weight)
        real_scores, fake_scores = real_scores.detach(), fake_scores.detach()
        per_image = self.objective.game_metrics(real_scores, fake_scores)
        metrics = {**loss.metrics, **{name: values.mean() for name, values in per_image.items()}}
        metrics |= self.techniques.observe(self.objective.margins(real_scores, fake_scores))
        return Loss(value=loss.value, metrics=metrics, handed_on=generated if self.reuses_generated else None)

    def _generator_loss(self, batch: Batch, received: Generated | None = None) -> Loss:
        real, _ = self._split(batch)
        generated = self._generate_for(real.labels) if received is None else received
        fake, fake_conditions = self._seen(generated.images), packed(generated.conditions, self.pack)
        with self.discriminator.on_generated():
            output = self.discriminator(fake, fake_conditions)
        extra = [self.conditioning.generator_term(output, generated.extra_inputs)]
        extra += self.techniques.generator_terms(self._step_tensors(real, fake, fake_conditions, output))
        scores = self._scores(output.outputs)
        if self.objective.compares_pairs:
            with torch.no_grad():  # the generator has no part in it
                real_scores = self._scores(self.discriminator(real.images, real.conditions).outputs)
            scores = pair_differences(scores, real_scores)
        adversarial = self.objective.generator_loss(scores)
        weight = 0.0 if any(technique.replaces_objective for technique in self.techniques.values()) else 1.0
        return self.objective.with_terms(adversarial, extra, weight=weight)

    def _split(self, batch: Batch) -> tuple[RealBatch, RealBatch | None]:
        """Return the real images of the adversarial loss, and the other ones; None if it uses all of them."""
        images = self._seen(self._to_network(batch.images))
        every = RealBatch(images, packed(self._conditions(batch.labels), self.pack), batch.labels)
        divided = self.conditioning.divided(batch)
        if divided is None:
            return every, None
        real, left_out = (RealBatch(*(part[rows] for part in every)) for rows in divided)
        return real, left_out

    def _seen(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "packs joint H W"]:
        """Return the discriminator's inputs in training: images changed by techniques with fresh draws, and packed."""
        return packed(self.techniques.transform(images, black=self.output.black), self.pack)

    def _step_tensors(
        self, real: RealBatch, fake: Tensor, fake_conditions: Tensor, output: DiscriminatorOutput
    ) -> StepTensors:
        return StepTensors(
            generator=self.generator,
            discriminator=self.discriminator,
            real=real.images,
            fake=fake,
            real_conditions=real.conditions,
            fake_conditions=fake_conditions,
            fake_output=output,
            score=self.conditioning.scores,
        )

    def _scores(self, outputs: Float[Tensor, "B O"]) -> Float[Tensor, " B"]:
        # In fp32 under autocast, too: losses are sums of small differences.
        return self.conditioning.scores(at_least_float32(outputs))

    # ---- drawing

    @property
    def _device(self) -> torch.device:
        return self.discriminator.output.bias.device

    def _inputs(
        self, num: int, *, labels: Int[Tensor, " N"] | None, generator: Generator | None, device: torch.device
    ) -> tuple[Float[Tensor, "N I"], Float[Tensor, "N E"]]:
        """Return the generator's inputs, and the part of them that conditioning adds to the noise."""
        noise = self.latent.draw(num, generator=generator, device=device)
        extra = self.conditioning.draw(num, labels=labels, generator=generator, device=device)
        return torch.cat((noise, extra), 1), extra

    def _generate_for(self, labels: Int[Tensor, " B"]) -> Generated:
        """Draw one image for each real one, of the same class, so that a pair has one class."""
        num = len(labels)
        # In training batch normalisation of vectors refuses a single one.
        rows = labels.repeat(2) if num == 1 and self.training else labels
        given = rows if self.num_classes else None
        inputs, extra = self._inputs(len(rows), labels=given, generator=None, device=self._device)
        images = self._draw(inputs)[:num]
        return Generated(images=images, extra_inputs=extra[:num], conditions=self._conditions(labels))

    def _draw(self, inputs: Float[Tensor, "B I"]) -> Float[Tensor, "B C H W"]:
        return self.output(self.generator(inputs.to(self.dtype)))

    def _conditions(self, labels: Int[Tensor, " B"]) -> Float[Tensor, "B K"]:
        return self.conditioning.conditions(labels).to(self.dtype)

    def _to_network(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return self.output.from_unit(images.to(self.dtype))

    @property
    def num_noise(self) -> int:
        """Z, the number of noise inputs of the generator, which precede those of the conditioning."""
        return self.latent.size

    def draw_inputs(
        self, num: int, *, labels: Int[Tensor, " N"] | None = None, generator: Generator | None = None
    ) -> Float[Tensor, "N I"]:
        """Return random inputs of the generator; arguments and errors are those of :meth:`sample`."""
        require_labels_of_samples(labels, num, self)
        return self._inputs(num, labels=labels, generator=generator, device=self._device)[0]

    def render(self, inputs: Float[Tensor, "N I"]) -> Float[Tensor, "N C H W"]:
        """Return the images in [0, 1] of inputs of the generator, differentiable by them."""
        return self.output.to_unit(at_least_float32(self._draw(inputs)))

    def confine(self, noise: Float[Tensor, "N Z"]) -> Float[Tensor, "N Z"]:
        """Return the nearest noise in the region of the prior's draws."""
        return self.latent.confine(noise)

    @torch.no_grad()
    def sample(
        self, num_samples: int, *, labels: Int[Tensor, " N"] | None = None, generator: Generator | None = None
    ) -> Float[Tensor, "N C H W"]:
        """Draw images in [0, 1], in evaluation mode.

        Args:
            num_samples: Number of images.
            labels: Their classes; drawn uniformly where the model is class-conditional and none are given.
            generator: Source of the noise; torch's default generator when None.

        Raises:
            ValueError: Labels were given to a model without class conditioning, or are no classes of it.
        """
        require_count("num_samples", num_samples)
        inputs = self.draw_inputs(num_samples, labels=labels, generator=generator)
        with evaluation_mode(self):
            return share_rows(lambda rows: self.render(inputs[rows]), num_samples)

    # ---- measures

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the scores of the given images and of as many generated ones, in evaluation mode.

        If the objective has a threshold between real and fake, also return the accuracy (1 or 0 per image), and the
        measures of the conditioning, if it has any. On held-out images scores and accuracies show a discriminator that
        has memorised its training images. The score of a pack is the
        score of each of its images; the first images fill the last pack up.
        """
        with evaluation_mode(self):
            generated = self._generate_for(batch.labels)
            num, size = len(batch.images), self.pack
            rows = rows_of_whole_packs(num, size, device=self._device)
            conditions = packed(generated.conditions[rows], size)

            def outputs(images: Tensor) -> Tensor:
                return of_single_images(self.discriminator(packed(images[rows], size), conditions).outputs, size, num)

            real = outputs(self._to_network(batch.images))
            with self.discriminator.on_generated():
                fake = outputs(generated.images)
            return self.objective.game_metrics(self._scores(real), self._scores(fake)) | self.conditioning.measures(
                real, batch.labels
            )

    @torch.no_grad()
    def predict_code(self, images: Float[Tensor, "B C H W"]) -> Int[Tensor, " B"] | None:
        """Return the category that the code head predicts for each image; None without a categorical code."""
        if not isinstance(self.conditioning, HiddenCodes):
            return None
        with evaluation_mode(self):
            empty = torch.empty(len(images), 0, dtype=self.dtype, device=images.device)
            return self.conditioning.read_category(self.discriminator.network(self._to_network(images), empty))

    # ---- pictures

    @torch.no_grad()
    def visualize(
        self,
        batch: Batch | None,
        *,
        num_samples: int,
        generator: Generator | None = None,
        label: int | None = None,
    ) -> dict[str, Float[Tensor, "..."]]:
        """Return samples, paths between two draws, every class if there are classes, and traversals of hidden codes.

        ``interpolation``: each row goes from one draw to another. ``class_grid``: one class per row, the noise of a
        column is the same in all rows. ``traversal_k``: one category per row, the k-th continuous code grows from -2 to
        2 along it.

        Args:
            batch: Not looked at.
            num_samples: At most this many images in each picture, but for square tables of up to ten kinds.
            generator: Source of the noise.
            label: The class of all images.

        Raises:
            ValueError: A class was given to a model without classes.
        """
        del batch
        labels = None if label is None else torch.full((num_samples,), label, device=self._device)
        pictures = {"samples": self.sample(num_samples, labels=labels, generator=generator)}
        latent, conditioning, device = self.latent, self.conditioning, self._device
        inputs = {
            "interpolation": interpolation(
                latent, conditioning, num_samples, label=label, generator=generator, device=device
            )
        }
        if self.num_classes and label is None:
            inputs["class_grid"] = class_grid(latent, conditioning, num_samples, generator=generator, device=device)
        if isinstance(conditioning, HiddenCodes):
            inputs |= traversals(latent, conditioning, num_samples, generator=generator, device=device)
        with evaluation_mode(self):
            return pictures | {name: self.render(rows) for name, rows in inputs.items()}
