"""The classifier on demand: trained once for the same images, never used incomplete, and refused if impossible."""

import json
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from genlab import reference_classifier as module
from genlab.data.dataset import Dataset
from genlab.data.digits import digits
from genlab.errors import ConfigurationError, StoppedBySignal
from genlab.reference_classifier import load_classifier, reference_classifier, why_no_classifier
from genlab.run.loading import load_trained
from genlab.train import train
from genlab.training.trainer import Trainer
from tests.conftest import Genlab
from tests.data.sources import SMALL_DIGITS

CPU = torch.device("cpu")


def make(**changes: Any) -> tuple[Dataset, dict[str, Any]]:
    values = SMALL_DIGITS | changes
    return digits(**values), {"_target_": "genlab.data.digits.digits", **values}


@pytest.fixture(name="told")
def in_an_empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the lines printed for a classifier that is trained for five steps."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(module, "OVERRIDES", (*module.OVERRIDES, "trainer=smoke", "trainer.num_steps=5"))
    return []


def fetch(told: list[str], train: Callable[..., object] = train, **changes: Any) -> module.ReferenceClassifier:
    dataset, node = make(**changes)
    return reference_classifier(dataset, node, device=CPU, num_threads=None, tell=told.append, train=train)


def test_it_is_trained_once_and_then_found(told: list[str], tmp_path: Path) -> None:
    first = fetch(told)
    assert [line.split()[0] for line in told] == ["training", "classifier"]
    assert "% error on its test images" in told[1]
    again = fetch(told)
    assert [line.split()[0] for line in told] == ["training", "classifier", "classifier"]
    assert first.weights_id == again.weights_id
    assert first.run_folder.is_relative_to(tmp_path / ".cache" / "genlab" / "classifiers")
    dataset, _ = make()
    assert f"digits_{dataset.fingerprint[:16]}" in first.run_folder.name
    batch = dataset.subset("test", 300, seed=0, device=CPU)
    error = (again.classifier.predict(batch.images) != batch.labels).double().mean().item()
    assert error == pytest.approx(again.test_error)


def test_hidden_labels_share_the_classifier_and_other_images_do_not(told: list[str]) -> None:
    whole = fetch(told)
    assert fetch(told, num_labels_per_class=5).run_folder == whole.run_folder
    assert len(told) == 3
    assert fetch(told, binarization="none").run_folder != whole.run_folder


def test_what_is_damaged_is_replaced(told: list[str]) -> None:
    home = fetch(told).run_folder
    for name in ("config.yaml", "checkpoints/last.safetensors"):
        (home / "summary.json").write_text(json.dumps({"status": "interrupted"}))
        (home / name).write_text("{")
        for copy in (home / "checkpoints").glob("previous*"):
            copy.unlink()
        (home / "stray").touch()
        assert fetch(told).run_folder == home
        assert not (home / "stray").exists()


def test_an_interrupted_training_is_resumed_by_the_command_that_it_names_and_by_the_next_that_needs_it(
    told: list[str], genlab: Genlab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        with monkeypatch.context() as patch:
            observe = Trainer._observe
            patch.setattr(Trainer, "_observe", lambda *given: (signal.raise_signal(signal.SIGINT), observe(*given))[1])
            train(*arguments, **options)

    with pytest.raises(StoppedBySignal, match="after step 1; saved; to resume: ") as stop:
        fetch(told, train=interrupted)
    *_, resume = shlex.split(str(stop.value))
    home = Path(resume.partition("=")[2])
    shutil.copytree(home, "interrupted")
    assert genlab("train", resume).code == 0
    found = fetch(told)
    assert [line.split()[0] for line in told] == ["training", "classifier"]

    shutil.rmtree(home)
    shutil.copytree("interrupted", home)
    (home / "kept").touch()
    assert fetch(told).weights_id == found.weights_id
    assert (home / "kept").exists()


def test_data_without_splits_to_measure_on_still_give_one(told: list[str]) -> None:
    found = fetch(told, num_validation=0, num_test=0)
    assert found.test_error is None
    assert found.classifier.spec.num_classes == 10


def test_data_that_teach_no_classes_say_so() -> None:
    assert why_no_classifier(make()[0]) is None
    assert why_no_classifier(make(classes=[3])[0]) == "dataset digits has one class, 3"
    unlabelled, _ = make()
    unlabelled.spec = type(unlabelled.spec)(**{**vars(unlabelled.spec), "num_classes": 0})
    assert why_no_classifier(unlabelled) == "dataset digits has no labels"


@pytest.mark.slow
def test_a_named_run_must_be_a_classifier_of_such_images(told: list[str], genlab: Genlab, tmp_path: Path) -> None:
    found = fetch(told)
    tiny = [
        "trainer=smoke",
        "trainer.num_steps=1",
        "dataset.size=8",
        "model.num_glimpses=1",
        "trainer.sample_interval=0",
    ]
    other = tmp_path / "draw"
    assert genlab("train", "model=draw", *tiny, f"hydra.run.dir={other}").code == 0
    spec = make()[0].spec
    named = load_classifier(found.run_folder, spec=spec, device=CPU)
    assert named.weights_id == found.weights_id
    with pytest.raises(ConfigurationError, match=r"model=classifier.*a run of DRAW"):
        load_classifier(other, spec=spec, device=CPU)
    with pytest.raises(ConfigurationError, match=r"must have learned images like the measured ones .*\(1, 28, 28\)"):
        load_classifier(found.run_folder, spec=make(size=28)[0].spec, device=CPU)
    learned = [str(digit) for digit in range(10)]
    assert load_classifier(found.run_folder, spec=spec, device=CPU, class_names=learned).weights_id == found.weights_id
    with pytest.raises(ConfigurationError, match=r"must have learned the classes 9, 8, .*, which learned 0, 1, "):
        load_classifier(found.run_folder, spec=spec, device=CPU, class_names=learned[::-1])
    with pytest.raises(ConfigurationError, match="2 classes"):
        load_classifier(found.run_folder, spec=make(classes=[0, 1])[0].spec, device=CPU)


def test_a_cached_classifier_is_a_run_like_any_other(told: list[str], tmp_path: Path) -> None:
    found = fetch(told)
    copy = tmp_path / "copy"
    shutil.copytree(found.run_folder, copy)
    trained = load_trained(copy, checkpoint="best", device=CPU)
    for name, value in trained.model.state_dict().items():
        assert torch.equal(value, found.classifier.state_dict()[name])


@pytest.mark.slow
def test_of_two_processes_one_trains_and_one_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import torch; from genlab import reference_classifier as m; from genlab.data.digits import digits\n"
        "from genlab.train import train\n"
        "m.OVERRIDES = (*m.OVERRIDES, 'trainer=smoke')\n"
        f"node = {SMALL_DIGITS!r}\n"
        "found = m.reference_classifier(digits(**node), {'_target_': 'genlab.data.digits.digits', **node},\n"
        "    device=torch.device('cpu'), num_threads=1, tell=print, train=train)\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    processes = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sum("training a classifier" in output for output in outputs) == 1
    assert len({output.split("classifier ")[-1] for output in outputs}) == 1
