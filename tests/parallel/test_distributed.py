"""Several processes train as one: the same losses, the same weights, one run folder."""

import json
import math
import os
import signal
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

import genlab.train
from benchmarks.composed import configuration_of
from genlab.config.schema import RunConfiguration
from genlab.errors import ConfigurationError, StoppedBySignal
from genlab.parallel.collectives import alone as processes_alone
from genlab.parallel.collectives import rank, same_draws
from genlab.parallel.processes import own_device
from genlab.parallel.sharding import is_share, whole
from genlab.training.optimization import PhaseUpdate
from genlab.training.trainer import Trainer
from genlab.types import Batch, Loss, Phase
from tests.pair import NUM_PROCESSES, Pair
from tests.thinning import thinned
from tests.training.conftest import TinyGAN, cosine, make_settings, make_trainer

COMMON = (
    *("dataset.size=8", "device=cpu", "num_threads=1", "recipe=none", "trainer.batch_size=8", "trainer.num_steps=5"),
    *("trainer.log_interval=1", "trainer.checkpoint_interval=0", "trainer.sample_interval=0"),
    *("trainer.validation_interval=5", "trainer.validation_images=30", "trainer.ema_decay=0.9"),
    *("trainer.test_at_end=false", "trainer.precision=float32"),
    *("schedule=constant", "optimizer=sgd", "optimizer.default.lr=0.01"),
)
SMALL_NETWORKS = ("model.generator.channels=4", "model.discriminator.channels=4")
FAMILIES = {
    "draw": (
        *("model=draw", "model.num_glimpses=2", "model.num_units=8", "dataset=digits_grey"),
        *("dataset.binarization=stochastic", "trainer.gradient_accumulation=2", "trainer.max_gradient_norm=1"),
    ),
    "gated_pixelcnn": ("model=gated_pixelcnn", "model.num_layers=2", "model.channels=4", "model.dropout=0.5"),
    "dcgan": (
        *("model=dcgan", "model.pack=2", "technique=[adaptive_augment]"),
        *("model.techniques.adaptive_augment.images_to_one=100", *SMALL_NETWORKS),
    ),
    "improved_gan": ("model=improved_gan", "technique=[feature_matching,historical_averaging]", *SMALL_NETWORKS),
    "wgan_gp": ("model=wgan_gp", "model.n_critic=2", "technique=[diff_augment,r1_penalty,r2_penalty]", *SMALL_NETWORKS),
    "projection_gan": ("model=projection_gan", "model.n_critic=2", *SMALL_NETWORKS),
    "acgan": ("model=acgan", *SMALL_NETWORKS),
    "infogan": (  # Adam divides by gradients that its own start and sigmoid leave near the rounding
        *("model=infogan", "model/output=tanh", "model.generator.channels=4", "model.generator.weight_std=null"),
        *("model.discriminator.channels=4", "model.discriminator.num_hidden=16"),
    ),
    "semi_supervised_gan": (
        *("model=semi_supervised_gan", "model.generator.hidden=[16,16]", "model.discriminator.hidden=[16,16,16]"),
        "trainer.labelled_fraction=0.5",
    ),
    "classifier": ("model=classifier", "model.width=4", "model.num_features=16", "dataset=digits_few_labels"),
}


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The results of one process at the end of a run."""

    curves: dict[str, list[float]]
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    has_shares: bool
    """True if this process trained a share of every parameter."""


def configuration(*arguments: str) -> RunConfiguration:
    return configuration_of(*COMMON, *arguments)


def train(folder: Path, arguments: tuple[str, ...], patches: dict[str, Any], resumes: bool = False) -> Trained:
    """Train in a folder, with some names replaced."""
    folder.mkdir(exist_ok=True)
    kept: list[Trainer] = []

    class Kept(Trainer):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            kept.append(self)

    with ExitStack() as stack:
        for name, value in ({"genlab.train.Trainer": Kept} | patches).items():
            stack.enter_context(mock.patch(name, value))
        settings = replace(configuration(*arguments), resume=str(folder) if resumes else None)
        genlab.train.train(settings, folder, command="a test")
    curves: dict[str, list[float]] = {}
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        for tag, value in json.loads(line).items():
            curves.setdefault(tag, []).append(math.nan if value is None else value)
    average = kept[0].state.average
    assert average is not None
    weights = whole(kept[0].model.state_dict())
    return Trained(
        curves=curves,
        weights=weights,
        average=whole(average.state_dict()),
        has_shares=all(is_share(parameter) for parameter in kept[0].model.parameters()),
    )


def largest_difference(ours: Trained, theirs: Trained) -> float:
    """Return the largest difference of all curves but time, relative to the curve's scale, and of all weights."""
    tags = [tag for tag in theirs.curves if tag.startswith(("train/", "validation/"))]
    assert ours.curves.keys() == theirs.curves.keys()
    assert len(tags) > 2
    differences = []
    for tag in tags:
        one, other = torch.tensor(ours.curves[tag]).double(), torch.tensor(theirs.curves[tag]).double()
        if not torch.equal(one.isnan(), other.isnan()):  # a step without labels has no error
            return math.inf
        one, other = one.nan_to_num(), other.nan_to_num()
        differences.append(float((one - other).abs().max() / other.abs().max().clamp_min(1e-2)))
    for name, value in theirs.weights.items():
        scale = value.double().abs().max().clamp_min(1e-2)
        differences.append(float((ours.weights[name].double() - value.double()).abs().max() / scale))
    return max(differences)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """Return the run of each family in one process, made once."""
    return cache(lambda family: train(tmp_path_factory.mktemp(family), FAMILIES[family], {}))


@pytest.fixture(scope="module")
def together(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Trained]]:
    """Return the run of each family in two processes, made once, as each of them sees it."""
    return cache(lambda family: pair.run(train, tmp_path_factory.mktemp(family), FAMILIES[family], {}))


TOLERANCE = 1e-4
"""Of float32 and five steps; the largest difference seen is 1e-5, of batch normalisation over few images."""


@pytest.mark.parametrize("family", thinned(FAMILIES, len(FAMILIES)))
def test_two_processes_train_as_one(
    family: str, together: Callable[[str], list[Trained]], alone: Callable[[str], Trained]
) -> None:
    runs = together(family)
    assert largest_difference(runs[0], alone(family)) < TOLERANCE
    for name, value in runs[0].weights.items():
        assert torch.equal(value, runs[1].weights[name]), name
    for name, value in runs[0].average.items():
        assert torch.equal(value, runs[1].average[name]), name


def draw_for_itself(draw: Callable[[int], Tensor], num_rows: int, *, dim: int = 0) -> Tensor:
    del dim
    return draw(num_rows)


def leave(values: Any) -> Any:
    return values


WRONG = {
    "noise of each process": ("draw", {"genlab.models.draw.draw.draw_rows": draw_for_itself}),
    "batch statistics of each process": ("dcgan", {"genlab.training.trainer.synchronize_layers": leave}),
    "gradients of each process": ("draw", {"genlab.training.optimization.average": leave}),
    "dropout of each process": ("gated_pixelcnn", {"genlab.training.trainer.synchronize_layers": leave}),
    "distances to the images of each process": (
        "improved_gan",
        {"genlab.models.gan.techniques.minibatch_discrimination.gather_rows": leave},
    ),
    "features matched in each process": (
        "semi_supervised_gan",
        {"genlab.models.gan.techniques.feature_matching.mean_over_processes": leave},
    ),
    "labelled images counted in each process": (
        "classifier",
        {"genlab.models.classification.mean_over_processes": leave},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_would_be_noticed(mistake: str, pair: Pair, alone: Callable[[str], Trained], tmp_path: Path) -> None:
    family, patches = WRONG[mistake]
    runs = pair.run(train, tmp_path / "two", FAMILIES[family], patches)
    assert largest_difference(runs[0], alone(family)) > 10 * TOLERANCE


class UsersModel(TinyGAN):
    """A model that is unaware of processes except for one collective."""

    def __init__(self) -> None:
        super().__init__()
        self.noise: list[Tensor] = []
        self.order: list[Tensor] = []

    def discriminator_loss(self, batch: Batch) -> Loss:
        noise = torch.randn_like(batch.images)
        with same_draws():
            order = torch.randperm(16)
        self.noise.append(noise)
        self.order.append(order)
        images = (batch.images + 0.1 * noise).flatten(1)[:, order].view_as(batch.images)
        return super().discriminator_loss(Batch(images=images, labels=batch.labels))


def train_users_model(folder: Path) -> tuple[list[Tensor], list[Tensor], dict[str, Tensor]]:
    folder.mkdir(exist_ok=True)
    model = UsersModel()
    make_trainer(folder, model, num_steps=3, validation_interval=0, test_at_end=False).fit(resume=False)
    return model.noise, model.order, model.state_dict()


def frozen_weight_after_an_update() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    frozen, trained = nn.Linear(4, 4).requires_grad_(False), nn.Linear(4, 4)
    before = frozen.weight.clone()

    def loss(batch: Batch) -> Loss:
        return Loss(value=trained(frozen(batch.images.flatten(1))).square().mean(), metrics={})

    phase = Phase(name="only", modules=(frozen, trained), loss=loss)
    decaying = partial(torch.optim.AdamW, lr=0.1, weight_decay=0.5)
    cpu = torch.device("cpu")
    update = PhaseUpdate(phase, optimizer=decaying, schedule=cosine, settings=make_settings(), device=cpu)
    update.run(Batch(images=torch.ones(8, 1, 2, 2), labels=torch.full((8,), -1)))
    return before, frozen.weight


def test_frozen_weights_do_not_decay(pair: Pair) -> None:
    for before, after in pair.run(frozen_weight_after_an_update):
        assert torch.equal(before, after)


def test_the_noise_of_a_users_model_differs_between_processes(pair: Pair, tmp_path: Path) -> None:
    runs = pair.run(train_users_model, tmp_path / "run")
    noise = [*runs[0][0], *runs[1][0]]
    assert len(noise) == 2 * 3 * 2  # processes, steps, repeats of the phase
    assert all(not torch.equal(one, other) for index, one in enumerate(noise) for other in noise[:index])
    assert all(torch.equal(one, other) for one, other in zip(runs[0][1], runs[1][1], strict=True))
    for name, value in runs[0][2].items():
        assert torch.equal(value, runs[1][2][name]), name
    again = pair.run(train_users_model, tmp_path / "again")
    assert all(torch.equal(value, again[1][2][name]) for name, value in runs[0][2].items())


SHORT = ("trainer.num_steps=3", "trainer.validation_interval=0")


def test_resume_in_the_same_processes_is_bitwise(
    pair: Pair, together: Callable[[str], list[Trained]], tmp_path: Path
) -> None:
    undisturbed = together("draw")[1]
    pair.run(train, tmp_path / "cut", (*FAMILIES["draw"], *SHORT), {})
    resumed = pair.run(train, tmp_path / "cut", FAMILIES["draw"], {}, True)[1]
    for name, value in undisturbed.weights.items():
        assert torch.equal(value, resumed.weights[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("from_two", [True, False])
def test_another_number_of_processes_resumes_with_a_warning(
    from_two: bool,
    pair: Pair,
    alone: Callable[[str], Trained],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    arguments = FAMILIES["draw"]
    if from_two:
        pair.run(train, tmp_path / "run", (*arguments, *SHORT), {})
        caplog.clear()
        resumed = train(tmp_path / "run", arguments, {}, resumes=True)
        assert "a run with 2 processes, now 1: the results" in caplog.text
        assert "no longer bitwise" in caplog.text
    else:
        train(tmp_path / "run", (*arguments, *SHORT), {})
        resumed = pair.run(train, tmp_path / "run", arguments, {}, True)[0]
    assert largest_difference(resumed, alone("draw")) < TOLERANCE


def devices_of(name: str) -> tuple[str, str]:
    """Return the device of this process for a run on a named device, and for a training of its own within the run."""
    with mock.patch("torch.cuda.device_count", return_value=NUM_PROCESSES), mock.patch("torch.cuda.set_device"):
        own = own_device(torch.device(name))
        with processes_alone():
            return str(own), str(own_device(own))


def test_a_training_within_a_run_keeps_the_device_of_its_process(pair: Pair) -> None:
    assert pair.run(devices_of, "cuda") == [("cuda:0", "cuda:0"), ("cuda:1", "cuda:1")]
    assert pair.run(devices_of, "cpu") == [("cpu", "cpu")] * NUM_PROCESSES


def stopped_by_signal(folder: Path, arguments: tuple[str, ...], rank_of_signal: int) -> tuple[int | None, int]:
    """Train while one process gets SIGTERM after its second step; return the exception and the step."""
    folder.mkdir(exist_ok=True)
    kept: list[Trainer] = []

    class Signalled(Trainer):
        def _training_step(self) -> None:
            kept[:] = [self]
            super()._training_step()
            if self.step == 1 and rank() == rank_of_signal:
                os.kill(os.getpid(), signal.SIGTERM)

    with mock.patch("genlab.train.Trainer", Signalled):
        try:
            genlab.train.train(configuration(*arguments), folder, command="a test")
        except StoppedBySignal as stop:
            return stop.exit_code, kept[0].step
    return None, kept[0].step


def test_a_signal_to_one_process_stops_all_at_the_same_step(pair: Pair, tmp_path: Path) -> None:
    assert pair.run(stopped_by_signal, tmp_path / "run", FAMILIES["draw"], 1) == [(143, 2)] * NUM_PROCESSES
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert (summary["status"], summary["step"]) == ("interrupted", 2)


def refusal(arguments: tuple[str, ...], folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    try:
        genlab.train.train(configuration(*arguments), folder, command="a test")
    except ConfigurationError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("arguments", "reason"),
    thinned(
        [
            ((*FAMILIES["draw"], "trainer.batch_size=6"), "trainer.batch_size must be a multiple of 4"),
            ((*FAMILIES["semi_supervised_gan"], "trainer.labelled_fraction=0.4"), "trainer.labelled_fraction"),
            ((*FAMILIES["semi_supervised_gan"], "trainer.labelled_fraction=null"), "trainer.labelled_fraction"),
        ],
        3,
    ),
)
def test_unequal_shares_are_refused(arguments: tuple[str, ...], reason: str, pair: Pair, tmp_path: Path) -> None:
    for told in pair.run(refusal, arguments, tmp_path / "run"):
        assert told.startswith(reason) or (reason in told and "equally many" in told)


@pytest.mark.slow
def test_only_the_first_process_writes(pair: Pair, tmp_path: Path) -> None:
    arguments = (*FAMILIES["draw"], "trainer.sample_interval=5", "trainer.test_at_end=true")
    pair.run(train, tmp_path / "run", arguments, {})
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert len([name for name in names if name.startswith("events.")]) == 1
    lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == [1, 2, 3, 4, 5, 5, 5]  # each step, the validation and the test


SHARDED = {
    "gan": ("model=gan", "model.generator.hidden=[16,16]", "model.discriminator.hidden=[16,16,16]"),
    "dcgan": FAMILIES["dcgan"],
    "gated_pixelcnn": (*FAMILIES["gated_pixelcnn"], "trainer.max_gradient_norm=1", "optimizer=adam"),
    "pixelcnn_pp": ("model=pixelcnn_pp", "model.filters=4", "model.blocks_down=[1,1]"),
    "classifier": FAMILIES["classifier"],
    "infogan": FAMILIES["infogan"],
    "improved_gan": ("model=improved_gan", "technique=feature_matching", *SMALL_NETWORKS),
}


@pytest.mark.slow
@pytest.mark.parametrize("family", SHARDED)
def test_sharded_weights_train_as_whole_ones(family: str, pair: Pair, tmp_path: Path) -> None:
    reference = train(tmp_path / "one", SHARDED[family], {})
    arguments = (*SHARDED[family], "trainer.sharding=fsdp2", "trainer.sample_interval=5")
    pair.run(train, tmp_path / "two", (*arguments, *SHORT), {})
    resumed = pair.run(train, tmp_path / "two", arguments, {}, True)
    assert resumed[0].has_shares
    assert not reference.has_shares
    assert largest_difference(resumed[0], reference) < TOLERANCE
    for name, value in resumed[0].average.items():
        assert torch.equal(value, resumed[1].average[name]), name
    alone_again = train(tmp_path / "two", (*SHARDED[family], "trainer.num_steps=6"), {}, resumes=True)
    assert alone_again.curves["step"][-1] == 6


def warned(folder: Path, is_ours: bool) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        patches = {} if is_ours else {"genlab.parallel.sharding._OURS": "of somebody else"}
        train(folder, (*SHARDED["gan"], *SHORT, "trainer.sharding=fsdp2"), patches)
    return [str(warning.message) for warning in caught if "view tensor" in str(warning.message)]


@pytest.mark.parametrize("is_ours", thinned([True, False], 2))
def test_a_warning_of_what_no_loss_of_ours_does_is_kept_for_those_of_others(
    is_ours: bool, pair: Pair, tmp_path: Path
) -> None:
    assert all((told == []) == is_ours for told in pair.run(warned, tmp_path / "run", is_ours))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    thinned(
        [
            (FAMILIES["draw"], "trainer.sharding must be none for DRAW"),
            (FAMILIES["wgan_gp"], "trainer.sharding must be none for GAN"),
            ((*FAMILIES["dcgan"], "trainer.precision=float16"), "trainer.precision"),
        ],
        3,
    ),
)
def test_what_cannot_be_sharded_is_refused(arguments: tuple[str, ...], reason: str, pair: Pair, tmp_path: Path) -> None:
    for told in pair.run(refusal, (*arguments, "trainer.sharding=fsdp2"), tmp_path / "run"):
        assert told.startswith(reason)


def test_one_process_has_nothing_to_shard(tmp_path: Path) -> None:
    assert "in one process" in refusal((*FAMILIES["dcgan"], "trainer.sharding=fsdp2"), tmp_path / "run")
