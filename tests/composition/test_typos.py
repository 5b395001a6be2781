"""A mistake on the command line costs one line with the way out, exit code 2, and no folder."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Outcome

Genlab = Callable[..., Outcome]

TYPOS = [
    (["trian"], "train"),
    (["train", "model=drw"], "draw"),
    (["train", "modle=draw"], "model"),
    (["train", "dataset=digitz"], "digits"),
    (["train", "experiment=draw_mnits"], "draw_mnist"),
    (["train", "recipe=drw"], "draw"),
    (["train", "sede=1"], "seed"),
    (["train", "devise=cpu"], "device"),
    (["train", "devices=2"], "trainer.devices"),
    (["train", "lr=1e-3"], "optimizer.default.lr"),
    (["train", "trainer.num_step=3"], "trainer.num_steps"),
    (["train", "model.red_size=3"], "model.read_size"),
    (["train", "optimizer.default.lrr=1"], "optimizer.default.lr"),
    (["train", "optimizer.defualt.lr=1e-3"], "optimizer.default"),
    (["train", "model=gan", "technique=[spectral_normalisation]"], "spectral_normalization"),
    (["train", "model=gan", "technique=[label_smoothing,gradient_panelty]"], "gradient_penalty"),
    (["train", "schedule.warmup=0.3"], "schedule.warmup_fraction"),
    (["train", "+sed=1"], "seed"),
    (["train", "++trainer.batchsize=3"], "batch_size"),
    (["train", "+model.num_glimpse=3"], "num_glimpses"),
    (["train", "trainer.precision=float23"], "float32"),
    (["train", "model.initial_canvas=zeros"], "zero"),
    (["train", "hydra.rn.dir=x"], "hydra.run.dir"),
    (["train", "--confg-dir", "x"], "--config-dir"),
    (["train", "-m", "model=draw,drw"], "draw"),
    (["train", "model=drw", "--cfg", "job"], "draw"),
    (["train", "dataset=mnist", "dataset.rot=x"], "dataset.root"),
    (["board", "foldre=x"], "folder"),
    (["datasets", "mnits"], "mnist"),
    (["datasets", "digits", "dataset.sise=8"], "dataset.size"),
]


@pytest.mark.parametrize(("words", "suggestion"), TYPOS, ids=[" ".join(words) for words, _ in TYPOS])
def test_a_typo_is_answered_with_the_nearest_name(
    genlab: Genlab, tmp_path: Path, words: list[str], suggestion: str
) -> None:
    outcome = genlab(*words)
    assert outcome.code == 2
    assert len(outcome.errors.splitlines()) == 1, outcome.errors
    assert f"did you mean '{suggestion}'?" in outcome.errors
    assert list(tmp_path.iterdir()) == []


def test_a_group_of_another_command_is_no_key_of_this_one(genlab: Genlab) -> None:
    outcome = genlab("check", "optimizer=adam")
    assert outcome.code == 2
    assert "optimizer is not a key of genlab check; keys: channels," in outcome.errors
    assert "optimizer is not a key" in genlab("check", "optimizer=adam", "schedule=linear").errors
    assert outcome.errors.endswith("genlab check --cfg job shows all of them\n")


OUT_OF_RANGE = [
    ("optimizer.default.lr=-1", "optimizer.default.lr must be positive, got -1"),
    ("optimizer.default.lr=0", "optimizer.default.lr must be positive, got 0"),
    ("optimizer.default.lr=nan", "optimizer.default.lr must be finite, got nan"),
    ("optimizer.default.lr=inf", "optimizer.default.lr must be finite, got inf"),
    ("optimizer.default.betas=[0.9,1.5]", "optimizer.default"),
    ("optimizer.default.betas=0.9", "optimizer.default.betas must be a list"),
    ("schedule.warmup_fraction=2", "schedule.warmup_fraction must be between 0 and 1, got 2"),
    ("trainer.batch_size=0", "trainer.batch_size must be at least 1, got 0"),
    ("trainer.num_steps=-1", "trainer.num_steps must be 0 or more, got -1"),
    ("trainer.num_steps=true", "trainer.num_steps must be a whole number, got True"),
    ("trainer.num_steps=2.5", "trainer.num_steps must be a whole number, got 2.5"),
    ("trainer.max_minutes=.nan", "trainer.max_minutes must be"),
    ("seed=-1", "seed must be between 0 and"),
    ("device=gpu", "device must be auto, cpu, cuda, cuda:N or mps, got gpu"),
    ("num_threads=0", "num_threads must be null or at least 1, got 0"),
    ("model.read_size=wide", "model.read_size must be a whole number or null, got 'wide'"),
    ("model.num_glimpses=[1,2]", "model.num_glimpses must be a whole number"),
    ("model.spec=1", "model.spec"),
    ("dataset=mnist\x00", "dataset"),
    ("seed", "an override must be key=value, got 'seed'"),
    ("dataset.root=ünï", "quote it"),
]


@pytest.mark.parametrize(("override", "message"), OUT_OF_RANGE, ids=[override for override, _ in OUT_OF_RANGE])
def test_a_value_out_of_its_range_is_refused_before_a_folder_is_made(
    genlab: Genlab, tmp_path: Path, override: str, message: str
) -> None:
    outcome = genlab("train", override)
    assert outcome.code == 2
    assert len(outcome.errors.splitlines()) == 1, outcome.errors
    assert message in outcome.errors
    assert list(tmp_path.iterdir()) == []


LATE = [
    ("model.read_size=40", "model.read_size must be between 1 and"),
    ("optimizer.discriminator.lr=1e-3", "the model has no phase 'discriminator'"),
]


@pytest.mark.parametrize(("override", "message"), LATE)
def test_a_mistake_that_only_the_data_or_the_model_reveal_leaves_no_folder_either(
    genlab: Genlab, tmp_path: Path, override: str, message: str
) -> None:
    outcome = genlab("train", override, "dataset.size=8")
    assert outcome.code == 2
    assert message in outcome.errors.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


TWICE = [
    (["export", "a", "b"], "one run must be given, got a and b; did you mean out=b?"),
    (["sample", "a", "--cfg", "job", "b"], "one run must be given, got a and b; did you mean out=b?"),
    (["evaluate", "a", "b"], "one run must be given, got a and b; did you mean out=b?"),
    (["datasets", "digits", "mnist"], "one dataset must be given, got digits and mnist"),
    (["sample", "run=a", "run=b"], "run is given twice on the line: a and b"),
    (["sample", "a", "run=b"], "run is given twice on the line: a and b"),
]


@pytest.mark.parametrize(("words", "message"), TWICE, ids=[" ".join(words) for words, _ in TWICE])
def test_of_two_runs_none_is_dropped_in_silence(genlab: Genlab, tmp_path: Path, words: list[str], message: str) -> None:
    outcome = genlab(*words)
    assert (outcome.code, outcome.errors) == (2, f"genlab: error: {message}\n")
    assert list(tmp_path.iterdir()) == []


def test_the_last_of_two_settings_counts_as_in_any_hydra_program(genlab: Genlab) -> None:
    outcome = genlab("train", "seed=3", "seed=4", "--cfg", "job")
    assert (outcome.code, outcome.errors) == (0, "")
    assert "seed: 4" in outcome.output
