"""The interface that the trainer relies on, for every model of the configuration tree."""

import functools
from itertools import product

import pytest
import torch

from benchmarks.composed import values_of
from genlab.checks.interface import measures_are_of_the_image, state_survives
from genlab.checks.subject import Subject
from genlab.config.location import config_directory
from genlab.config.schema import RunConfiguration, read_run_configuration
from genlab.errors import ConfigurationError
from genlab.models.base import GenerativeModel, Model
from genlab.models.capabilities import RendersInputs
from genlab.run.record import build_model
from genlab.sampling.latents import find_latents
from genlab.training.phases import phases_of, warnings_of_phases
from genlab.types import Batch, ImageSpec
from tests.shrunk import shrunk
from tests.thinning import slow

MODELS = sorted(path.stem for path in (config_directory() / "model").glob("*.yaml"))
# The measures of an image depend on the other images of its batch, and the ledger says so.
COUPLED = {"improved_gan"}
SMALLEST = {"classifier": 8, "draw": 8, "draw_classifier": 12}
SPECS = {
    "binary": ImageSpec(channels=1, height=12, width=8, num_levels=2, num_classes=3),
    "few levels": ImageSpec(channels=1, height=12, width=12, num_levels=5, num_classes=3),
    "colour": ImageSpec(channels=3, height=8, width=12, num_levels=256, num_classes=3),
}


REFUSED = {("pixelcnn_blocks", "colour"): "needs at most 1296"}
# Colours pass through the same classes as those of the presets that stay quick.
SLOW = {
    (name, "colour") for name in ("pixelcnn", "pixelcnn_document", "pixelcnn_paper", "pixelcnn_pp", "draw_no_attention")
}
SLOW |= {(name, "colour") for name in ("acgan", "cgan", "improved_gan", "infogan", "lsgan", "projection_gan", "r3gan")}
SLOW |= {(name, "colour") for name in ("dcgan_assignment", "sngan_resnet", "wgan", "wgan_gp", "wgan_gp_resnet")}


def test_the_models_are_seen() -> None:
    assert len(MODELS) >= 9


@functools.cache
def configuration(name: str) -> RunConfiguration:
    values = values_of(f"model={name}")
    return read_run_configuration({**values, "model": shrunk(values["model"])})


def make(name: str, spec: ImageSpec) -> tuple[Model, Batch]:
    torch.manual_seed(0)
    model = build_model(configuration(name), spec)
    levels = torch.randint(0, spec.num_levels, (6, spec.channels, spec.height, spec.width))
    batch = Batch(images=levels / (spec.num_levels - 1), labels=torch.randint(0, spec.num_classes, (6,)))
    model.initialize(batch)
    return model, batch


@pytest.mark.parametrize(
    ("name", "kind"),
    [slow(case) if case[1] == "few levels" or case in SLOW else case for case in product(MODELS, SPECS)],
)
def test_every_model_keeps_the_interface(name: str, kind: str) -> None:
    spec = SPECS[kind]
    if (name, kind) in REFUSED:
        with pytest.raises(ConfigurationError, match=REFUSED[name, kind]):
            make(name, spec)
        return
    model, batch = make(name, spec)
    phases = phases_of(model)
    assert warnings_of_phases(model) == []
    trained = set()
    for phase in phases:
        own = {id(parameter) for module in phase.modules for parameter in module.parameters()}
        trained |= own
        model.zero_grad()
        loss = phase.loss(batch)
        loss.value.backward()
        assert torch.isfinite(loss.value)
        assert all(not metric.requires_grad for metric in loss.metrics.values())
        assert not {"loss", "nll", "kl"} & loss.metrics.keys(), "a quantity carries its unit"
        for parameter_name, parameter in model.named_parameters():
            if id(parameter) in own:
                assert parameter.grad is not None, f"{phase.name} never reaches {parameter_name}"
    assert trained == {id(parameter) for parameter in model.parameters()}

    model.eval()
    measures = model.evaluate(batch)
    assert all(len(values) == 6 for values in measures.values())
    assert model.diagnose(batch, num_importance_samples=2).keys() <= model.measures.keys(), "a measure is declared"
    assert measures.keys() <= model.measures.keys()
    if model.selection_measure is not None:
        assert measures[model.selection_measure].shape == (6,)
        assert model.measures[model.selection_measure].direction == "lower"
    pictures = model.visualize(batch, num_samples=4)
    for picture in pictures.values():
        assert picture.dim() in (4, 5)
        assert picture.min() >= 0
        assert picture.max() <= 1
    if isinstance(model, GenerativeModel):
        assert model.sample(3).shape == (3, spec.channels, spec.height, spec.width)
        assert "samples" in pictures
        assert "samples" in model.visualize(None, num_samples=2)
    if isinstance(model, RendersInputs):
        found = find_latents(model, batch.images[:2], num_steps=1)
        assert found.images.shape == (2, spec.channels, spec.height, spec.width)
        assert (found.errors <= found.draw_errors + 1e-6).all()


@pytest.mark.parametrize("name", MODELS)
def test_the_state_survives_and_an_image_is_measured_alike_in_every_company_or_the_model_says_so(name: str) -> None:
    """17 images by themselves and among 19, each with the same noise."""
    side = SMALLEST.get(name, 4)
    spec = ImageSpec(channels=1, height=side, width=side, num_levels=2, num_classes=2)
    subject = Subject(make=functools.partial(build_model, configuration(name)), spec=spec)
    saved = state_survives(subject)
    assert saved.result == "held", saved.seen
    finding = measures_are_of_the_image(subject)
    assert finding.result == "held", finding.seen
    assert finding.seen.startswith("nothing moved") == (name not in COUPLED), finding.seen
    assert subject.fresh().couples_images == (name in COUPLED)
