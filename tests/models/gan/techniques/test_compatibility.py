"""Every cell of the tables in docs/gans.md, on networks that train, and the mathematics that decides the cells."""

import copy
import functools
import itertools
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genlab.checks.phases import training_step
from genlab.config.location import config_directory
from genlab.models.gan.dcgan import DCGANDiscriminator
from genlab.models.gan.gan import GAN
from genlab.models.gan.mlp import MLPDiscriminator
from genlab.models.gan.networks import BatchNorm2d
from genlab.models.gan.objectives import (
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    Objective,
    Relativistic,
    Wasserstein,
)
from genlab.models.gan.techniques.adaptive_augment import AdaptiveAugment
from genlab.models.gan.techniques.base import (
    LayerTechnique,
    ObjectiveTechnique,
    Parts,
    StepTensors,
    Technique,
    TermTechnique,
    WeightTechnique,
)
from genlab.models.gan.techniques.diff_augment import DiffAugment
from genlab.models.gan.techniques.feature_matching import FeatureMatching
from genlab.models.gan.techniques.gradient_penalty import GradientPenalty, gradient_norms
from genlab.models.gan.techniques.historical_averaging import HistoricalAveraging
from genlab.models.gan.techniques.instance_noise import InstanceNoise
from genlab.models.gan.techniques.label_smoothing import LabelSmoothing
from genlab.models.gan.techniques.minibatch_discrimination import MinibatchDiscrimination
from genlab.models.gan.techniques.spectral_normalization import SpectralNormalization
from genlab.models.gan.techniques.virtual_batch_norm import VirtualBatchNormalization
from genlab.models.gan.techniques.weight_clipping import WeightClipping
from genlab.models.gan.techniques.weight_normalization import WeightNormalization
from genlab.models.gan.techniques.zero_centered_penalty import R1Penalty, R2Penalty
from genlab.types import Loss
from tests.conftest import Genlab
from tests.models.gan.tiny import make_gan, make_mlp_discriminator, make_updates
from tests.models.tiny import make_batch, make_spec
from tests.thinning import thinned

DOCS = Path(__file__).parents[4] / "docs"
PROGRAM = "docs/tables/techniques.py"
TABLES = runpy.run_path(str(DOCS / "tables" / "techniques.py"))

MAKE: dict[str, Callable[[], Technique]] = {
    **{name: functools.partial(copy.deepcopy, technique) for name, technique in TABLES["techniques"]().items()},
    # With other numbers than in configs/technique:
    "adaptive_augment": lambda: AdaptiveAugment(target=0.6, images_to_one=100, max_probability=0.8),
    "diff_augment": lambda: DiffAugment(brightness=0.5, saturation=1.0, contrast=0.5, translation=0.125, cutout=0.5),
    "feature_matching": lambda: FeatureMatching(weight=1.0, replaces_objective=True),
    "gradient_penalty": lambda: GradientPenalty(weight=10.0),
    "historical_averaging": lambda: HistoricalAveraging(weight=0.1),
    "instance_noise": lambda: InstanceNoise(std=0.1),
    "label_smoothing": lambda: LabelSmoothing(real_target=0.9),
    "minibatch_discrimination": lambda: MinibatchDiscrimination(num_kernels=3, kernel_size=2),
    "r1_penalty": lambda: R1Penalty(weight=1.0, interval=1),
    "r2_penalty": lambda: R2Penalty(weight=1.0, interval=1),
    "spectral_normalization": lambda: SpectralNormalization(num_power_iterations=1),
    "virtual_batch_norm": lambda: VirtualBatchNormalization(num_reference=3),
    "weight_clipping": lambda: WeightClipping(bound=0.05),
    "weight_normalization": functools.partial(WeightNormalization, direction_std=0.05, learns_scale=True),
}
OBJECTIVES: dict[str, Objective] = {
    "hinge": Hinge(),
    "least_squares": LeastSquares(),
    "minimax": Minimax(),
    "non_saturating": NonSaturating(),
    "relativistic": Relativistic(),
    "wasserstein": Wasserstein(),
}
SETS: list[tuple[str, ...]] = [(), *((name,) for name in MAKE), *itertools.combinations(MAKE, 2)]
NORMALIZED = functools.partial(DCGANDiscriminator, channels=2, num_hidden=None, normalization=BatchNorm2d, leak=0.2)
SPEC = make_spec(num_levels=5)
CLIPPED = 0.05 + 1e-7


def make(objective: str, names: tuple[str, ...], **changes: Any) -> GAN:
    torch.manual_seed(0)
    techniques = {name: MAKE[name]() for name in names}
    return make_gan(SPEC, objective=OBJECTIVES[objective], techniques=techniques, **changes)


@functools.cache
def documented(objective: str, names: tuple[str, ...], *, normalized: bool = False) -> tuple[str | None, list[str]]:
    """The line with which the page refuses a set, or None, and the lines with which it warns."""
    found = TABLES["found_in"](objective, names, normalized=normalized)
    refused = [remark.message for remark in found if remark.is_refusal]
    return (refused[0] if refused else None), [remark.message for remark in found if not remark.is_refusal]


def cells_of_the_page() -> dict[tuple[str, str], str]:
    """The cells as a reader sees them: of an objective and a technique, and of two techniques."""
    cells = {}
    for table in (DOCS / "gans.md").read_text("utf-8").split(TABLES["BEGIN"])[1].split("\n\n")[:2]:
        head, _, *rows = [line.replace("`", "").split("|")[1:-1] for line in table.strip().splitlines()]
        for first, *values in rows:
            for column, value in zip(head[1:], values, strict=True):
                if value.strip():
                    cells[column.strip(), first.strip()] = value.split()[0]
    return cells


# ---- the tables


def test_the_tables_of_the_page_are_those_of_the_code() -> None:
    assert (
        set(TABLES["techniques"]())
        == set(MAKE)
        == {path.stem for path in (config_directory() / "technique").glob("*.yaml")}
    )
    assert len(MAKE) >= 14
    assert set(TABLES["objectives"]()) == set(OBJECTIVES)
    assert TABLES["page"]() == TABLES["PAGE"].read_text("utf-8"), f"python {PROGRAM} brings docs/gans.md up to date"


def test_what_is_refused_and_what_is_warned_of() -> None:
    """By hand: the code has no such list. Everything else works, with an objective that needs no bound."""
    refused = {
        *(("gradient_penalty", "minibatch_discrimination"), ("minibatch_discrimination", "r1_penalty")),
        ("minibatch_discrimination", "r2_penalty"),
        *itertools.combinations(("spectral_normalization", "weight_clipping", "weight_normalization"), 2),
    }
    warned = {("feature_matching", "minibatch_discrimination"), ("gradient_penalty", "weight_clipping")}
    bounding = {"gradient_penalty", "spectral_normalization", "weight_clipping"}
    for objective, names in itertools.product(OBJECTIVES, SETS):
        is_refused = names in refused
        if objective == "wasserstein":
            is_refused |= bool({"label_smoothing", "adaptive_augment"} & set(names)) or not bounding & set(names)
        refusal, warnings = documented(objective, names)
        assert (refusal is not None) == is_refused, (objective, names)
        assert is_refused or bool(warnings) == (names in warned), (objective, names)


@pytest.mark.parametrize("objective", thinned(OBJECTIVES, 4))
def test_the_cells_decide_larger_sets_as_the_page_says(objective: str) -> None:
    """Each technique with the objective, each pair; and with message 1 one that bounds the slope is enough."""
    needs_a_bound = documented("wasserstein", ())[0]
    for names in itertools.combinations(MAKE, 3):
        found = {documented(objective, (name,))[0] for name in names}
        found |= {documented(TABLES["CONSTRAINED"], pair)[0] for pair in itertools.combinations(names, 2)}
        is_bounded = None in {documented(objective, (name,))[0] for name in names}
        is_refused = bool(found - {None, needs_a_bound}) or (needs_a_bound in found and not is_bounded)
        assert is_refused == (documented(objective, names)[0] is not None), (objective, names)


def test_a_reader_finds_the_same_in_the_cells() -> None:
    cells = cells_of_the_page()
    assert len(cells) == (1 + len(MAKE)) * (2 + len(OBJECTIVES)) + len(MAKE) * (len(MAKE) - 1)
    for (column, row), cell in cells.items():
        objective, *normalized = column.split(" with ")
        names = () if row == "no technique" else (row,)
        if objective not in OBJECTIVES:
            objective, names = TABLES["CONSTRAINED"], (row, column)
        refusal, warnings = documented(objective, names, normalized=bool(normalized))
        assert cell == ("refused" if refusal else "warned" if warnings else "works"), (column, row)


@pytest.mark.parametrize("normalized", thinned([False, True], 2))
@pytest.mark.parametrize("objective", thinned(OBJECTIVES, 2))
def test_every_cell_does_what_the_page_says(objective: str, normalized: bool) -> None:
    """Refused with the documented line; or a step that works, and a loss that no constant lowers."""
    changes = {"discriminator": NORMALIZED} if normalized else {}
    num_working = 0
    # The pairs of the second table are with this objective; that they hold with others is computed, not trained.
    for names in SETS if objective == TABLES["CONSTRAINED"] and not normalized else SETS[: 1 + len(MAKE)]:
        refusal, warnings = documented(objective, names, normalized=normalized)
        if refusal is not None:
            with pytest.raises(ValueError) as raised:
                make(objective, names, **changes)
            assert str(raised.value) == refusal
            continue
        model = make(objective, names, **changes)
        assert list(model.warnings()) == warnings
        changed = training_step(model, make_updates(model), make_batch(SPEC, 4))
        for phase in model.phases():
            own = {id(parameter) for module in phase.modules for parameter in module.parameters()}
            moved = {id(model.get_parameter(name)) for name in changed[phase.name]}
            assert moved, (names, phase.name)
            assert moved <= own, (names, phase.name)
        assert all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters()), names
        if "weight_clipping" in names:
            assert largest_acting_weight(model) <= CLIPPED, names
        assert least_loss_with_a_constant(model) > -100, names  # label smoothing would gain a critic 200,000
        num_working += 1
    assert num_working >= 1


def largest_acting_weight(model: GAN) -> float:
    layers = [layer for layer in model.discriminator.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    return max(float(layer.weight.detach().abs().max()) for layer in layers)


def least_loss_with_a_constant(model: GAN) -> float:
    """The discriminator's loss with a million more, or less, for every image."""
    batch, losses = make_batch(SPEC, 4), []
    for constant in (-1e6, 1e6):
        with torch.no_grad():
            model.discriminator.output.bias.fill_(constant)
        losses.append(model.phases()[0].loss(batch).value.item())
    return min(losses)


def test_what_refuses_label_smoothing_is_the_loss_itself() -> None:
    """Smoothing by t leaves a critic (2 - 2 t) c of a constant c, and nothing at t = 1."""
    smoothed = LabelSmoothing(real_target=0.9).wrap(Wasserstein())
    scores = torch.zeros(3, dtype=torch.float64)
    assert smoothed.discriminator_loss(scores - 50, scores - 50).item() == pytest.approx(-50 * 0.2)
    assert smoothed.rewards_a_constant
    assert not LabelSmoothing(real_target=1.0).wrap(Wasserstein()).rewards_a_constant
    assert [name for name, objective in OBJECTIVES.items() if objective.needs_a_bounded_slope] == ["wasserstein"]
    assert not any(objective.rewards_a_constant for objective in OBJECTIVES.values())


# ---- the properties


def norms(model: GAN, images: Tensor) -> Tensor:
    points = images.clone().requires_grad_(True)
    empty = images.new_empty(len(images), 0)
    return gradient_norms(lambda x: model.discriminator(x, empty).outputs[:, 0], points).detach()


@pytest.mark.parametrize("name", [None, *(name for name in MAKE if "penalty" not in name)])
def test_a_penalty_is_of_the_gradient_of_each_image_alone(name: str | None) -> None:
    """Or the pair is refused: minibatch discrimination gives an image another slope in company."""
    images = torch.randn(6, 1, 4, 4)
    names = () if name is None else (name,)
    model = make("non_saturating", names)
    model.discriminator(images, images.new_empty(6, 0))  # spectral normalisation follows its weights in training
    model.eval()
    together = norms(model, images)
    alone = torch.cat([norms(model, image[None]) for image in images])
    is_alike = torch.allclose(together, alone, rtol=1e-4, atol=1e-6)
    refusal, _ = documented("non_saturating", ("gradient_penalty", *names))
    assert is_alike == (refusal is None)


def test_clipped_numbers_under_a_parametrisation_are_no_bound_of_the_weights_that_act() -> None:
    """They bound neither a matrix that is divided by its norm nor rows with a length of their own."""
    normalized = make("non_saturating", ("spectral_normalization",))
    WeightClipping(bound=0.01).project(normalized.discriminator)
    assert largest_acting_weight(normalized) > 0.1
    with_lengths = make("non_saturating", ("weight_normalization",))
    WeightClipping(bound=0.01).project(with_lengths.discriminator)
    assert largest_acting_weight(with_lengths) < 0.009


@pytest.mark.slow
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("name", [None, "weight_normalization", "spectral_normalization", "weight_clipping"])
def test_a_critic_runs_away_exactly_where_it_is_refused(name: str | None, normalized: bool) -> None:
    """Steps of the discriminator alone, on fixed images: a loss with a minimum stops falling."""
    names = () if name is None else (name,)
    network = functools.partial(NORMALIZED, normalization=BatchNorm2d if normalized else None)
    torch.manual_seed(0)
    # Made with an objective that refuses nothing, so that the refused ones can be watched.
    model = make_gan(SPEC, techniques={name: MAKE[name]() for name in names}, discriminator=network)
    model.objective = Wasserstein()
    update, _ = make_updates(model, lr=0.1, num_steps=100_000)
    images = make_batch(SPEC, 8)
    losses = torch.tensor([update.run(images)[0]["adversarial_score"].item() for _ in range(150)])
    before, after = losses[50:75].mean(), losses[-25:].mean()
    is_refused = documented("wasserstein", names, normalized=normalized)[0] is not None
    assert (after < 1.5 * before - 1) == is_refused, (before, after)


def test_a_generator_that_learns_from_features_hears_nothing_of_minibatch_discrimination() -> None:
    model = make("non_saturating", ("feature_matching", "minibatch_discrimination"))
    loss = model.phases()[1].loss(make_batch(SPEC, 4))
    (gradient,) = torch.autograd.grad(loss.value, model.discriminator.feature_layer.project.weight, allow_unused=True)
    assert gradient is None or not gradient.any()


# ---- techniques, objectives and networks of one's own


class OwnLayer(LayerTechnique):
    def rebuild(self, parts: Parts) -> None:
        parts.append_features(nn.Linear(parts.num_features, 4), num_features=4)


class OwnDeclaredLayer(OwnLayer):
    couples_images = False


class OwnTerm(TermTechnique):
    def discriminator_term(self, tensors: StepTensors) -> Loss:
        value = tensors.fake_output.outputs.square().mean()
        return Loss(value=value, metrics={"score_squared": value.detach()})


class OwnClipping(WeightTechnique):
    def project(self, discriminator: nn.Module) -> None:
        for parameter in discriminator.parameters():
            parameter.data.clamp_(-0.1, 0.1)


class OwnWeighting(ObjectiveTechnique):
    def wrap(self, objective: Objective) -> Objective:
        class Weighted(type(objective)):  # type: ignore[misc]
            def real(self, scores: Tensor) -> Tensor:
                return 2 * super().real(scores)

        return Weighted()


class Greedy(Hinge):
    """A mistake: the more real everything looks, the better."""

    def fake(self, scores: Tensor) -> Tensor:
        return -scores


def own(*techniques: Technique, objective: Objective | None = None, **changes: Any) -> GAN:
    named = {f"own_{index}": technique for index, technique in enumerate(techniques)}
    return make_gan(SPEC, objective=objective or NonSaturating(), techniques=named, **changes)


def trained(model: GAN) -> GAN:
    training_step(model, make_updates(model), make_batch(SPEC, 4))
    return model


def test_a_layer_that_declares_nothing_is_taken_for_one_that_couples_images() -> None:
    model = trained(own(OwnLayer()))
    assert model.couples_images
    assert model.discriminator.couples_batches
    assert not model.shardable()
    assert not model.warnings()
    (line,) = own(GradientPenalty(weight=10.0), OwnLayer()).warnings()
    assert line.endswith("own_1 does not declare whether it is: set couples_images on OwnLayer")
    declared = trained(own(GradientPenalty(weight=10.0), OwnDeclaredLayer()))
    assert not declared.couples_images
    assert not declared.warnings()


def test_a_term_that_declares_nothing_may_be_the_bound_that_a_critic_needs() -> None:
    (line,) = trained(own(OwnTerm(), objective=Wasserstein())).warnings()
    assert line.endswith("own_0 does not declare whether it does: set slope on OwnTerm")
    assert not trained(own(OwnTerm())).warnings()
    declared = OwnTerm()
    declared.slope = "free"
    with pytest.raises(ValueError, match="needs a technique that bounds the slope"):
        own(declared, objective=Wasserstein())
    declared.slope = "bounded"
    assert not own(declared, objective=Wasserstein()).warnings()


def test_weights_that_are_changed_in_place_and_parametrised_exclude_each_other_undeclared() -> None:
    for other in (
        WeightNormalization(direction_std=0.05, learns_scale=True),
        SpectralNormalization(num_power_iterations=1),
    ):
        with pytest.raises(ValueError, match="own_0 and own_1 exclude each other"):
            own(OwnClipping(), other)
    assert not trained(own(OwnClipping(), WeightClipping(bound=0.1))).warnings()


def test_what_a_technique_makes_of_an_objective_is_computed() -> None:
    assert not trained(own(OwnWeighting())).warnings()
    with pytest.raises(ValueError, match=r"model\.techniques\.own_1 needs an objective .* got Wasserstein"):
        own(WeightClipping(bound=0.1), OwnWeighting(), objective=Wasserstein())


def test_an_objective_that_declares_nothing_is_computed() -> None:
    for techniques in ((), (SpectralNormalization(num_power_iterations=1),)):
        assert not own(*techniques, objective=Relativistic()).warnings()
    with pytest.raises(ValueError, match=r"model\.objective must have a lower bound, got Greedy"):
        own(objective=Greedy())


class OwnNetwork(MLPDiscriminator):
    """With a layer, or a weight, of its own."""

    def __init__(self, *, change: Callable[[nn.Sequential], object], **settings: Any) -> None:
        super().__init__(**settings)
        change(self.layers)


class Compared(nn.Module):
    couples_images = True

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda layers: layers.append(Compared()), "Compared in the discriminator mixes a batch"),
        (lambda layers: layers.append(nn.BatchNorm1d(6)), "batch normalisation mixes a batch"),
        (lambda layers: layers.append(nn.SyncBatchNorm(6)), "batch normalisation mixes a batch"),
    ],
)
def test_layers_that_mix_a_batch_are_found_in_a_network_of_ones_own(
    change: Callable[[nn.Sequential], object], message: str
) -> None:
    network = functools.partial(OwnNetwork, change=change, **make_mlp_discriminator().keywords)
    with pytest.raises(ValueError, match=message):
        own(GradientPenalty(weight=10.0), discriminator=network)
    assert own(discriminator=network).discriminator.couples_batches


@pytest.mark.parametrize(
    "normalize",
    [
        nn.utils.parametrizations.spectral_norm,
        nn.utils.parametrizations.weight_norm,
        nn.utils.spectral_norm,
    ],
)
def test_weights_that_a_network_of_ones_own_parametrises_are_not_clipped(normalize: Callable[..., object]) -> None:
    network = functools.partial(
        OwnNetwork, change=lambda layers: normalize(layers[0]), **make_mlp_discriminator().keywords
    )
    for technique in (WeightClipping(bound=0.1), WeightNormalization(direction_std=0.05, learns_scale=True)):
        with pytest.raises(ValueError, match="needs weights that act as they are stored"):
            own(technique, discriminator=network)


def test_several_layer_techniques_stand_one_behind_the_other() -> None:
    discrimination = MAKE["minibatch_discrimination"]
    model = trained(own(OwnLayer(), discrimination(), discrimination()))
    assert model.discriminator.output.in_features == 4 + 3 + 3


# ---- in a run


@pytest.mark.slow
def test_a_run_warns_once_and_a_refused_one_ends_with_one_line(
    genlab: Genlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = ("train", "trainer=smoke", "num_threads=1", "model=gan", "trainer.num_steps=1", "trainer.sample_interval=0")
    outcome = genlab(*tiny, "technique=[gradient_penalty,weight_clipping]", "hydra.run.dir=run")
    line = "model.techniques: gradient_penalty asks for a slope of one, which weight_clipping may put out of reach"
    assert outcome.code == 0
    assert (outcome.output + outcome.errors).count(line) == 1
    assert (tmp_path / "run" / "train.log").read_text().count(line) == 1
    outcome = genlab(*tiny, "model/objective=wasserstein")
    outcome.assert_error(2, "model.objective Wasserstein needs a technique that bounds the slope of the scores")
