"""The parts of a batch train like the whole, for every technique and conditioning, or say that they do not."""

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from genlab.errors import ConfigurationError
from genlab.models.gan.acgan import AuxiliaryClassifier
from genlab.models.gan.conditioning import (
    ClassLabels,
    ClassPrediction,
    ClassProjection,
    Conditioning,
    Unconditional,
)
from genlab.models.gan.gan import GAN
from genlab.models.gan.latent import UniformNoise
from genlab.models.gan.mlp import MLPGenerator
from genlab.models.gan.objectives import Relativistic, Wasserstein
from genlab.models.gan.techniques.base import ImageTechnique, Technique
from genlab.models.gan.techniques.gradient_penalty import GradientPenalty
from genlab.models.gan.techniques.spectral_normalization import SpectralNormalization
from genlab.models.gan.techniques.zero_centered_penalty import R1Penalty, R2Penalty
from genlab.nn.self_attention import SelfAttention
from genlab.training.run import needs_whole_batch
from genlab.types import Batch
from tests.conftest import Genlab
from tests.models.gan.techniques.test_compatibility import MAKE
from tests.models.gan.tiny import make_gan, make_mlp_discriminator, make_updates
from tests.models.tiny import make_batch, make_spec
from tests.training.conftest import make_settings

SPEC = make_spec(channels=1, height=4, width=4, num_levels=256, num_classes=3)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 2, 1])

TECHNIQUES: dict[str, Callable[[], Technique]] = {
    # Without those that draw at random, and with the power iteration, of which each part is one step more.
    **{
        name: make
        for name, make in MAKE.items()
        if not isinstance(make(), ImageTechnique | GradientPenalty | SpectralNormalization)
    },
    "r1_penalty of every second update": lambda: R1Penalty(weight=2.0, interval=2),
    "r2_penalty of every second update": lambda: R2Penalty(weight=2.0, interval=2),
}
# Without hidden_codes, whose head has batch normalisation.
CONDITIONINGS: dict[str, Callable[[], Conditioning]] = {
    "none": Unconditional,
    "class_labels": ClassLabels,
    "class_projection": ClassProjection,
    "class_prediction": lambda: ClassPrediction(game_weight=0.5),
    "auxiliary_classifier": lambda: AuxiliaryClassifier(real_weight=1.0, fake_weight=1.0, generator_weight=1.0),
}


class FixedNoise(UniformNoise):
    """The same numbers for the rows of a batch, however it is divided."""

    def __init__(self) -> None:
        super().__init__(size=3)
        self.table = torch.rand(8, 3, generator=torch.Generator().manual_seed(3)) * 2 - 1
        self.row = 0

    def draw(self, num: int, *, generator: Generator | None, device: torch.device) -> Tensor:
        del generator, device
        rows = self.table[(torch.arange(num) + self.row) % 8]
        self.row += num
        return rows


def trained(num_parts: int, labels: Tensor, **changes: Any) -> tuple[GAN, Tensor]:
    """A GAN after three updates of each network, and its parameters in one row."""
    torch.manual_seed(0)
    techniques = {name: make() for name, make in changes.pop("techniques", {}).items()}
    model = make_gan(SPEC, techniques=techniques, latent=FixedNoise(), **changes).double()
    images = make_batch(SPEC, 8, dtype=torch.float64).images
    batch = Batch(images=images, labels=labels)
    model.latent.row = 0  # what building the model has drawn
    updates = make_updates(model, gradient_accumulation=num_parts, batch_size=8)
    for _ in range(3):
        for update in updates:
            for parameter in model.parameters():
                parameter.requires_grad_(any(parameter is own for own in update.parameters))
            update.run(batch)
    return model, torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def require_equal_or_declared(labels: Tensor = LABELS, **changes: Any) -> None:
    model, whole = trained(1, labels, **changes)
    _, parts = trained(2, labels, **changes)
    is_equal = torch.allclose(whole, parts, rtol=1e-5, atol=1e-7)
    assert is_equal == (model.needs_whole_batch is None), float((whole - parts).abs().max())


@pytest.mark.parametrize("name", TECHNIQUES)
def test_a_technique_trains_alike_in_parts_or_needs_the_whole(name: str) -> None:
    objective = Wasserstein() if name == "weight_clipping" else Relativistic()
    require_equal_or_declared(techniques={name.partition(" ")[0]: TECHNIQUES[name]}, objective=objective)


@pytest.mark.parametrize("name", CONDITIONINGS)
def test_a_conditioning_trains_alike_in_parts_or_needs_the_whole(name: str) -> None:
    labels = torch.tensor([0, 1, 2, 1, -1, -1, -1, -1]) if name == "class_prediction" else LABELS
    require_equal_or_declared(labels, conditioning=CONDITIONINGS[name]())


@pytest.mark.parametrize("name", CONDITIONINGS)
def test_parts_with_different_numbers_of_labels_train_alike_or_need_the_whole(name: str) -> None:
    labels = torch.tensor([0, 1, 2, 1, -1, -1, -1, 0])
    data: Any = SimpleNamespace(labelled_rows=lambda split: torch.arange(5), num_images=lambda split: 8)
    model, whole = trained(1, labels, conditioning=CONDITIONINGS[name]())
    _, parts = trained(2, labels, conditioning=CONDITIONINGS[name]())
    is_equal = torch.allclose(whole, parts, rtol=1e-5, atol=1e-7)
    assert is_equal == (needs_whole_batch(model, data) is None)


@pytest.mark.slow
def test_the_trainer_refuses_the_parts_of_a_batch_that_is_needed_whole(genlab: Genlab) -> None:
    model = make_gan(SPEC, techniques={"r1_penalty": R1Penalty(weight=1.0, interval=4)})
    rule = "trainer.gradient_accumulation must be 1 with model.techniques.r1_penalty, which the parts of a batch"
    with pytest.raises(ConfigurationError, match=re.escape(rule)):
        make_settings(batch_size=8, gradient_accumulation=2).require_divisible_batches(
            1, needs_whole_batch=model.needs_whole_batch
        )
    outcome = genlab("train", "model=improved_gan", "trainer=smoke", "trainer.gradient_accumulation=2")
    outcome.assert_error(2, "trainer.gradient_accumulation must be 1 with model.techniques.minibatch_discrimination")
    words = ("model=acgan", "trainer=smoke", "trainer.gradient_accumulation=2", "trainer.num_steps=2")
    outcome = genlab("train", *words, "dataset=digits_few_labels")
    outcome.assert_error(2, "must be 1 with some training images without a label, which the parts of a batch")
    assert genlab("train", *words).code == 0


def test_one_image_before_batch_normalisation_is_drawn_with_another_one(genlab: Genlab) -> None:
    words = ("model=semi_supervised_gan", "trainer=smoke", "trainer.num_steps=3", "trainer.labelled_fraction=0.99")
    assert genlab("train", *words).code == 0


def test_one_image_before_batch_normalisation_of_the_discriminator_is_refused_in_a_line(
    genlab: Genlab,
) -> None:
    outcome = genlab("train", "model=infogan", "trainer=smoke", "trainer.batch_size=1")
    outcome.assert_error(2, "one image at a time, and batch normalisation needs two")


def test_fewer_images_than_a_pack_initialise_with_finite_numbers() -> None:
    model = make_gan(SPEC, techniques={"weight_normalization": MAKE["weight_normalization"]()}, pack=4)
    model.initialize(make_batch(SPEC, 2))
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def test_virtual_normalisation_without_a_layer_to_replace_is_refused() -> None:
    class Bare(MLPGenerator):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(hidden=[4], activation=torch.nn.Tanh, normalization=torch.nn.Identity, **arguments)

    with pytest.raises(ValueError, match=r"virtual_batch_norm finds no normalisation in Bare to replace"):
        make_gan(
            SPEC,
            techniques={"virtual_batch_norm": MAKE["virtual_batch_norm"]()},
            generator=lambda **arguments: Bare(normalizes_output_weights=False, **arguments),
        )


def test_reused_images_are_not_paired_with_images_of_other_classes() -> None:
    changes = {"conditioning": ClassLabels(), "objective": Relativistic(), "reuses_generated": True}
    make_gan(SPEC, n_critic=1, **changes)
    with pytest.raises(ValueError, match=r"model\.n_critic must be 1 with model\.reuses_generated=true"):
        make_gan(SPEC, n_critic=2, **changes)


def test_layers_bounded_one_by_one_bound_no_attention() -> None:
    def attending(**arguments: Any) -> Any:
        network = make_mlp_discriminator()(**arguments)
        network.attention = SelfAttention(2)
        return network

    techniques = {"spectral_normalization": SpectralNormalization(num_power_iterations=1)}
    with pytest.raises(ValueError, match=r"does not beside the free scale of SelfAttention"):
        make_gan(SPEC, techniques=techniques, objective=Wasserstein(), discriminator=attending)
    techniques["weight_clipping"] = MAKE["weight_clipping"]()  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"exclude each other"):
        make_gan(SPEC, techniques=techniques, objective=Wasserstein(), discriminator=attending)


def test_a_generator_that_learns_from_features_is_warned_of_a_projection_of_classes() -> None:
    model = make_gan(SPEC, techniques={"feature_matching": MAKE["feature_matching"]()}, conditioning=ClassProjection())
    assert any("learns nothing of the classes from their projection" in line for line in model.warnings())
    batch = make_batch(SPEC, 8)
    loss = model.phases()[1].loss(batch).value
    projection = [parameter for name, parameter in model.named_parameters() if "embedding" in name]
    assert projection
    assert all(found is None or not found.any() for found in torch.autograd.grad(loss, projection, allow_unused=True))
