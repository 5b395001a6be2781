"""What ``import genlab`` offers to scripts and notebooks."""

import asyncio
import inspect
import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

import genlab
from genlab.api import Run
from genlab.errors import ConfigurationError, DataError, StorageError
from genlab.models.base import GenerativeModel
from genlab.models.draw.draw import DRAW
from genlab.numerics import has_subnormals
from genlab.run.names import find_run
from genlab.training.signals import listen_for_signals

TINY = ["trainer=smoke", "trainer.num_steps=2", "dataset.size=8", "model.num_glimpses=2", "model.num_units=16"]
TINY += ["trainer.num_sample_images=2"]
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(name="place", scope="module")
def working_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place, previous = tmp_path_factory.mktemp("place"), Path.cwd()
    os.chdir(place)
    yield place
    os.chdir(previous)


@pytest.fixture(name="run", scope="module")
def trained(place: Path) -> Run:
    """Return a run that was trained as a cell of a notebook is executed: under a running event loop."""

    async def cell() -> Run:
        return genlab.train("draw", dataset="digits", overrides=TINY)

    return asyncio.run(cell())


def test_a_run_has_what_training_left(run: Run, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.folder.parent == place / "outputs" / "digits-draw"
    assert (run.summary["status"], run.summary["step"]) == ("finished", 2)
    assert {row["step"] for row in run.history()} == {2}
    assert run.history()[-1]["test/nll_upper_bound_nats"] == run.summary["test"]["test/nll_upper_bound_nats"]
    images = run.sample(5)
    with pytest.raises(ConfigurationError, match="num_samples must be an integer of at least 1, got 0"):
        run.sample(0)
    with pytest.raises(ConfigurationError, match="seed must be a whole number, got None"):
        run.sample(2, seed=None)  # type: ignore[arg-type]
    assert images.shape == (5, 1, 8, 8)
    assert torch.equal(images, run.sample(np.int64(5), seed=np.int64(0)))  # type: ignore[arg-type]
    assert not torch.equal(images, run.sample(5, seed=1))
    (bound,) = (row for row in run.evaluate(["num_importance_samples=0"]) if row["name"] == "nll_upper_bound_nats")
    assert bound["value"] == pytest.approx(run.summary["test"]["test/nll_upper_bound_nats"])
    assert "nll_upper_bound_nats" in capsys.readouterr().out
    assert repr(run).startswith(f"Run(outputs/digits-draw/{run.folder.name}: finished at step 2, validation/nll_upper")
    assert run._repr_html_().startswith('<img src="data:image/gif;base64,')
    assert genlab.Run("last").folder == run.folder
    assert genlab.load(run, device=torch.device("cpu")).sample(2).shape == (2, 1, 8, 8)
    before = (run.folder / "evaluation.json").read_text()
    assert {row["split"] for row in run.evaluate(["split=validation", "num_importance_samples=0"])} == {"validation"}
    assert (run.folder / "evaluation.json").read_text() == before
    with pytest.raises(ConfigurationError, match=r"^out must be left out .*, got out=elsewhere$"):
        run.evaluate(["out=elsewhere"])
    with pytest.raises(ConfigurationError, match="must be key=value of one run, got -m"):
        run.evaluate(["-m", "seed=0,1"])
    with pytest.raises(ConfigurationError, match="--config-dir must be a folder"):
        run.evaluate(["measure=[mine]"], config_dir="nowhere")


def test_a_run_that_was_resumed_has_its_new_weights(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "copy")
    copy = genlab.Run(tmp_path / "copy")
    before = copy.sample(4)
    genlab.train(overrides=[f"resume={copy.folder}", "trainer.num_steps=4"])
    assert not torch.equal(copy.sample(4), before)
    assert torch.equal(copy.sample(4), genlab.Run(copy.folder).sample(4))


def test_a_pretrained_model_is_a_run_without_training(place: Path) -> None:
    pretrained = Run("digits_draw")
    assert (pretrained.history(), pretrained.summary) == ([], {})
    measures = pretrained.evaluate(["num_images=5", "num_importance_samples=0"])
    assert {row["num_examples"] for row in measures} == {5}
    assert (place / "outputs/pretrained/digits_draw/evaluation.json").is_file()


def test_a_run_without_pictures_is_shown_as_text_that_html_does_not_read(place: Path) -> None:
    folder = place / "outputs" / "a<b>"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("")
    shown, history = Run(folder)._repr_html_(), Run(folder).history()
    (folder / "config.yaml").unlink()
    assert history == []
    assert shown == "<code>Run(outputs/a&lt;b&gt;)</code>"


def test_a_process_is_left_as_it_was_found(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    mine = logging.FileHandler(tmp_path / "mine.log", mode="w")
    root = logging.getLogger()
    root.addHandler(mine)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(num_threads + 1)

    def state() -> tuple[object, ...]:
        loggers = [logging.getLogger(name) for name in (None, "genlab", "genlab.progress")]
        return (
            [signal.getsignal(number) for number in numbers],
            list(root.handlers),
            [logger.level for logger in loggers],
            logging.raiseExceptions,
            (sys.stdout, sys.stderr),
            (torch.get_num_threads(), torch.random.get_rng_state().tolist(), np.random.get_state()[1].tolist()),  # type: ignore[union-attr]
            GlobalHydra.instance().hydra,
            has_subnormals(),
            (torch.get_default_dtype(), torch.get_float32_matmul_precision()),
            (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        )

    torch.set_default_dtype(torch.float64)
    before = state()
    settings = ("trainer.num_steps=3", "num_threads=1")
    with torch.inference_mode():
        again = genlab.train(overrides=(setting for setting in (f"resume={run.folder}", *settings)), quiet=True)
    with pytest.raises(DataError):
        genlab.train(dataset="folder", overrides=["dataset.root=nowhere", "hydra.verbose=genlab"])
    assert state() == before
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(num_threads)
    assert (again.folder, again.summary["step"]) == (run.folder, 3)
    assert len(capsys.readouterr().out.splitlines()) <= 3
    logging.error("still open")
    root.removeHandler(mine)
    mine.close()
    assert (tmp_path / "mine.log").read_text() == "still open\n"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "drawn"}, "model has no option 'drawn'; did you mean 'draw'?"),
        ({"overrides": "seed=1"}, "overrides must be a list of key=value, got 'seed=1'"),
        ({"overrides": ["tainer=smoke"]}, "tainer is not a key; did you mean 'trainer'?"),
        ({"overrides": ["-m", "seed=0,1"]}, "overrides must be key=value of one run, got -m; genlab train -m sweeps"),
        ({"overrides": ["hydra.mode=MULTIRUN"]}, "overrides must be key=value of one run, got hydra.mode=MULTIRUN"),
        ({"overrides": ["seed=0,1"]}, "seed has several values"),
        ({"overrides": [3]}, "overrides must be a list of key=value, got 3 in it"),
        ({"model": ["draw", "dcgan"]}, "model must be the name of one option, got ['draw', 'dcgan']"),
        ({"config_dir": "nowhere"}, "--config-dir must be a folder"),
    ],
)
def test_bad_input_is_an_exception_of_ours_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError) as raised:
        genlab.train(**settings)  # type: ignore[arg-type]
    assert message in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_system_is_one_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("genlab.api.launch", lambda *_, **__: (tmp_path / "file" / "x").mkdir())
    with pytest.raises(StorageError, match="Not a directory"):
        genlab.train()


def test_the_noise_after_a_model_is_loaded_is_that_of_the_callers_seed() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    genlab.load("digits_draw")
    assert torch.equal(torch.rand(3), expected)


def test_a_run_has_its_data(run: Run) -> None:
    batch = next(run.dataset.batches("test", batch_size=7, seed=0, device=torch.device("cpu")))
    assert run.model.evaluate(batch)["nll_upper_bound_nats"].shape == (7,)
    assert Run(run).folder == run.folder
    with pytest.raises(ConfigurationError, match="seed must be a whole number"):
        run.sample(1, seed=2**64)


def test_the_module_train_is_the_function_too() -> None:
    module = import_module("genlab.train")
    assert genlab.train is module
    assert isinstance(module, ModuleType)
    assert callable(module.build_trainer)
    function = import_module("genlab.api").train
    assert inspect.signature(module) == inspect.signature(function)  # type: ignore[arg-type]
    assert inspect.getdoc(module) == inspect.getdoc(function)
    assert pickle.loads(pickle.dumps(module)) is module  # noqa: S301 - of this process


def test_importing_the_package_is_free_and_its_public_names_are_listed() -> None:
    program = "import sys, genlab; print(*dir(genlab)); sys.exit(bool({'torch', 'hydra', 'numpy'} & {*sys.modules}))"
    listed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (listed.returncode, listed.stdout.split()) == (0, sorted(genlab.__all__)), listed.stderr
    assert all(hasattr(genlab, name) for name in genlab.__all__)
    with pytest.raises(AttributeError, match=r"genlab\.list_datasets\(\) lists them"):
        genlab.datasets  # noqa: B018


def test_there_is_a_list_of_what_there_is() -> None:
    assert genlab.list_models()["draw"].startswith("DRAW")
    assert "digits" in genlab.list_datasets()
    assert "draw_mnist" in genlab.list_experiments()


def test_a_loaded_model_is_of_the_kind_that_was_asked_for(run: Run) -> None:
    assert type(genlab.load(run.folder, kind=DRAW)) is DRAW
    assert isinstance(genlab.load(find_run("last")), GenerativeModel)
    classifier = import_module("genlab.models.classifier").Classifier
    hint = r"from genlab\.models\.draw import DRAW, and genlab\.load\(\.\.\., kind=DRAW\) returns it"
    with pytest.raises(
        ConfigurationError, match=rf"^kind must be DRAW, the model of [^ ]+, or a base of it, got Classifier; {hint}$"
    ):
        genlab.load(run.folder, kind=classifier)


@pytest.mark.parametrize(
    "labels", [3, "3", ["3", "1"], [0, None], {0, 1}, [0.5, 1.0], torch.zeros(2, 1, dtype=torch.int64), [[0], [1, 2]]]
)
def test_labels_of_another_type_are_refused_in_a_line(run: Run, labels: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^labels must be a list with the number of a class for each image, "):
        run.sample(2, labels=labels)


@pytest.mark.parametrize("labels", [[0, 3], [0, -1], [0]])
def test_labels_that_do_not_fit_are_refused_for_any_model(
    run: Run, monkeypatch: pytest.MonkeyPatch, labels: list[int]
) -> None:
    monkeypatch.setattr(run.model, "num_classes", 3)
    with pytest.raises(ConfigurationError, match=r"^labels must be 2 classes between 0 and 2, got "):
        run.sample(2, labels=labels)


def test_a_second_interruption_does_not_end_an_interactive_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "ps1", "In : ", raising=False)
    with listen_for_signals(lambda: "nothing was saved") as request:
        signal.raise_signal(signal.SIGINT)
        assert request.signal_number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
def test_a_type_checker_knows_what_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check: Callable[[list[str]], tuple[str, str, int]] = pytest.importorskip("mypy.api").run
    lines = {
        "import genlab": "",
        "import genlab.train": "",
        "run = genlab.train('draw', overrides=['seed=1'])": "",
        "reveal_type(genlab.load('last').sample(3))": "Tensor",
        "reveal_type(run.model.sample(3))": "Tensor",
        "reveal_type(run.history()[0]['step'])": "int | float | None",
        "genlab.trian": "has no attribute",
        "genlab.train(3)": "incompatible type",
    }
    # A name of its own: mypy tells of a cached module of this name with the path that it had then.
    program = tmp_path / f"program_{time.time_ns()}.py"
    program.write_text("\n".join(lines))
    monkeypatch.setenv("MYPYPATH", str(ROOT))
    output, errors, _ = check(["--strict", f"--cache-dir={ROOT / '.mypy_cache'}", str(program)])
    assert errors == ""
    for number, (line, expected) in enumerate(lines.items(), start=1):
        told = [text for text in output.splitlines() if text.startswith(f"{program}:{number}:")]
        assert (expected in "".join(told)) if expected else told == [], (line, output)
