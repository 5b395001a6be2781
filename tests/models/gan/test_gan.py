"""Interaction of the parts of a GAN: phases, the objects that they hand on, resume, drawing."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from genlab.models.base import table_side
from genlab.models.gan.conditioning import ClassLabels
from genlab.models.gan.dcgan import DCGANDiscriminator, DCGANGenerator
from genlab.models.gan.gan import GAN
from genlab.models.gan.latent import GaussianNoise
from genlab.models.gan.networks import BatchNorm1d, BatchNorm2d
from genlab.models.gan.techniques.adaptive_augment import AdaptiveAugment
from genlab.models.gan.techniques.historical_averaging import HistoricalAveraging
from genlab.models.gan.techniques.label_smoothing import LabelSmoothing
from genlab.models.gan.techniques.minibatch_discrimination import MinibatchDiscrimination
from genlab.models.gan.techniques.spectral_normalization import SpectralNormalization
from genlab.models.gan.techniques.virtual_batch_norm import VirtualBatchNormalization
from genlab.training.optimization import FrozenOutside
from genlab.types import Batch
from tests.models.gan.test_infogan import make_codes
from tests.models.gan.tiny import gradients, make_gan, make_mlp_discriminator, make_mlp_generator, make_updates
from tests.models.tiny import make_batch, make_spec
from tests.training.conftest import make_dataset, make_trainer, run_folder
from tests.training.test_trainer import assert_states_equal, last_state, scalars

__all__ = ["run_folder"]

CONDITIONAL = make_spec(num_classes=3)


def with_batch_norm(**changes: Any) -> GAN:
    torch.manual_seed(0)
    return make_gan(
        CONDITIONAL,
        conditioning=ClassLabels(),
        generator=functools.partial(DCGANGenerator, channels=2, normalization=BatchNorm2d),
        discriminator=functools.partial(
            DCGANDiscriminator, channels=2, num_hidden=None, normalization=BatchNorm2d, leak=0.2
        ),
        **changes,
    )


# ---- phases


def test_generated_images_carry_no_graph_into_the_discriminators_phase() -> None:
    model = with_batch_norm()
    updates = make_updates(model)
    frozen = FrozenOutside(updates, model.parameters())
    made: list[Tensor] = []
    model.generator.register_forward_hook(lambda _, given, images: made.append(images))
    frozen.enter(updates[0])
    loss = updates[0].phase.loss(make_batch(model.spec, 4))
    assert loss.handed_on is None
    (images,) = made
    assert not images.requires_grad, "nothing of the generator's graph is even recorded"


@pytest.mark.parametrize("reuses", [False, True])
def test_the_discriminators_loss_has_no_gradient_in_the_generator(reuses: bool) -> None:
    model = with_batch_norm(reuses_generated=reuses)
    found = gradients(model, model.phases()[0].loss(make_batch(model.spec, 4)).value)
    assert not any(bool(gradient.any()) for name, gradient in found.items() if name.startswith("generator."))
    assert all(bool(gradient.any()) for name, gradient in found.items() if name.startswith("discriminator."))


def test_reused_images_give_the_gradient_of_the_same_images_made_afresh() -> None:
    """Between the two phases the discriminator has moved, and the generator has not."""
    model = with_batch_norm(reuses_generated=True)
    updates = make_updates(model)
    discriminator, generator = updates
    frozen = FrozenOutside(updates, model.parameters())
    batch = make_batch(model.spec, 5)
    frozen.enter(discriminator)
    torch.manual_seed(3)
    _, received = discriminator.run(batch)
    frozen.leave(discriminator)
    (images,) = received
    assert images.images.requires_grad
    frozen.enter(generator)
    reused = generator.phase.loss(batch, images)
    torch.manual_seed(3)
    afresh = generator.phase.loss(batch, None)
    assert torch.equal(reused.value, afresh.value)
    wanted = list(model.generator.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(reused.value, wanted), torch.autograd.grad(afresh.value, wanted), strict=True
    ):
        assert torch.equal(ours, theirs)
        assert bool(ours.any())


def test_reused_images_keep_their_own_classes() -> None:
    """With n_critic > 1 the generator's batch is not the one whose classes the images were drawn of."""
    model = with_batch_norm(reuses_generated=True, n_critic=2)
    first, second = (
        Batch(images=make_batch(CONDITIONAL, 4).images, labels=torch.tensor(labels)) for labels in ([0] * 4, [1, 2] * 2)
    )
    discriminator, generator = model.phases()
    generated = discriminator.loss(first).handed_on
    torch.testing.assert_close(generator.loss(second, generated).value, generator.loss(first, generated).value)


def test_the_discriminator_is_updated_n_critic_times() -> None:
    discriminator, generator = with_batch_norm(n_critic=4).phases()
    assert (discriminator.repeats, generator.repeats) == (4, 1)
    with pytest.raises(ValueError, match=r"model\.n_critic must be an integer of at least 1, got 0"):
        with_batch_norm(n_critic=0)


def test_the_threshold_of_the_accuracies() -> None:
    model = with_batch_norm()
    measures = model.evaluate(make_batch(model.spec, 50))
    assert torch.equal(measures["accuracy_real"], (measures["score_real"] > 0).float())
    assert torch.equal(measures["accuracy_fake"], (measures["score_fake"] <= 0).float())


def test_measures_are_those_of_both_networks_in_evaluation_mode() -> None:
    model = make_gan(discriminator=make_mlp_discriminator(hidden_noise=0.5))
    batch, measured = make_batch(model.spec, 5), []
    for mode in (True, False):
        model.train(mode)
        torch.manual_seed(1)
        measured.append(model.evaluate(batch))
    assert not model.training
    for name, values in measured[0].items():
        assert torch.equal(values, measured[1][name]), name


def test_images_are_seen_in_minus_one_to_one() -> None:
    model = make_gan()
    seen: list[Tensor] = []
    model.discriminator.network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    images = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    model.evaluate(Batch(images=images, labels=torch.zeros(3, dtype=torch.long)))
    assert seen[0][:, 0, 0, 0].tolist() == [-1.0, 0.0, 1.0]


def test_a_technique_that_is_null_is_left_out() -> None:
    model = make_gan(techniques={"smoothing": LabelSmoothing(real_target=0.9), "discrimination": None})
    assert list(model.techniques) == ["smoothing"]


# ---- resume


def with_every_kind_of_state(seed: int) -> GAN:
    torch.manual_seed(seed)
    techniques = (
        VirtualBatchNormalization(num_reference=3),
        HistoricalAveraging(weight=0.01),
        SpectralNormalization(num_power_iterations=1),
        MinibatchDiscrimination(num_kernels=3, kernel_size=2),
        AdaptiveAugment(target=0.1, images_to_one=200, max_probability=0.8),
    )
    techniques[-1].probability.fill_(0.4)
    return make_gan(
        make_spec(num_levels=5),
        *techniques,
        generator=make_mlp_generator(normalization=BatchNorm1d),
        conditioning=make_codes(),
        n_critic=2,
    )


def test_resume_is_bitwise_with_the_state_of_the_techniques(run_folder: Callable[[str], Path]) -> None:
    """Three steps, then three more in a model of other initial values: all of the state is in the checkpoint."""
    settings = {"num_steps": 6, "checkpoint_interval": 3, "log_interval": 2}
    whole, cut = run_folder("whole"), run_folder("cut")
    make_trainer(whole, with_every_kind_of_state(0), **settings).fit(resume=False)
    shutil.copytree(whole, cut, dirs_exist_ok=True)
    (cut / "checkpoints" / "last.safetensors").unlink()  # previous.safetensors is of step 3
    other = with_every_kind_of_state(1)
    trainer = make_trainer(cut, other, **settings)
    assert trainer.fit(resume=True).step == 6
    ours, theirs = last_state(whole), last_state(cut)
    assert any(name.endswith("reference") for name in ours["model"])
    assert any(name.endswith("num_seen") for name in ours["model"])
    assert any(name.endswith("_u") for name in ours["model"])
    assert ours["average"] is not None
    assert ours["model"]["techniques.technique_1.num_seen"].tolist() == [6, 12]
    assert ours["model"]["techniques.technique_4.probability"].item() != pytest.approx(0.4)
    assert_states_equal(ours, theirs)
    assert scalars(whole) == scalars(cut)


def test_the_averaged_copy_has_techniques_of_its_own(run_folder: Callable[[str], Path]) -> None:
    trainer = make_trainer(run_folder("run"), with_every_kind_of_state(0), num_steps=2, dataset=make_dataset())
    trainer.fit(resume=False)
    averaged = trainer.state.evaluated_model()
    assert averaged is not trainer.model
    own = {id(module) for module in averaged.modules()}
    assert not own & {id(module) for module in trainer.model.modules()}
    assert all(id(part) in own for phase in averaged.phases() for part in phase.modules)
    assert torch.isfinite(averaged.sample(4)).all()


# ---- drawing


@pytest.mark.parametrize("make", [with_batch_norm, make_gan, lambda: make_gan(conditioning=make_codes())])
def test_samples_are_those_of_the_generator_in_evaluation_mode(make: Callable[[], GAN]) -> None:
    model = make()
    model.discriminator.eval()
    torch.manual_seed(1)
    first = model.sample(3, generator=Generator().manual_seed(7))
    torch.manual_seed(2)
    assert torch.equal(first, model.sample(3, generator=Generator().manual_seed(7)))
    assert not torch.equal(first, model.sample(3, generator=Generator().manual_seed(8)))
    assert model.generator.training
    assert not model.discriminator.training, "each module gets back the mode that it was in"
    assert not first.requires_grad
    assert 0 <= first.min() < first.max() <= 1
    assert model.sample(1).shape == (1, 1, 4, 4)
    with pytest.raises(ValueError, match="num_samples must be an integer of at least 1"):
        model.sample(0)


@pytest.mark.parametrize("labels", [[0, 3], [0, -1], [0], [0, 1, 2]])
def test_labels_that_do_not_fit_are_refused(labels: list[int]) -> None:
    with pytest.raises(ValueError, match=r"labels must be 2 classes between 0 and 2"):
        with_batch_norm().sample(2, labels=torch.tensor(labels))


def test_labels_of_a_model_without_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="GAN is not class-conditional"):
        make_gan().sample(2, labels=torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="GAN is not class-conditional"):
        make_gan().visualize(None, num_samples=2, label=1)


def test_a_class_grid_has_a_class_per_row_and_a_noise_per_column() -> None:
    model = make_gan(CONDITIONAL, conditioning=ClassLabels())
    assert model.visualize(None, num_samples=2)["class_grid"].shape == (9, 1, 4, 4)
    with torch.no_grad():
        model.generator.layers[0].weight[:, :3] = 0  # deaf to noise: a row is of one image
    grid = model.visualize(None, num_samples=9)["class_grid"].view(3, 3, -1)
    torch.testing.assert_close(grid, grid[:, :1].expand_as(grid))
    assert not torch.isclose(grid[0, 0], grid[1, 0], atol=1e-4).all()
    with torch.no_grad():
        model.generator.layers[0].weight[:, :3] = 1
        model.generator.layers[0].weight[:, 3:] = 0  # deaf to classes: so is a column
    grid = model.visualize(None, num_samples=9)["class_grid"].view(3, 3, -1)
    torch.testing.assert_close(grid, grid[:1].expand_as(grid))
    assert not torch.isclose(grid[0, 0], grid[0, 1], atol=1e-4).all()


def test_tables_are_square_and_bounded() -> None:
    assert [table_side(kinds, 64) for kinds in (1, 3, 10, 11, 1000)] == [1, 3, 10, 8, 8]


def test_all_pictures_of_one_class_are_of_that_class() -> None:
    model = make_gan(CONDITIONAL, conditioning=ClassLabels())
    with torch.no_grad():
        model.generator.layers[0].weight[:, :3] = 0
    pictures = model.visualize(None, num_samples=40, label=2)
    assert set(pictures) == {"samples", "interpolation"}
    expected = model.sample(1, labels=torch.tensor([2]))
    for images in pictures.values():
        torch.testing.assert_close(images, expected.expand_as(images))


@pytest.mark.parametrize(("num_samples", "num_paths", "length"), [(20, 4, 4), (9, 3, 3), (3, 1, 1), (1, 1, 1)])
def test_an_interpolation_is_made_of_whole_paths(num_samples: int, num_paths: int, length: int) -> None:
    model = make_gan(latent=GaussianNoise(size=3))
    seen: list[Tensor] = []
    model.generator.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    images = model.visualize(None, num_samples=num_samples)["interpolation"]
    assert images.shape == (num_paths * length, 1, 4, 4)
    for path in seen[-1].view(num_paths, length, 3):
        for index, point in enumerate(path):
            expected = model.latent.between(path[0], path[-1], index / max(length - 1, 1))
            torch.testing.assert_close(point, expected)
        assert length == 1 or not torch.equal(path[0], path[-1])


def test_a_traversal_has_a_category_per_row_and_one_code_that_grows() -> None:
    model = make_gan(conditioning=make_codes())
    seen: list[Tensor] = []
    model.generator.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    pictures = model.visualize(None, num_samples=12)
    assert {name for name in pictures if name.startswith("traversal")} == {"traversal_1", "traversal_2"}
    for index, inputs in enumerate(seen[-2:]):
        noise, categories, codes = inputs.view(4, 4, -1).split([3, 4, 2], 2)
        assert torch.equal(noise, noise[:1, :1].expand_as(noise))
        assert torch.equal(categories, torch.eye(4)[:, None].expand(4, 4, 4))
        torch.testing.assert_close(codes[0, :, index], torch.linspace(-2, 2, 4))
        assert not codes[..., 1 - index].any()
        assert pictures[f"traversal_{index + 1}"].shape == (16, 1, 4, 4)
