"""A resumption that is refused, or dies before its first step, does not change the run; data may have moved."""

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

import genlab.train as training
from genlab.errors import DataError
from genlab.training.optimization import PhaseUpdate
from tests.conftest import Genlab, train_in
from tests.thinning import slow, thinned

TINY = (
    *(
        "model=draw",
        "trainer=smoke",
        "trainer.num_steps=3",
        "trainer.sample_interval=0",
        "trainer.validation_interval=0",
    ),
    *("dataset.size=8", "model.num_glimpses=2", "model.num_units=16", "num_threads=1"),
)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_in(tmp_path_factory.mktemp("outputs") / "run", *TINY, "trainer.ema_decay=0.9")


@pytest.fixture
def run(genlab: Genlab, finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run").name)


def contents(folder: Path) -> dict[str, str]:
    """Return the digests of all files but the log, which records every attempt."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in ("train.log", ".lock"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


REFUSED = {
    "weights that are not averaged": ("trainer.ema_decay=null", 2),
    "a batch of nothing": ("trainer.batch_size=0", 2),
    "another model": ("model.num_units=8", 2),
    "a dry run": ("trainer.dry_run=true", 2),
    "no folder of data": ("dataset.root=/nowhere", 2),
}


@pytest.mark.parametrize("case", thinned(REFUSED, 5))
def test_what_is_refused_changes_nothing(genlab: Genlab, run: Path, case: str) -> None:
    word, code = REFUSED[case]
    before = contents(run)
    assert genlab("train", "resume=run", "trainer.num_steps=5", word).code == code
    assert contents(run) == before


@pytest.mark.parametrize(
    "override",
    ["model.n_critic=5", slow("model/objective=wasserstein"), "observer=[brightness]", slow("optimizer.default.mu=1")],
)
def test_what_the_default_configuration_does_not_know_is_fixed_all_the_same(
    genlab: Genlab, run: Path, override: str
) -> None:
    key = override.partition("=")[0]
    outcome = genlab("train", "resume=run", "dataset.root=.", override)
    outcome.assert_error(2, f"{key} cannot change on resume, which takes trainer.KEY")
    assert "did you mean 'trainer.num_steps'" in genlab("train", "resume=run", "trainer.num_step=9").errors


def test_fewer_steps_than_were_made_are_refused_in_one_line(genlab: Genlab, run: Path) -> None:
    before = contents(run)
    outcome = genlab("train", "resume=run", "trainer.num_steps=2")
    message = "trainer.num_steps must be at least the step of the run that is resumed, 3, got 2"
    assert (outcome.code, outcome.output, outcome.errors) == (2, "", f"genlab: error: {message}\n")
    assert contents(run) == before


def test_a_damaged_checkpoint_is_set_aside_by_a_run_that_resumes_alone(genlab: Genlab, run: Path) -> None:
    shutil.copy("run/checkpoints/last.safetensors", "run/checkpoints/previous.safetensors")
    Path("run/checkpoints/last.safetensors").write_bytes(b"damaged")
    before = contents(run)
    outcome = genlab("train", "resume=run", "trainer.num_steps=5", "trainer.ema_decay=null")
    assert (outcome.code, contents(run)) == (2, before)
    assert "trainer.ema_decay cannot be switched off on resume (this run has 0.9); leave it out" in outcome.errors
    assert genlab("train", "resume=run", "trainer.num_steps=5").code == 0
    assert Path("run/checkpoints/last.safetensors.damaged").read_bytes() == b"damaged"


@pytest.mark.parametrize(
    ("error", "code"),
    thinned(
        [(torch.OutOfMemoryError("CUDA out of memory"), 6), (KeyboardInterrupt(), 130), (RuntimeError("bug"), 1)], 3
    ),
)
def test_what_dies_in_its_first_step_changes_nothing(
    genlab: Genlab, run: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    before = contents(run)
    with monkeypatch.context() as patch:
        patch.setattr(PhaseUpdate, "run", raising(error))
        assert genlab("train", "resume=run", "trainer.num_steps=5", "trainer.batch_size=128").code == code
    assert contents(run) == before
    if code != 6:
        return
    assert genlab("train", "resume=run", "trainer.num_steps=5").code == 0
    kept = yaml.safe_load(Path("run/config.yaml").read_text())["trainer"]
    assert (kept["num_steps"], kept["batch_size"]) == (5, 16)
    assert json.loads(Path("run/summary.json").read_text())["step"] == 5


@pytest.mark.slow
def test_a_run_that_never_saved_is_replaced_by_one_that_has_begun(
    genlab: Genlab, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree("run/checkpoints")
    summary = json.loads(Path("run/summary.json").read_text())
    Path("run/summary.json").write_text(json.dumps({**summary, "saved_step": 0}))
    before = contents(run)
    with monkeypatch.context() as patch:
        patch.setattr(training, "build_trainer", raising(DataError("the data are not at hand")))
        assert genlab("train", "resume=run").code == 3
    assert contents(run) == before
    assert genlab("train", "resume=run").code == 0
    assert Path("run/checkpoints/last.safetensors").exists()


def test_a_rate_that_jumps_is_said_with_both_values_and_a_suggestion(genlab: Genlab, run: Path) -> None:
    outcome = genlab("train", "resume=run", "trainer.num_steps=6", "trainer.test_at_end=false")
    (line,) = [line for line in outcome.output.splitlines() if "learning rate jumps" in line]
    rate = 5e-3  # of DRAW's recipe; the factors are those of half a cosine over 3 steps and over 6, at its step 3
    after = rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * 3 / 5)))
    assert f"at step 3 (from {0.01 * rate:.4g} to {after:.4g})" in line
    assert "schedule=constant never jumps, and schedule=warmup_stable_decay only if its decay" in line
    assert "no step is left" not in outcome.output
    outcome = genlab("train", "resume=run", "trainer.test_at_end=false")
    assert "learning rate" not in outcome.output
    assert "note      no step is left; trainer.num_steps=N with a greater N lengthens the run\n" in outcome.output


def test_another_batch_size_counts_the_epochs_of_both(genlab: Genlab, run: Path) -> None:
    arguments = ("trainer.batch_size=128", "trainer.num_epochs=1", "trainer.log_interval=4")
    outcome = genlab("train", "resume=run", *arguments, "trainer.test_at_end=false").checked()
    num_steps = 3 + math.ceil((1297 - 3 * 16) / 128)
    assert f"{num_steps} steps of 128 images, 1 epochs" in outcome.output
    assert f"step 4 of {num_steps} (epoch {(3 * 16 + 128) / 1297:.1f})" in outcome.output
    summary = json.loads(Path("run/summary.json").read_text())
    assert (summary["step"], summary["images_seen"]) == (num_steps, 3 * 16 + (num_steps - 3) * 128)


@pytest.mark.slow
def test_the_schedules_that_are_recommended_do_not_jump(genlab: Genlab) -> None:
    arguments = (*TINY, "trainer.test_at_end=false")
    assert genlab("train", *arguments, "schedule=warmup_stable_decay", "hydra.run.dir=run").code == 0
    for more in (("trainer.num_steps=5",), ("trainer.num_steps=10", "schedule.decay_fraction=0.5")):
        outcome = genlab("train", "resume=run", *more).checked()
        assert "learning rate" not in outcome.output
    assert yaml.safe_load(Path("run/config.yaml").read_text())["schedule"]["decay_fraction"] == 0.5
    outcome = genlab("train", "resume=run", "trainer.num_steps=20")
    assert "learning rate jumps" in outcome.output


def pictures(folder: Path, *, shade: int = 10) -> None:
    folder.mkdir()
    for index in range(20):
        Image.new("L", (8, 8), shade * (index % 25)).save(folder / f"{index:02}.png")


@pytest.mark.slow
def test_a_run_resumes_from_any_folder_and_finds_data_that_moved(
    genlab: Genlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    pictures(tmp_path / "pictures")
    of_folder = ("dataset=folder", "dataset.root=pictures", "dataset.channels=1", "dataset.num_workers=1")
    assert genlab("train", *TINY, *of_folder, "hydra.run.dir=run").code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    quick = ("num_importance_samples=0", "samples=false")
    assert genlab("evaluate", "run=../run", *quick).code == 0

    (tmp_path / "pictures").rename(tmp_path / "moved")
    pictures(tmp_path / "others", shade=11)
    for arguments in (("evaluate", "run=../run", *quick), ("sample", "run=../run"), ("train", "resume=../run")):
        genlab(*arguments, "dataset.root=../others").assert_error(3, "allow_other_data=true")
    assert genlab("evaluate", "run=../run", *quick, "dataset.root=../others", "allow_other_data=true").code == 0
    assert genlab("train", "resume=../run", "dataset.root=../moved").code == 0
    assert genlab("sample", "run=../run", "num_samples=4").code == 0
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert kept["dataset"]["root"] == str(tmp_path / "moved")

    assert genlab("train", "resume=../run", "dataset.root=../others", "allow_other_data=true").code == 0
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (kept["dataset"]["root"], kept["allow_other_data"]) == (str(tmp_path / "others"), False)
    assert genlab("train", "resume=../run").code == 0


def test_data_that_were_exchanged_in_their_place_are_refused(
    genlab: Genlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    pictures(tmp_path / "pictures")
    of_folder = ("dataset=folder", "dataset.root=pictures", "dataset.channels=1", "dataset.num_workers=1")
    assert genlab("train", *TINY, *of_folder, "trainer.test_at_end=false", "hydra.run.dir=run").code == 0
    (tmp_path / "pictures" / "00.png").unlink()
    before = contents(Path("run"))
    assert genlab("train", "resume=run", "trainer.num_steps=4").code == 3
    assert contents(Path("run")) == before


def test_what_changes_nothing_is_refused(genlab: Genlab, run: Path) -> None:
    assert "allow_other_data" in genlab("train", *TINY, "allow_other_data=true").errors
    for command in ("sample", "evaluate"):
        assert "which reads no folder" in genlab(command, "run=run", "dataset.root=/tmp").errors
        assert "dataset.size must be that of the run" in genlab(command, "run=run", "+dataset.size=16").errors
