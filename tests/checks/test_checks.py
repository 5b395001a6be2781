"""The checks hold for every model of the tree, and each planted mistake fails the check that is meant for it."""

import functools
from collections.abc import Callable

import pytest

from benchmarks.composed import configuration_of
from genlab.checks.invariants import INVARIANTS, find, findings
from genlab.checks.subject import Finding, Subject, fitting_subject
from genlab.config.location import config_directory
from genlab.errors import ConfigurationError
from genlab.models.base import Model
from genlab.models.draw.draw import DRAW
from genlab.models.gan.gan import GAN
from genlab.models.gan.techniques.base import Technique
from genlab.models.gan.techniques.gradient_penalty import GradientPenalty
from genlab.models.pixelcnn.pixelcnn import PixelCNN
from genlab.run.record import build_model
from genlab.types import ImageSpec
from tests.checks import broken, own_models
from tests.models.gan.tiny import make_gan
from tests.models.pixelcnn.tiny_autoregressive import RESIDUAL
from tests.models.tiny import make_draw
from tests.training.conftest import TinyGAN

MODELS = sorted(path.stem for path in (config_directory() / "model").glob("*.yaml"))
TRAINED = {"resume is bitwise", "what is saved is what was measured"}
IMAGE = functools.partial(ImageSpec, channels=1, num_levels=2, num_classes=2)


def subject_of(make: Callable[[ImageSpec], Model]) -> Subject:
    return fitting_subject(make, IMAGE, sizes=None, seed=0)


def draw(kind: type[DRAW]) -> Callable[[ImageSpec], Model]:
    return functools.partial(make_draw, kind=kind)


def pixelcnn(kind: type[PixelCNN]) -> Callable[[ImageSpec], Model]:
    return lambda spec: kind(spec=spec, **RESIDUAL)


def gan(kind: type[GAN], *techniques: Technique) -> Callable[[ImageSpec], Model]:
    return lambda spec: make_gan(spec, *techniques, kind=kind)


def test_a_measure_that_the_model_does_not_declare_is_reported() -> None:
    subject = Subject(make=lambda spec: TinyGAN(), spec=IMAGE(height=4, width=4))
    finding = find("measures are finite, one per image", subject)
    assert (finding.result, "gap_nats (not declared)" in finding.seen) == ("held", True)
    assert "not declared" not in find("measures are finite, one per image", subject_of(draw(DRAW))).seen


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_model_of_the_tree_holds(name: str) -> None:
    configuration = configuration_of(f"model={name}")
    found = dict(findings(subject_of(functools.partial(build_model, configuration))))
    assert {key: finding.seen for key, finding in found.items() if finding.result == "FAILED"} == {}
    assert sum(finding.result == "held" for finding in found.values()) >= 5


SOUND = {
    "draw": draw(DRAW),
    "pixelcnn": pixelcnn(PixelCNN),
    "gan": gan(GAN, GradientPenalty(weight=10.0)),
}


def test_sound_models_hold_and_every_check_applies_to_one() -> None:
    """A check that applies to none promises what is never looked at."""
    held = set()
    for name, make in SOUND.items():
        found = dict(findings(subject_of(make)))
        assert {(name, key): finding.seen for key, finding in found.items() if finding.result == "FAILED"} == {}
        held |= {key for key, finding in found.items() if finding.result == "held"}
    assert held == set(INVARIANTS)


OWN: dict[Callable[[ImageSpec], Model], set[str]] = {
    own_models.VAE: {
        "a bound sums to at most one",
        "KL is zero at the prior",
        "KL is that of torch.distributions",
        "draws are of the posterior",
        "noise is fresh for every latent",
        "bound depends on the draw",
        "bound agrees with importance weights",
    },
    own_models.PlainVAE: {"a bound sums to at most one"},
    own_models.VAEOfClasses: {"KL is that of torch.distributions", "bound depends on the draw"},
    own_models.MaskedLinear: {
        "no prediction sees its own symbol",
        "likelihood is that of the logits",
        "probabilities sum to one",
    },
    lambda spec: own_models.ScoredGAN(): {"generated images are detached", "scores are unbounded"},
}


@pytest.mark.parametrize("make", OWN)
def test_a_model_of_any_class_gets_the_checks_of_the_capabilities_that_it_has(
    make: Callable[[ImageSpec], Model],
) -> None:
    found = {name: find(name, subject_of(make)) for name in INVARIANTS if name not in TRAINED}
    assert {key: finding.seen for key, finding in found.items() if finding.result == "FAILED"} == {}
    for_every_model = {"phases are isolated", "measures are of the image alone", "state survives a round trip"}
    assert {name for name, finding in found.items() if finding.result == "held"} >= OWN[make] | for_every_model


def test_a_missing_capability_is_named_by_what_is_missing() -> None:
    finding = find("KL is zero at the prior", subject_of(own_models.MaskedLinear))
    assert finding.seen == "it has no kl_measure, latents, posterior_layers (HasPosteriorLayers)"


@pytest.mark.parametrize(
    ("make", "name", "seen"),
    [
        (
            own_models.VAEOfClasses,
            "noise is fresh for every latent",
            "the latents of a Categorical are not independent numbers",
        ),
        (
            functools.partial(own_models.VAE, latent_size=1),
            "noise is fresh for every latent",
            "it has one latent variable",
        ),
        (
            lambda spec: own_models.OnePhaseGAN(),
            "generated images are detached",
            "no other phase than both trains a parameter",
        ),
    ],
)
def test_a_check_without_anything_to_compare_does_not_apply(
    make: Callable[[ImageSpec], Model], name: str, seen: str
) -> None:
    assert find(name, subject_of(make)) == Finding("does not apply", seen)


def test_a_model_that_offers_the_interface_alone_gets_the_checks_of_every_model() -> None:
    found = dict(findings(subject_of(lambda spec: TinyGAN())))
    assert {name: finding.result for name, finding in found.items() if finding.result != "does not apply"} == {
        "phases are isolated": "held",
        "every parameter has a gradient": "held",
        "measures are finite, one per image": "held",
        "measures are of the image alone": "held",
        "samples follow the seed": "held",
        "state survives a round trip": "held",
        "noise differs between ranks": "held",
        "ranks stay equal": "held",
        "resume is bitwise": "held",
        "what is saved is what was measured": "held",
    }


def test_a_model_that_raises_has_failed_the_check_and_the_others_go_on() -> None:
    def refuse(spec: ImageSpec) -> Model:
        model = TinyGAN()
        model.evaluate = lambda batch: 1 / 0  # type: ignore[method-assign, assignment]
        return model

    found = dict(findings(subject_of(refuse)))
    assert found["measures are finite, one per image"].seen == "raised ZeroDivisionError: division by zero"
    assert found["resume is bitwise"].result == "held"


def test_images_are_the_smallest_that_the_model_takes() -> None:
    sizes = []

    def make(spec: ImageSpec) -> Model:
        sizes.append((spec.height, spec.width))
        if spec.height < 8:
            raise ConfigurationError("model.size must be at least 8")
        return make_draw(spec)

    assert subject_of(make).spec.height == 8
    assert sizes == [(4, 4), (8, 8)]
    with pytest.raises(ConfigurationError, match="at least 8"):
        fitting_subject(make, IMAGE, sizes=((4, 4),), seed=0)


BROKEN: dict[str, tuple[Callable[[ImageSpec], Model], set[str]]] = {
    "shifted filters": (draw(broken.ShiftedFilters), {"filters are centred"}),
    "filters divided by their sum": (draw(broken.DividedFilters), {"filter rows sum to one"}),
    "filters that sum to more than one": (
        draw(broken.UnnormalizedFilters),
        {"filter rows sum to one", "filters are centred"},
    ),
    "another sampler": (pixelcnn(broken.OtherSampler), {"incremental sampler equals full pass"}),
    "forgetful completion": (pixelcnn(broken.ForgetfulCompletion), {"completion keeps what is given"}),
    "attached images": (gan(broken.AttachedImages), {"generated images are detached"}),
    "images attached by NaN": (gan(broken.AttachedByNaN), {"generated images are detached"}),
    "one optimiser for both networks": (
        gan(broken.OneOptimizer),
        {"generated images are detached", "phases are isolated"},
    ),
    "a network that is not in the model": (gan(broken.TrainsForeignNetwork), {"phases are isolated"}),
    "bounded scores": (gan(broken.BoundedScores), {"scores are unbounded"}),
    "a penalty of another norm": (
        gan(GAN, broken.StretchedPenalty(weight=10.0)),
        {"gradient penalty of a linear critic"},
    ),
    "a layer that no loss reaches": (gan(broken.IdleLayer), {"every parameter has a gradient"}),
    "a weight that is no parameter": (gan(broken.ConstantTensor), {"every parameter has a gradient"}),
    "compared samples": (gan(broken.ComparesSamples), {"measures are of the image alone"}),
    "averaged measures": (draw(broken.AveragedMeasures), {"measures are finite, one per image"}),
    "a deaf sampler": (draw(broken.DeafSampler), {"samples follow the seed"}),
    "noise that is the same at all steps": (draw(broken.FixedNoise), {"noise differs between ranks"}),
    "a default generator seeded anew": (draw(broken.ReseededGenerator), {"noise differs between ranks"}),
    "noise of NumPy": (draw(broken.NoiseOfNumPy), {"noise differs between ranks"}),
    "statistics of a rank's own images": (gan(broken.OwnStatistics), {"ranks stay equal"}),
    "a buffer drawn by each rank": (gan(broken.DrawnBuffer), {"ranks stay equal"}),
    "an unsaved part": (draw(broken.UnsavedPart), {"state survives a round trip"}),
    "VAE: wrong KL constant": (
        own_models.WrongConstant,
        {"KL is zero at the prior", "KL is that of torch.distributions"},
    ),
    "VAE: wrong variance": (own_models.WrongVariance, {"KL is that of torch.distributions"}),
    "VAE: a variance for the deviation of a draw": (own_models.VarianceAsDeviation, {"draws are of the posterior"}),
    "VAE: a bound without its KL": (
        own_models.NoKL,
        {"a bound sums to at most one", "bound agrees with importance weights"},
    ),
    "VAE: the sum of importance weights": (own_models.SumOfWeights, {"a bound sums to at most one"}),
    "VAE: the largest importance weight": (own_models.LargestWeight, {"a bound sums to at most one"}),
    "VAE: signs for noise": (own_models.SignsForNoise, {"draws are of the posterior"}),
    "plain VAE: minus its KL": (own_models.MinusKL, {"a bound sums to at most one"}),
    "VAE: shared noise": (own_models.SharedNoise, {"noise is fresh for every latent"}),
    "VAE: a decoder of the mean": (own_models.DecodesTheMean, {"bound depends on the draw"}),
    "VAE: mixed images": (own_models.MixesImages, {"measures are of the image alone"}),
    "VAE: a parameter in two phases": (own_models.TwoOwners, {"phases are isolated"}),
    "VAE: a count outside of the state": (own_models.Forgetful, {"resume is bitwise"}),
    "causal model: a leak": (
        own_models.LeakyLinear,
        {"no prediction sees its own symbol", "probabilities sum to one"},
    ),
    "causal model: half the likelihood": (own_models.HalfLikelihood, {"probabilities sum to one"}),
    "causal model: probabilities as logits": (own_models.DoubleSoftmax, {"likelihood is that of the logits"}),
    "own GAN: rounded images": (lambda spec: own_models.RoundedGAN(), {"every parameter has a gradient"}),
    "unsaved statistics": (draw(broken.UnsavedStatistics), {"what is saved is what was measured"}),
}


@pytest.mark.parametrize("mistake", BROKEN)
def test_a_planted_mistake_is_found_by_its_name(mistake: str) -> None:
    make, expected = BROKEN[mistake]
    subject = subject_of(make)
    found = {name: find(name, subject) for name in expected}
    assert {name for name, finding in found.items() if finding.result == "FAILED"} == expected
    assert not any(finding.seen.startswith("raised") for finding in found.values()), "the mistake itself is found"
