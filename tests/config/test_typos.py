"""A mistake on the command line costs one line with a hint, exit code 2, and no folder."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from genlab.config.compose import Composer, dotted_keys, open_composer, unresolved
from genlab.config.location import config_directory
from genlab.config.naming import register_resolvers
from genlab.config.suggestions import ELSEWHERE as ELSEWHERE_HERE
from genlab.config.suggestions import spelled_elsewhere
from genlab.errors import ConfigurationError
from genlab.launch.advice import UnknownFlagError, require_settings
from tests.conftest import Genlab
from tests.thinning import slow, thinned

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
    (["train", "hydra.run.dri=x"], "hydra.run.dir"),
    (["train", "--confg-dir", "x"], "--config-dir"),
    (["train", "-m", "model=draw,drw"], "draw"),
    (["train", "model=drw", "--cfg", "job"], "draw"),
    (["train", "dataset=mnist", "dataset.rot=x"], "dataset.root"),
    (["board", "foldre=x"], "folder"),
    (["datasets", "mnits"], "mnist"),
    (["datasets", "digits", "dataset.sise=8"], "dataset.size"),
]


# As people write who come from other tools; what they should have written.
ELSEWHERE = [
    (["train", "trainer.epochs=3"], "trainer.num_epochs"),
    (["train", "--epochs", "3"], "trainer.num_epochs=3"),
    (["train", "--seed", "3"], "seed=3"),
    (["train", "--batch-size", "32"], "trainer.batch_size=32"),
    (["train", "-lr", "1e-3"], "optimizer.default.lr=1e-3"),
    (["train", "--gpus", "2"], "trainer.devices=2"),
    (["train", "--cuda"], "device=cuda"),
    (["train", "fp16=true"], "trainer.precision=float16"),
    (["train", "trainer.precision=bf16"], "bfloat16"),
    (["train", "device=gpu"], "cuda"),
    (["train", "--trainer.num_steps=3"], "trainer.num_steps=3"),
    (["train", "--resume", "R"], "resume=R"),
    (["train", "--data-dir", "x"], "dataset=folder dataset.root=FOLDER"),
    (["train", "techniques=[label_smoothing]"], "technique"),
    (["train", "draw"], "model=draw"),
    (["train", "dcgan", "seed=3", "mnist"], "model=dcgan dataset=mnist"),
    (["train", "model", "draw"], "model=draw"),
    (["train", "model", "=", "draw"], "model=draw"),
    (["train", "help"], "genlab train --help"),
    (["train", "model.read_size=[3,8"], "model.read_size=[3,8]"),
    (
        ["train", "technique=[label_smoothing,", "historical_averaging]"],
        '"technique=[label_smoothing, historical_averaging]"',
    ),
    (["sample", "--num-samples", "3", "run=x"], "num_samples=3"),
    (["compare", "--htlm"], "--html"),
    (["draw"], "genlab train model=draw"),
    (["model=draw"], "genlab train model=draw"),
    (["-m", "seed=0,1"], "genlab train -m seed=0,1"),
    (["resume", "R"], "genlab train resume=RUN"),
]


BOTH = [*TYPOS, *ELSEWHERE]


@pytest.mark.parametrize(("words", "suggestion"), thinned(BOTH, 6), ids=[" ".join(words) for words, _ in BOTH])
def test_a_typo_and_a_line_as_other_tools_take_it_are_answered_with_what_works(
    genlab: Genlab, tmp_path: Path, words: list[str], suggestion: str
) -> None:
    genlab(*words).assert_error(2, f"did you mean '{suggestion}'?")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["trainer=base"], "trainer has no option 'base'; options: default, gpu, paper, smoke"),
        (["model=dcgan", "model.num_glimpses=4"], "model=dcgan has no key num_glimpses; its keys: conditioning, "),
        (
            ["technique=[minibatch_discrimination]"],
            "model.techniques (technique=NAME, for GANs) is not an argument of DRAW",
        ),
        (["optimizer.default.weight_decay=0.1"], "; +optimizer.default.weight_decay=VALUE passes another argument"),
        (["model.target=4"], "model=draw has no key target; its keys: forget_bias, "),
        (["dataset.gizmo=4"], "dataset=digits has no key gizmo; its keys: binarization, "),
    ],
)
def test_a_key_that_is_near_none_is_answered_with_those_beside_it(genlab: Genlab, words: list[str], told: str) -> None:
    outcome = genlab("train", *words)
    outcome.assert_error(2, told)
    assert "did you mean" not in outcome.errors


@pytest.fixture(name="composer", scope="module")
def composer_of_training() -> Iterator[Composer]:
    register_resolvers()
    with open_composer("train", config_dir=None) as opened:
        yield opened


FLAGS = [
    ("-e", "3", "trainer.num_epochs=3"),
    ("--max-steps=3", None, "trainer.num_steps=3"),
    ("--lr", "1e-3", "optimizer.default.lr=1e-3"),
    ("--model", "draw", "model=draw"),
    ("--resume=R", None, "resume=R"),
    ("--output-dir", "x", "hydra.run.dir=x"),
    ("--amp", None, "trainer.precision=bfloat16"),
    ("--confg-dir", "x", "--config-dir"),
    ("--sede", "3", "seed=3"),
]


@pytest.mark.parametrize(("word", "value", "meant"), FLAGS, ids=[word for word, _, _ in FLAGS])
def test_a_flag_is_answered_with_the_setting(composer: Composer, word: str, value: str | None, meant: str) -> None:
    error = UnknownFlagError(word, value, ["--config-dir", "--help"]).advised(composer, "train")
    assert f"did you mean '{meant}'?" in str(error)


WORDS = [
    ("drw", "model=draw"),
    ("draw_mnist_quick", "experiment=draw_mnist_quick"),
    ("label_smoothing", "technique=[label_smoothing]"),
    ("model= draw", "model=draw"),
    ("lr 1e-3 mnist", "optimizer.default.lr=1e-3 dataset=mnist"),
    ("trainer.num_steps", "trainer.num_steps=..."),
]


@pytest.mark.parametrize(("line", "meant"), WORDS, ids=[line for line, _ in WORDS])
def test_words_are_answered_with_the_settings_that_they_stand_for(composer: Composer, line: str, meant: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(f"did you mean '{meant}'?")):
        require_settings(line.split(), composer, "train")


def test_every_setting_that_other_tools_call_otherwise_exists(composer: Composer) -> None:
    keys = {*composer.keys(), "hydra.run.dir"}
    for model in ("model=gan", "dataset=mnist", "dataset=folder", "optimizer=adamw"):
        composed = composer.compose([model])
        keys |= {*dotted_keys(unresolved(composed))}
        keys |= {*map(str, composed.hydra.runtime.choices)}
    for command in ("sample", "evaluate", "export", "doctor"):
        keys |= set(yaml.safe_load((config_directory() / f"{command}.yaml").read_text()))
    for settings, _ in ELSEWHERE_HERE:
        for setting in settings:
            assert setting.partition("=")[0] in keys, setting
    assert spelled_elsewhere("trainer.Learning-Rate", keys) == "optimizer.default.lr"
    assert spelled_elsewhere("learning_rate", {"seed"}) is None


AS_WRITTEN = [
    ("trainer.num_steps=1e3", "must be a whole number, got 1000.0; write 1000"),
    ("trainer.batch_size=32.0", "must be a whole number, got 32.0; write 32"),
    ("trainer.ema_decay=None", "must be a number or null, got 'None'; write null"),
    ("trainer.compile=yes", "must be auto or true or false, got 'yes'; write true"),
    ("trainer.compile=aut", "has no choice 'aut'; did you mean 'auto'? (choices: auto, false, true)"),
    ("num_threads=two", "num_threads must be a whole number or auto or null, got 'two'"),
    ("seed=null", "seed must be a whole number, got null\n"),
    ("dataset.classes=x", "dataset.classes must be null or a list, each a whole number, got 'x'"),
    ("model.observation=3", "model.observation must be a node of keys and values or null, got 3"),
    ("optimizer.default.lr=high", "optimizer.default.lr must be a number, got 'high'"),
    ("seed=0,1", "seed has several values, got 0,1; add -m for a run of each"),
    ("trainer.precision=float32,float16", "got float32,float16; add -m for a run of each\n"),
    (
        "dataset.classes=0,1",
        "dataset.classes has several values, got 0,1; add -m for a run of each, or write [0,1] for a list",
    ),
]


@pytest.mark.parametrize(("override", "message"), thinned(AS_WRITTEN, 3), ids=[override for override, _ in AS_WRITTEN])
def test_a_value_in_another_notation_is_answered_with_ours(genlab: Genlab, override: str, message: str) -> None:
    outcome = genlab("train", override)
    assert (outcome.code, len(outcome.errors.splitlines())) == (2, 1), outcome.errors
    assert message in outcome.errors


def test_an_experiment_without_its_package_says_which_line_is_missing(genlab: Genlab, tmp_path: Path) -> None:
    file = tmp_path / "mine" / "experiment" / "own.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("trainer:\n  num_steps: 3\n")
    outcome = genlab("train", "--config-dir", "mine", "experiment=own")
    outcome.assert_error(2, "experiment/own.yaml must begin with the line '# @package _global_'")


def test_the_version_is_ours_wherever_it_stands(genlab: Genlab) -> None:
    ours = genlab("--version").output
    for words in (["train", "--version"], ["sample", "-V"], ["train", "model=draw", "--help", "--version"]):
        assert genlab(*words).output == ours


@pytest.mark.slow
def test_help_is_that_of_the_command_wherever_it_stands(genlab: Genlab) -> None:
    asked = genlab("help", "sample").output
    assert asked.startswith("genlab sample RUN")
    assert genlab("--help", "sample").output == asked == genlab("sample", "RUN", "--help").output


def test_a_folder_that_is_named_like_a_setting_is_a_run_where_none_is_named(genlab: Genlab, tmp_path: Path) -> None:
    (tmp_path / "b=1").mkdir()
    (tmp_path / "seed=1").mkdir()
    assert "there is no run in b=1" in genlab("sample", "b=1").errors
    assert "there is no run in x" in genlab("sample", "x", "seed=1").errors
    assert "there is no run in x" in genlab("sample", "run=x", "seed=1").errors


def test_a_path_inside_a_run_is_answered_with_the_run(genlab: Genlab, tmp_path: Path) -> None:
    run = tmp_path / "elsewhere" / "run"
    (run / "checkpoints").mkdir(parents=True)
    for name in ("config.yaml", "checkpoints/last.safetensors"):
        (run / name).touch()
    for inside, words in (
        ("checkpoints/last.safetensors", ["train", f"resume={run}/checkpoints/last.safetensors"]),
        ("checkpoints", ["sample", f"run={run}/checkpoints"]),
        ("config.yaml", ["export", f"{run}/config.yaml"]),
    ):
        genlab(*words).assert_error(2, f"a run is named by its folder, got {run / inside} in it; did you mean '{run}'?")


def test_a_group_of_another_command_is_no_key_of_this_one(genlab: Genlab) -> None:
    outcome = genlab("check", "optimizer=adam")
    outcome.assert_error(2, "optimizer is not a key of genlab check; keys: channels,")
    assert ", model, num_classes, num_levels, num_threads, seed, technique, width; " in outcome.errors
    assert "optimizer is not a key" in genlab("check", "optimizer=adam", "schedule=linear").errors
    assert "trainer is not a key of genlab check; keys: channels," in genlab("check", "trainer=smoke").errors
    assert outcome.errors.endswith("genlab check --cfg job shows all of them\n")


def test_a_list_without_options_of_its_own_asks_for_the_folder_of_the_user(genlab: Genlab) -> None:
    for command, key in (("evaluate", "measure"), ("train", "observer")):
        outcome = genlab(command, f"{key}=[brightness]")
        outcome.assert_error(2, f"{key} has no options of genlab's own; name the folder of yours: --config-dir FOLDER")


def test_a_part_that_only_other_models_have_is_said_to_be_missing(genlab: Genlab) -> None:
    assert "model=draw has no model/objective; its parts: model/observation" in (
        genlab("train", "model=draw", "model/objective=wasserstein").errors
    )


def test_a_group_that_a_command_gives_no_choice_of_is_not_suggested_in_its_own_place(genlab: Genlab) -> None:
    errors = genlab("sample", "run=digits_draw", "dataset=mnist").errors
    assert "dataset has no options to choose from in genlab sample; its keys: dataset.root" in errors


def test_workers_are_those_of_the_data_set_where_it_has_any(genlab: Genlab) -> None:
    assert "did you mean 'num_threads'?" in genlab("train", "dataset.n_workers=2").errors
    assert "did you mean 'dataset.num_workers'?" in genlab("train", "dataset=folder", "dataset.n_workers=2").errors


OUT_OF_RANGE = [
    ("optimizer.default.lr=-1", "optimizer.default.lr must be positive, got -1"),
    ("optimizer.default.lr=0", "optimizer.default.lr must be positive, got 0"),
    ("optimizer.default.lr=nan", "optimizer.default.lr must be finite, got nan"),
    ("optimizer.default.lr=inf", "optimizer.default.lr must be finite, got inf"),
    ("optimizer.default.betas=[0.9,1.5]", "optimizer.default"),
    ("optimizer.default.betas=0.9", "optimizer.default.betas must be a list"),
    ("schedule.warmup_fraction=2", "schedule.warmup_fraction must be between 0 and 1, got 2"),
    ("trainer.batch_size=0", "trainer.batch_size must be at least 1, got 0"),
    (f"trainer.num_steps={10**22}", f"trainer.num_steps must be at most {10**15}, got {10**22}"),
    ("trainer.num_steps=-1", "trainer.num_steps must be 0 or more, got -1"),
    ("trainer.num_steps=true", "trainer.num_steps must be a whole number, got true"),
    ("trainer.num_steps=2.5", "trainer.num_steps must be a whole number, got 2.5"),
    ("trainer.max_minutes=.nan", "trainer.max_minutes must be"),
    ("seed=-1", "seed must be between 0 and"),
    ("device=gpu", "device must be auto, cpu, cuda, cuda:N or mps, got gpu"),
    ("device=0", "device must be auto, cpu, cuda, cuda:N or mps, got 0; did you mean 'cuda:0'?"),
    ("num_threads=0", "num_threads must be null, auto or at least 1, got 0"),
    ("model.read_size=wide", "model.read_size must be a whole number or null, got 'wide'"),
    ("model.num_glimpses=[1,2]", "model.num_glimpses must be a whole number"),
    ("model.spec=1", "model=draw has no key spec"),
    ("dataset=mnist\x00", "dataset"),
    ("seed", "an override must be key=value, got 'seed'"),
    ("dataset.root=ünï", "quote it"),
    ("logger.tensorboard.folder=x", "logger.tensorboard has no key folder\n"),
    ("dataset.size=(32,64)", "a list is 'dataset.size=[32,64]'"),
]


@pytest.mark.parametrize(
    ("override", "message"), thinned(OUT_OF_RANGE, 4), ids=[override for override, _ in OUT_OF_RANGE]
)
def test_a_value_out_of_its_range_is_refused_before_a_folder_is_made(
    genlab: Genlab, tmp_path: Path, override: str, message: str
) -> None:
    genlab("train", override).assert_error(2, message)
    assert list(tmp_path.iterdir()) == []


LATE = [
    ("model.read_size=40", "model.read_size must be between 1 and"),
    ("optimizer.discriminator.lr=1e-3", "the model has no phase 'discriminator'"),
]


@pytest.mark.parametrize(("override", "message"), LATE)
def test_a_mistake_that_only_the_data_or_the_model_reveal_leaves_no_folder_either(
    genlab: Genlab, tmp_path: Path, override: str, message: str
) -> None:
    genlab("train", override, "dataset.size=8").assert_error(2, message)
    assert list(tmp_path.iterdir()) == []


TWICE = [
    (["export", "a", "b"], "one run must be given, got a and b; did you mean out=b?"),
    (["sample", "a", "--cfg", "job", "b"], "one run must be given, got a and b; did you mean out=b?"),
    (["evaluate", "a", "b"], "one run must be given, got a and b; did you mean out=b?"),
    (["datasets", "digits", "mnist"], "one dataset must be given, got digits and mnist"),
    (["sample", "run=a", "run=b"], "run is given twice on the command line: a and b"),
    (["sample", "a", "run=b"], "run is given twice on the command line: a and b"),
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


def test_a_group_that_is_given_no_option_lists_them(genlab: Genlab) -> None:
    outcome = genlab("train", "quality=false")
    assert (outcome.code, outcome.errors) == (2, "genlab: error: quality must be one of default, off, got false\n")


@pytest.mark.parametrize(
    ("experiment", "own", "given"),
    [("draw_mnist_quick", "draw", "dcgan"), slow(("dcgan_mnist_quick", "dcgan", "draw"))],
)
def test_an_experiment_and_a_model_without_its_keys_are_the_two_words_to_blame(
    genlab: Genlab, experiment: str, own: str, given: str
) -> None:
    message = f"experiment={experiment} is of model={own}, got model={given}; omit one of them"
    assert message in genlab("train", f"experiment={experiment}", f"model={given}").errors
    assert "omit one of them" not in genlab("train", f"experiment={experiment}", "model=drow").errors
    typed = genlab("train", f"experiment={experiment}", f"model={own}", "model.nothing=1")
    assert "has no key nothing" in typed.errors
    assert "omit one of them" not in typed.errors
