"""Fault 15: places where nothing can be written, answered by the whole program; typos: tests/config/test_typos.py."""

import locale
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genlab.cli import main
from genlab.run import folder as run_folder
from tests.conftest import Genlab
from tests.faults.harness import environment, run
from tests.faults.tally import Tally

FAULT = "15 typos and places"
TINY = (
    *("model=draw", "model.num_glimpses=2", "model.num_units=16", "dataset.size=8", "num_threads=1", "trainer=smoke"),
    *("trainer.num_steps=2", "trainer.sample_interval=2", "trainer.num_sample_images=4"),
)
NOBODY = 65534
LIMIT_SECONDS = 5
"""From a line to its refusal, once everything is imported: there is nothing to wait for."""


def read_only(folder: Path) -> list[str]:
    folder.mkdir()
    folder.chmod(0o555)
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if os.geteuid() == 0 else []


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_reported_before_anything_is_built(tmp_path: Path, tally: Tally) -> None:
    """As another user where this one is root, who may write everywhere."""
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.stat().st_mode & 0o005 != 0o005 and os.geteuid() == 0:
            if parent.owner() != "root" or not str(parent).startswith("/tmp"):
                pytest.skip(f"{parent} cannot be entered by another user")
            parent.chmod(parent.stat().st_mode | 0o055)
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("no setpriv")
    prefix = read_only(tmp_path / "locked")
    with tally.trying(FAULT, "places that cannot be written"):
        result = subprocess.run(
            [*prefix, sys.executable, "-m", "genlab", "train", *TINY, f"hydra.run.dir={tmp_path / 'locked' / 'run'}"],
            capture_output=True,
            text=True,
            timeout=300,
            cwd=tmp_path / "locked",
            env=environment(HOME=str(tmp_path), PYTHONDONTWRITEBYTECODE="1"),
        )
        assert (result.returncode, result.stderr.count("\n")) == (7, 1), result.stderr
        assert "Permission denied" in result.stderr
        assert str(tmp_path / "locked") in result.stderr
        assert not any((tmp_path / "locked").iterdir())


@pytest.fixture(scope="module")
def imported() -> None:
    """A line that was refused before has imported everything."""
    assert main(["train", *TINY, "hydra.run.dir=/proc/run"]) == 7


@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize(
    ("place", "code", "answer"),
    [
        ("a_file/run", 7, "a_file is a file"),
        ("a_file", 7, "a_file is a file"),
        ("/proc/run", 7, "/proc/run cannot be made: No such file or directory; hydra.run.dir=FOLDER ("),
        ("x" * 300, 7, "File name too long"),
        (f"deep/{'/'.join(['y' * 250] * 17)}", 7, "File name too long"),
        ("full", 2, "must be a new or empty folder"),
    ],
    ids=["below a file", "a file", "/proc", "a name of 300 letters", "a path of 4,000", "a full folder"],
)
def test_a_place_that_is_none_is_reported(
    genlab: Genlab, tmp_path: Path, tally: Tally, place: str, code: int, answer: str
) -> None:
    (tmp_path / "a_file").write_text("precious")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    before = sorted(tmp_path.rglob("*"))
    with tally.trying(FAULT, "places that cannot be written"):
        begun = time.monotonic()
        outcome = genlab("train", *TINY, f"hydra.run.dir={place}")
        assert (outcome.code, outcome.errors.count("\n")) == (code, 1), outcome.errors
        assert time.monotonic() - begun < LIMIT_SECONDS
        assert answer in outcome.errors
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_without_the_early_look_the_failure_would_come_late_and_at_length(
    genlab: Genlab, tmp_path: Path, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left to Hydra, a folder that holds a thesis is trained into."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    monkeypatch.setattr("genlab.launch.preflight.require_fresh", lambda folder: None)
    monkeypatch.setattr(run_folder, "require_fresh", lambda folder: None)
    assert genlab("train", *TINY, "hydra.run.dir=full").code == 0
    tally.wrong_variant_noticed(FAULT, "no look at the folder")


NAME = "ünï 日本 a=b,c 'quoted' [x]"


@pytest.fixture(scope="module")
def odd_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was made in a folder of any name under the plainest locale."""
    place = tmp_path_factory.mktemp("odd") / NAME
    place.mkdir()
    result = subprocess.run(
        [sys.executable, "-m", "genlab", "train", *TINY, "hydra.run.dir=run"],
        capture_output=True,
        timeout=300,
        cwd=place,
        env=environment(LC_ALL="C", LANG="C"),
    )
    assert result.returncode == 0, result.stderr.decode(errors="replace")
    return place / "run"


@pytest.mark.slow
def test_a_run_in_a_place_of_any_name_under_the_plainest_locale(odd_run: Path, tally: Tally) -> None:
    with tally.trying(FAULT, "runs in a folder of Unicode, spaces, commas and brackets under LC_ALL=C"):
        text = (odd_run / "train.log").read_text(encoding="utf-8")
        assert "finished" in text
        assert "Traceback" not in text


COMMANDS = {
    "sample": ("sample", "run={run}", "num_samples=4"),
    "evaluate": ("evaluate", "run={run}", "num_images=8", "num_importance_samples=0"),
    "export": ("export", "run={run}"),
    "compare": ("compare", "{run}"),
    "report": ("report", "{run}"),
    "resume": ("train", "resume={run}", "trainer.num_steps=3"),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_finds_a_run_there(genlab: Genlab, odd_run: Path, tally: Tally, command: str) -> None:
    with tally.trying(FAULT, "commands on a folder of Unicode, spaces, commas and brackets"):
        genlab(*(word.format(run=odd_run) for word in COMMANDS[command])).checked()


@pytest.mark.parametrize("name", ["C", "tr_TR.UTF-8", "de_DE.UTF-8"])
def test_numbers_and_names_do_not_depend_on_the_locale(
    genlab: Genlab, monkeypatch: pytest.MonkeyPatch, tally: Tally, name: str
) -> None:
    """A decimal comma or a dotless i would change YAML, JSON and the names of keys."""
    before = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_ALL, name)
    except locale.Error:
        pytest.skip(f"this machine has no locale {name}")
    try:
        with tally.trying(FAULT, "locales"):
            genlab("train", *TINY, "hydra.run.dir=run", "trainer.sample_interval=0").checked()
            assert "lr: 0.005" in Path("run/config.yaml").read_text(encoding="utf-8")
    finally:
        locale.setlocale(locale.LC_ALL, before)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["sample", "evaluate", "export", "compare"])
def test_every_command_finds_a_run_there_under_the_plainest_locale(
    odd_run: Path, tally: Tally, command: str, tmp_path: Path
) -> None:
    shutil.copytree(odd_run, tmp_path / NAME, ignore=shutil.ignore_patterns("export"))
    with tally.trying(FAULT, "commands there under LC_ALL=C"):
        words = (word.format(run=tmp_path / NAME) for word in COMMANDS[command])
        result = run(*words, timeout=300, LC_ALL="C", LANG="C")
        assert result.returncode == 0, result.stderr
