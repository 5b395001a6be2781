"""Loggers beside TensorBoard: what stands in the offline store of each library, and what a failing one does."""

import json
import os
import sqlite3
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from genlab.errors import ConfigurationError
from genlab.training import logger as interface
from genlab.training.logger import LoggedRun, Logger
from genlab.training.loggers.mlflow import MLflow
from genlab.training.loggers.wandb import WeightsAndBiases
from genlab.training.logging import RunLog

HYPERPARAMETERS = {"model": "tiny", "dataset": "noise", "trainer.num_steps": 4}


class Recorder(Logger):
    """A logger that keeps the calls, and fails in the one that it is told to."""

    def __init__(self, fails_in: str = "", error: Exception | None = None) -> None:
        self.calls: list[str] = []
        self._fails_in, self._error = fails_in, error or RuntimeError("gone")

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name == self._fails_in:
            raise self._error

    def open(self, run: LoggedRun) -> None:
        self._call("open")

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        self._call("scalars")

    def picture(self, tag: str, image: torch.Tensor, *, step: int) -> None:
        self._call("picture")

    def conclude(self, measures: Mapping[str, float]) -> None:
        self._call("conclude")

    def close(self, *, succeeded: bool) -> None:
        self._call("close")


def opened(folder: Path, loggers: Mapping[str, Logger], *, start: int = 0) -> RunLog:
    return RunLog(folder, start_step=start, hyperparameters=HYPERPARAMETERS, loggers=loggers)


def test_a_logger_that_fails_is_left_out_and_the_others_go_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    failing, whole = Recorder("scalars"), Recorder()
    with opened(tmp_path, {"failing": failing, "whole": whole}) as log:
        for step in (1, 2):
            log.scalars({"a": 1.0}, step=step, images_seen=8, seconds=0.1)
        log.conclude({"test/a": 1.0})
    assert failing.calls == ["open", "scalars"]
    assert whole.calls == ["open", "scalars", "scalars", "conclude", "close"]
    assert caplog.messages == ["logger.failing cannot be written (gone); metrics.jsonl continues"]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_logger_that_cannot_be_opened_ends_the_run_and_a_disk_that_is_full_does_not(tmp_path: Path) -> None:
    first = Recorder()
    with pytest.raises(ConfigurationError, match=r"^logger.second cannot be opened: gone$"):
        opened(tmp_path, {"first": first, "second": Recorder("open")})
    assert first.calls == ["open", "close"]
    with opened(tmp_path, {"full": Recorder("open", OSError(28, "No space left on device"))}) as log:
        log.scalars({"a": 1.0}, step=1, images_seen=8, seconds=0.1)


@pytest.mark.parametrize("logger", [WeightsAndBiases(project=None), MLflow(experiment=None)])
def test_a_missing_library_is_named_with_its_extra(logger: Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str) -> None:
        raise ModuleNotFoundError(f"No module named '{module}'")

    monkeypatch.setattr(interface, "import_module", missing)
    with pytest.raises(ConfigurationError) as error:
        logger.require()
    name = type(logger).__module__.rpartition(".")[2]
    assert str(error.value) == (
        f"logger=[{name}] needs a library that is not installed (No module named '{name}'); "
        f"pip install 'genlab[{name}]'"
    )


class FakeWandb:
    """The part of wandb that a check of the login uses; ``login`` asks the server only if it is told to verify."""

    class Error(Exception):
        pass

    def __init__(self, mode: str, answer: bool | str = True) -> None:
        self._mode, self._answer = mode, answer

    def setup(self) -> SimpleNamespace:
        return SimpleNamespace(settings=SimpleNamespace(mode=self._mode))

    def login(self, *, prompt: bool, verify: bool) -> bool:
        assert not prompt
        if isinstance(self._answer, str) and verify:
            raise self.Error(self._answer)
        return bool(self._answer)


@pytest.mark.parametrize(
    ("fake", "expected"),
    [
        (FakeWandb("online", False), "needs a login"),
        (
            FakeWandb("online", "Failed to authenticate with https://api: permission denied"),
            "cannot log in: Failed to authenticate with https://api: permission denied",
        ),
        (
            FakeWandb("shared", "the service did not respond in time."),
            "cannot log in: the service did not respond in time",
        ),
    ],
)
def test_wandb_is_asked_for_the_login_before_a_run_folder_is_made(
    fake: FakeWandb, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interface, "import_module", lambda _: fake)
    with pytest.raises(ConfigurationError) as error:
        WeightsAndBiases(project=None).require()
    hint = ": call wandb login" if fake._answer is False else "; call wandb login"
    assert str(error.value) == f"logger=[wandb] {expected}{hint}, or set WANDB_MODE=offline"


@pytest.mark.parametrize("fake", [FakeWandb("offline", "asked"), FakeWandb("disabled", "asked"), FakeWandb("online")])
def test_wandb_is_not_asked_without_need_and_accepts_a_known_login(
    fake: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interface, "import_module", lambda _: fake)
    WeightsAndBiases(project=None).require()


class FakeMLflow:
    """The part of mlflow that the logger uses; each request reads the environment, as in the real one."""

    entities = SimpleNamespace(Metric=lambda *values: values)

    def __init__(self) -> None:
        self.retries: list[str | None] = []
        self.metrics: list[tuple[object, ...]] = []

    def MlflowClient(self) -> "FakeMLflow":  # noqa: N802 - its name there
        return self

    def search_experiments(self, *, max_results: int) -> None:
        self.retries.append(os.environ.get("MLFLOW_HTTP_REQUEST_MAX_RETRIES"))
        raise ConnectionError(f"refused after {max_results}")

    def get_tracking_uri(self) -> str:
        return "http://server"

    def log_batch(self, run: str, *, metrics: list[tuple[object, ...]]) -> None:
        assert run == "id"
        self.metrics += [(name, value, step) for name, value, _, step in metrics]


def test_a_server_of_mlflow_that_is_away_is_reported_without_its_minutes_of_retries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeMLflow()
    monkeypatch.setattr(interface, "import_module", lambda _: fake)
    for own in (None, "5"):
        if own is not None:
            monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", own)
        with pytest.raises(ConfigurationError, match=r"cannot use http://server: refused after 1; MLFLOW_TRACKING_URI"):
            MLflow(experiment=None).require()
        assert os.environ.get("MLFLOW_HTTP_REQUEST_MAX_RETRIES") == own
    assert fake.retries == ["2", "5"]


def test_mlflow_gets_each_measure_of_the_test_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeMLflow()
    monkeypatch.setattr(interface, "import_module", lambda _: fake)
    logger = MLflow(experiment=None)
    logger._connect()
    logger._id = "id"
    logger.scalars({"test/a": 1.0}, step=8)
    logger.conclude({"best/step": 4.0, "best/a": 2.0, "test/a": 1.0})
    assert fake.metrics == [("test/a", 1.0, 8), ("best/step", 4.0, 4), ("best/a", 2.0, 4)]


@pytest.mark.parametrize("content", ["[", "[]", '{"wandb": 3}', '{"wandb": "../a"}', '{"wandb": "a\\u001b[2J"}'])
def test_an_id_that_is_none_is_not_taken_from_a_run_folder(tmp_path: Path, content: str) -> None:
    run = LoggedRun(folder=tmp_path, start_step=0, hyperparameters={})
    (tmp_path / "loggers.json").write_text(content)
    assert run.kept_id("wandb") is None
    run.keep_id("mlflow", "abc-1")
    run.keep_id("wandb", "abc-2")
    assert (run.kept_id("mlflow"), run.kept_id("wandb")) == ("abc-1", "abc-2")


def log_twice(folder: Path, loggers: Mapping[str, Logger]) -> None:
    """A run of two steps, resumed for two more."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 3\nmodel:\n  num_units: 8\n")
    for start in (0, 2):
        with opened(folder, loggers, start=start) as log:
            for step in (start + 1, start + 2):
                values = {"train/model/nll_nats": float(step), "validation/nll_nats": step / 2}
                log.scalars(values, step=step, images_seen=8 * step, seconds=0.5)
            log.picture("samples", torch.rand(1, 9, 7), step=start + 2)
    with opened(folder, loggers, start=4) as log:
        log.conclude({"best/step": 4.0, "best/validation/nll_nats": 2.0})


def records(path: Path) -> Iterator[Any]:
    """The records of an offline run: a header of 7 bytes, then LevelDB's log in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, parts = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        _, length, kind = struct.unpack_from("<IHB", data, position)
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if (rest := -position % 2**15) < 7:  # of a block, too short for a header
            position += rest
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def values(items: Iterable[Any]) -> dict[str, Any]:
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of the library
def test_wandb_keeps_offline_all_of_a_resumed_run_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb.teardown()  # it has read the environment before
    logger = WeightsAndBiases(project=None)
    logger.require()
    log_twice(tmp_path / "outputs/noise-tiny/0001", {"wandb": logger})
    wandb.teardown()

    runs, config, history, summary = set(), {}, {}, {}
    for path in sorted(tmp_path.glob("wandb/offline-run-*/*.wandb")):
        for record in records(path):
            if record.HasField("run"):
                run = record.run
                runs.add((run.run_id, run.project, run.display_name, tuple(run.tags)))
                config |= values(run.config.update)
            row = values(record.history.item)
            if row:
                history.setdefault(int(row["_step"]), {}).update(row)
            summary |= values(record.summary.update)
    assert [run[1:] for run in runs] == [("genlab", "noise-tiny/0001", ("tiny", "noise"))]
    assert (config["seed"], config["model"]) == (3, {"num_units": 8})
    assert {step: row["train/model/nll_nats"] for step, row in history.items()} == {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0}
    assert history[4]["validation/nll_nats"] == 2.0
    assert (history[4]["samples.width"], history[4]["samples.height"]) == (7, 9)
    assert summary["best/validation/nll_nats"] == 2.0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_wandb_without_a_login_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    wandb.teardown()
    with pytest.raises(ConfigurationError, match=r"needs a login: call wandb login, or set WANDB_MODE=offline$"):
        WeightsAndBiases(project=None).require()
    wandb.teardown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_keeps_in_sqlite_all_of_a_resumed_run_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    logger = MLflow(experiment=None)
    logger.require()
    log_twice(tmp_path / "outputs/noise-tiny/0001", {"mlflow": logger})

    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        ((run, name, status, place),) = store.execute("SELECT run_uuid, name, status, artifact_uri FROM runs")
        parameters = dict(store.execute("SELECT key, value FROM params"))
        metrics = {(key, step): value for key, step, value in store.execute("SELECT key, step, value FROM metrics")}
    assert (name, status) == ("noise-tiny/0001", "FINISHED")
    assert run in (tmp_path / "outputs/noise-tiny/0001/loggers.json").read_text()
    assert parameters == {"model": "tiny", "dataset": "noise", "trainer.num_steps": "4"}
    assert metrics == {
        **{("train/model/nll_nats", step): float(step) for step in (1, 2, 3, 4)},
        **{("validation/nll_nats", step): step / 2 for step in (1, 2, 3, 4)},
        ("best/step", 4): 4.0,
        ("best/validation/nll_nats", 4): 2.0,
    }
    artifacts = Path(place.removeprefix("file://"))
    assert (artifacts / "config.yaml").read_text().startswith("seed: 3")
    assert len([path for path in artifacts.glob("images/samples*.png")]) == 2
