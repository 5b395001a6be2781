"""A sweep in which jobs end in every way there is: each ends itself alone, and a resumption runs only those."""

import sys
from pathlib import Path

import pytest

from genlab.launch import command as application
from genlab.launch.sweep_folder import SweepFolder
from tests.conftest import Genlab
from tests.faults.harness import TINY, run
from tests.faults.tally import Tally
from tests.launch.test_sweep import table

FAULT = "9 sweep"
# A data set of the user's own, with a fault of choice in a job's sixth batch, until somebody writes "cured".
DATA = """
import os, signal, sys
from pathlib import Path
from genlab.data.dataset import Dataset
from genlab.data.digits import digits as good_digits


def digits(*, fault: str, **settings) -> Dataset:
    data = good_digits(**settings)
    deliver, num_asked = data.deliver, 0

    def faulty(split, *arguments, **options):
        nonlocal num_asked
        batch = deliver(split, *arguments, **options)
        num_asked += split == "train"
        if num_asked >= 7 and not Path("cured").exists():  # the first one sets the initial values
            act(fault, batch)
        return batch

    data.deliver = faulty
    return data


def act(fault, batch):
    if fault == "raise":
        raise LookupError("a fault of the user's own")
    elif fault == "exit":
        sys.exit(3)
    elif fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "memory":
        raise MemoryError
    elif fault == "not_a_number":
        batch.images[0] = float("nan")
"""
CONFIG = """
defaults: [digits, _self_]
_target_: faulty.digits
fault: none
"""
JOBS = {
    "none": ("finished", "0", ""),
    "raise": ("failed", "1", "LookupError: a fault of the user's own"),
    "exit": ("failed", "3", "exit code 3"),
    "kill": ("killed", "-9", "signal 9, possibly for lack of memory"),
    "memory": ("failed", "6", "out of memory at step 5 with trainer.batch_size=16"),
    "not_a_number": ("diverged", "5", "step 5: not finite, nothing updated"),
    "none_either": ("finished", "0", ""),
}
WORDS = (*TINY["gated_pixelcnn"], "dataset=faulty", "trainer.num_steps=12", "trainer.checkpoint_interval=2")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the user's data set, and a genlab that trusts it."""
    (tmp_path / "faulty.py").write_text(DATA, encoding="utf-8")
    (tmp_path / "mine" / "dataset").mkdir(parents=True)
    (tmp_path / "mine" / "dataset" / "faulty.yaml").write_text(CONFIG, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENLAB_ALLOW", "faulty")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@pytest.mark.slow
def test_five_of_seven_jobs_fail_and_end_nothing_else(place: Path, tally: Tally) -> None:
    sweep = place / "sweep"
    words = ("train", "-m", "--config-dir", "mine", *WORDS, f"dataset.fault={','.join(JOBS)}")
    with tally.trying(FAULT, "jobs that fail, of seven", count=5):
        swept = run(*words, f"hydra.sweep.dir={sweep}", timeout=600)
        assert swept.returncode == 9, swept.stderr
        assert "Traceback" not in swept.stdout + swept.stderr
        assert "5 of 7 jobs did not finish" in swept.stderr
        rows = table(sweep)
        assert [row["dataset.fault"] for row in rows] == list(JOBS)
        for row, (status, exit_code, reason) in zip(rows, JOBS.values(), strict=True):
            assert (row["status"], row["exit_code"]) == (status, exit_code), row
            assert row["reason"].startswith(reason), row
        logs = {row["dataset.fault"]: (sweep / row["folder"] / "output.log").read_text("utf-8") for row in rows}
        for fault, last_line in (
            ("raise", "LookupError"),
            ("memory", "MemoryError"),
            ("not_a_number", "NonFiniteError"),
        ):
            assert "Traceback" in logs[fault], fault
            assert last_line in logs[fault], fault

    untouched = [sweep / rows[number]["folder"] / "train.log" for number in (0, 6)]
    before = [log.read_bytes() for log in untouched]
    (place / "cured").touch()
    with tally.trying(FAULT, "failed jobs run again", count=5):
        resumed = run("train", "-m", "--config-dir", "mine", f"sweep.resume={sweep}", timeout=600)
        assert resumed.returncode == 0, resumed.stderr
        assert [row["status"] for row in table(sweep)] == ["finished"] * 7
        assert [log.read_bytes() for log in untouched] == before
        assert resumed.stdout.count("finished before") == 2
        # Bit for bit what the jobs without a fault came to: each went on from its own checkpoint.
        assert len({row["value"] for row in table(sweep)}) == 1


@pytest.mark.slow
def test_the_wrong_variant_is_noticed(
    place: Path, genlab: Genlab, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    """All jobs in the process of the sweep, as Hydra's own launcher has them."""
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.delitem(sys.modules, "faulty", raising=False)
    monkeypatch.setenv("GENLAB_ALLOW", "faulty")
    monkeypatch.setattr(
        application, "run_job", lambda module, configuration: application._run_here(module(), configuration)
    )
    words = ("train", "-m", "--config-dir", "mine", *WORDS, "dataset.fault=exit,none", "hydra.sweep.dir=sweep")
    assert genlab(*words).code == 3
    assert [record.status for record in SweepFolder(place / "sweep").records()] == ["waiting", "waiting"]
    assert len(list((place / "sweep").glob("001-*"))) == 0
    tally.wrong_variant_noticed(FAULT, "jobs in one process: sys.exit ends the sweep")
