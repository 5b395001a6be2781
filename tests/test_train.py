"""Arguments that the composition root passes to the trainer."""

import json
import re
import shlex
import signal
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from genlab import reference_classifier, train
from genlab.run.folder import resume_command
from genlab.run.loading import load_trained
from tests.conftest import Genlab
from tests.thinning import thinned

CPU_AND_SIZE = ("dataset.size=8", "num_threads=1", "device=cpu")
TINY = (*CPU_AND_SIZE, "model.num_glimpses=2", "model.num_units=16")
ONE_LOOK = ("trainer.num_steps=2", "trainer.watch_interval=2", "trainer.test_at_end=false")


@pytest.fixture(name="classifier")
def trained_classifier(genlab: Genlab, tmp_path: Path) -> Path:
    folder = tmp_path / "classifier"
    outcome = genlab(
        *("train", "model=classifier", *CPU_AND_SIZE, f"hydra.run.dir={folder}"),
        *("trainer=smoke", "trainer.num_steps=1", "trainer.test_at_end=false"),
    )
    assert outcome.code == 0, outcome.errors
    return folder


@pytest.mark.slow
def test_the_watch_counts_modes_with_the_classifier_of_a_run(genlab: Genlab, classifier: Path, tmp_path: Path) -> None:
    watch = (*ONE_LOOK, f"trainer.watch_classifier={classifier}")
    folder = tmp_path / "drawing"
    genlab("train", "model=draw", *TINY, "trainer=smoke", *watch, f"hydra.run.dir={folder}").checked()
    collapse = json.loads((folder / "summary.json").read_text())["collapse"]
    assert 1 <= collapse["modes_covered"] <= collapse["num_modes"] == 10
    assert collapse["classifier"] == str(classifier)

    outcome = genlab("train", "model=draw", *TINY[1:], "dataset.size=16", "trainer=smoke", *watch)
    outcome.assert_error(2, "trainer.watch_classifier must have learned images like the measured ones")
    watch = (*ONE_LOOK, f"trainer.watch_classifier={folder}")
    outcome = genlab("train", "model=draw", *TINY, "trainer=smoke", *watch)
    outcome.assert_error(2, "trainer.watch_classifier must be a run of model=classifier")


@pytest.mark.slow
def test_the_watch_fetches_the_classifier_of_the_data(
    genlab: Genlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(reference_classifier, "OVERRIDES", (*reference_classifier.OVERRIDES, "trainer=smoke"))
    arguments = ("train", "model=draw", *TINY, "trainer=smoke", "dataset.num_labels_per_class=5")
    plain, watched = tmp_path / "plain", tmp_path / "watched"
    assert genlab(*arguments, *ONE_LOOK, f"hydra.run.dir={plain}").code == 0
    genlab(*arguments, *ONE_LOOK, "trainer.watch_classifier=auto", f"hydra.run.dir={watched}").checked()
    collapse = json.loads((watched / "summary.json").read_text())["collapse"]
    assert Path(collapse["classifier"]).parent == tmp_path / ".cache" / "genlab" / "classifiers"
    assert 1 <= collapse["modes_covered"] <= 10
    # Training the classifier in between does not change the run that needs it.
    ours, theirs = (load_trained(run, checkpoint="last", device=torch.device("cpu")).model for run in (plain, watched))
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())

    outcome = genlab(*arguments[:-1], *ONE_LOOK, "trainer.watch_classifier=auto", "dataset.classes=[3]")
    outcome.assert_error(2, "must be null or the run of a classifier, got auto: dataset digits has one class, 3")


def test_a_classifier_cannot_be_watched(genlab: Genlab) -> None:
    outcome = genlab("train", "model=classifier", *CPU_AND_SIZE, "trainer=smoke", *ONE_LOOK)
    outcome.assert_error(2, "trainer.watch_interval must be 0 for Classifier, which draws no images to watch")


@pytest.mark.slow
def test_a_run_ends_with_a_ledger_of_its_test(genlab: Genlab, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    steps = ("trainer.num_steps=3", "trainer.validation_interval=2")
    genlab("train", "model=draw", *TINY, "trainer=smoke", *steps, f"hydra.run.dir={folder}", "seed=4").checked()
    summary = json.loads((folder / "summary.json").read_text())
    record = json.loads((folder / "evaluation.json").read_text())
    by_name = {measure["name"]: measure for measure in record["measures"]}
    assert by_name["nll_upper_bound_nats"]["value"] == summary["test"]["test/nll_upper_bound_nats"]
    assert (by_name["nll_upper_bound_nats"]["split"], by_name["nll_upper_bound_nats"]["seed"]) == ("test", 4)
    assert (record["checkpoint"], record["step"]) == ("best.safetensors", summary["best"]["step"])
    assert {measure["weights"] for measure in record["baselines"]} == {"none"}

    untested = tmp_path / "untested"
    arguments = ("train", "model=draw", *TINY, "trainer=smoke", *steps, "trainer.test_at_end=false")
    assert genlab(*arguments, f"hydra.run.dir={untested}").code == 0
    assert not (untested / "evaluation.json").exists()


def test_a_resumption_keeps_what_evaluate_has_measured_of_the_same_weights(genlab: Genlab) -> None:
    steps = ("trainer=smoke", "trainer.num_steps=2", "trainer.sample_interval=0", "trainer.validation_interval=2")
    assert genlab("train", "model=draw", *TINY, *steps, "name=run").code == 0
    assert genlab("evaluate", "run=run", "num_importance_samples=2").code == 0
    ledger = Path("outputs/digits-draw/run/evaluation.json")
    assert "nll_importance_weighted_nats" in ledger.read_text()
    before = ledger.read_bytes()
    genlab("train", "resume=run").checked()
    assert ledger.read_bytes() == before
    genlab("train", "resume=run", "trainer.num_steps=4", "trainer.validation_interval=4").checked()
    assert "nll_importance_weighted_nats" not in ledger.read_text()
    log = (ledger.parent / "train.log").read_text()
    (warning,) = (line for line in log.splitlines() if "further measures of step 2; to measure them again:" in line)
    assert warning.endswith("genlab evaluate run=outputs/digits-draw/run num_importance_samples=2")


ENDINGS = {
    "out of time": ("trainer.max_minutes=1e-9", {"train", "sample", "evaluate", "board"}),
    "a dry run": ("trainer.dry_run=true", {"board"}),
    "a classifier": ("model=classifier", {"evaluate", "board"}),
    "no test images": ("dataset.num_test=0", {"sample", "board"}),
    "few test images to compare samples with": ("dataset.num_test=7", {"sample", "board"}),
}


@pytest.mark.parametrize("ending", thinned(ENDINGS, 5))
def test_what_is_advised_works(genlab: Genlab, tmp_path: Path, ending: str) -> None:
    word, expected = ENDINGS[ending]
    model = () if word.startswith("model=") else ("model=gan",)
    quick = ("trainer=smoke", "trainer.num_steps=2", "trainer.test_at_end=false", "trainer.sample_interval=0")
    outcome = genlab("train", *model, word, *CPU_AND_SIZE, *quick, "hydra.run.dir='a b'").checked()
    assert outcome.output.count("next:") == 1
    advised = [shlex.split(line)[1:] for line in outcome.output.partition("next:\n")[2].splitlines()]
    assert {command for command, *_ in advised} == expected
    fewer = {"sample": ("num_samples=4",), "evaluate": ("samples=false", "num_importance_samples=0")}
    for command, *arguments in advised:
        if command == "board":
            assert arguments == ["a b"], "no run lies in outputs/"
            assert Path("a b").is_dir()
        else:
            genlab(command, *arguments, *fewer.get(command, ())).checked()


@pytest.mark.slow
def test_a_dry_run_leaves_its_name_to_the_run(genlab: Genlab) -> None:
    arguments = ("train", "model=draw", *TINY, "trainer=smoke", "trainer.num_steps=3", "name=mine")
    quick = ("trainer.test_at_end=false", "trainer.sample_interval=0", "trainer.checkpoint_interval=0")
    assert genlab(*arguments, *quick, "trainer.dry_run=true").code == 0
    genlab(*arguments, *quick).checked()
    folder = Path("outputs/digits-draw/mine")
    assert json.loads((folder / "summary.json").read_text())["step"] == 3
    assert len(json.loads((folder / "environment.json").read_text())["commands"]) == 1
    assert len([*folder.glob("events.out.tfevents.*")]) == 1
    for more in ((), ("trainer.dry_run=true",)):
        assert "must be a new or empty folder" in genlab(*arguments, *quick, *more).errors


def test_a_folder_that_is_no_run_is_not_advised_to_go_on_from(genlab: Genlab, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").touch()
    outcome = genlab("train", *TINY, "hydra.run.dir=notes")
    assert outcome.code == 2
    assert "resume" not in outcome.errors


def hparams_of(folder: Path) -> dict[str, Any]:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    content = accumulator.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    values = HParamsPluginData.FromString(content).session_start_info.hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in values.items()}


def test_a_run_opens_with_a_few_lines_and_its_choices_are_columns_also_after_a_resumption(
    genlab: Genlab, tmp_path: Path
) -> None:
    steps = ("trainer=smoke", "trainer.num_steps=2", "trainer.test_at_end=false", "trainer.sample_interval=0")
    arguments = (
        *CPU_AND_SIZE,
        *steps,
        "trainer.ema_decay=0.9",
        "technique=[label_smoothing,minibatch_discrimination]",
        "model/objective=least_squares",
    )
    outcome = genlab("train", "model=dcgan", *arguments, "seed=3").checked()
    model, data, device, length, changed, note, idle, folder, *_ = outcome.output.splitlines()
    assert note == "note      model=dcgan chooses dataset=digits_grey; dataset=NAME chooses another"
    assert idle == "note      trainer.ema_decay=0.9 has the effect of 0.1818, where its warm-up ends in this run"
    assert re.fullmatch(r"model +dcgan, [\d,]+ parameters \(generator [\d,]+, discriminator [\d,]+\)", model)
    assert re.fullmatch(r"data +scikit-learn digits 8x8, .* images \(training/validation/test\)", data)
    assert re.fullmatch(r"device +cpu \(.*\), b?float(16|32), 1 thread", device)
    assert length == "length    2 steps of 16 images, 0.02467 epochs"
    assert changed == f"changed   {shlex.join([*arguments, 'seed=3'])}"
    assert re.fullmatch(r"folder +outputs/digits_grey-dcgan/0001-size-8-num_threads-1-device-cpu", folder)
    run_folder = Path(folder.split()[1])
    choices = {"model": "dcgan", "dataset": "digits_grey", "objective": "least_squares"}
    choices["techniques"] = "label_smoothing,minibatch_discrimination"
    assert hparams_of(run_folder).items() >= {**choices, "seed": 3.0}.items()
    assert not any(str(value).startswith("genlab.") for key, value in hparams_of(run_folder).items() if key in choices)

    for event_file in run_folder.glob("events*"):
        event_file.unlink()
    both = ("trainer.num_epochs=0.03", "trainer.num_steps=4")
    outcome = genlab("train", f"resume={run_folder}", *both)
    assert (outcome.code, "got trainer.num_epochs=0.03 and trainer.num_steps=4" in outcome.errors) == (2, True)
    outcome = genlab("train", f"resume={run_folder}", both[0]).checked()
    assert "length    3 steps of 16 images, 0.03 epochs" in outcome.output
    assert re.search(r"^changed .* trainer.num_epochs=0.03$", outcome.output, re.MULTILINE)
    kept = yaml.safe_load((run_folder / "config.yaml").read_text())["trainer"]
    assert (kept["num_steps"], kept["num_epochs"]) == (3, 0.03)
    assert f"folder    {run_folder} (resumed)" in outcome.output
    assert "trainer.num_steps=2" not in outcome.output
    assert hparams_of(run_folder).items() >= {**choices, "seed": 3.0, "trainer.num_steps": 3.0}.items()

    for words, told in (
        (("trainer.num_steps=4", "trainer.batch_size=8", "logger=[]"), "trainer.num_steps=4 trainer.batch_size=8 "),
        (("trainer.num_steps=5",), "trainer.batch_size=8 trainer.num_steps=5"),
    ):
        outcome = genlab("train", f"resume={run_folder}", *words).checked()
        assert re.search(rf"^changed .* {told}", outcome.output, re.MULTILINE), "those of all starts"
    assert "num_epochs=" not in outcome.output
    assert "logger=" not in outcome.output


PHASES = [
    ("genlab.train.build_trainer", 130, "interrupted before anything was saved"),
    (
        "genlab.training.trainer.Trainer._training_step",
        130,
        "stopped by Ctrl-C after step 1; saved; to resume: {resume}",
    ),
    (
        "genlab.training.observers.Pictures.observe",
        130,
        "stopped by Ctrl-C after step 2; saved; to resume: {resume}",
    ),
    (
        "genlab.training.trainer.Trainer.test",
        130,
        "stopped by Ctrl-C after the last step; to resume from the last checkpoint: {resume}",
    ),
    ("genlab.run.conclusion._results", 130, "interrupted after the run had finished: {folder}"),
]


@pytest.mark.parametrize(
    ("place", "code", "message"),
    [
        pytest.param(*phase, id=name, marks=() if name in ("_training_step", "_results") else pytest.mark.slow)
        for phase in PHASES
        for name in (phase[0].rpartition(".")[2],)
    ],
)
def test_an_interruption_is_no_error_and_says_how_to_go_on_in_every_phase(
    genlab: Genlab, monkeypatch: pytest.MonkeyPatch, place: str, code: int, message: str
) -> None:
    steps = ("trainer=smoke", "trainer.num_steps=4", "trainer.sample_interval=2", "trainer.num_sample_images=2")
    owner, _, name = place.rpartition(".")
    target = resolve_name(owner)
    original = getattr(target, name)

    def interrupted(*arguments: Any, **settings: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return original(*arguments, **settings)

    monkeypatch.setattr(target, name, interrupted)
    outcome = genlab("train", "model=draw", *TINY, *steps, "name=run")
    folder = Path("outputs/digits-draw/run")
    resume = resume_command(folder)
    assert (outcome.code, outcome.errors) == (code, f"genlab: {message.format(resume=resume, folder=folder)}\n")
    assert folder.exists() == ("before anything" not in message)
    monkeypatch.setattr(target, name, original)
    if "resume" in message:
        assert genlab("train", f"resume={folder}").code == 0
    if folder.exists():
        assert json.loads((folder / "summary.json").read_text())["status"] == "finished"
        assert (folder / "evaluation.json").exists()


def test_an_interruption_of_a_resumption_before_its_first_step_says_how_to_go_on(
    genlab: Genlab, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = ("trainer=smoke", "trainer.num_steps=2", "trainer.sample_interval=0", "trainer.max_minutes=1e-6")
    assert genlab("train", "model=draw", *TINY, *steps, "name=run").code == 0
    monkeypatch.setattr(train, "build_trainer", lambda *_: signal.raise_signal(signal.SIGINT))
    outcome = genlab("train", "resume=outputs/digits-draw/run", "trainer.max_minutes=null")
    way_on = resume_command(Path("outputs/digits-draw/run"))
    assert (outcome.code, outcome.errors) == (130, f"genlab: interrupted; to resume: {way_on}\n")
