"""Standard streams that are closed, broken or gone: each command ends or continues, with at most one message."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TextIO

import pytest

from genlab.errors import StorageError
from genlab.launch.streams import _Guarded, guarded_streams, outlive_readers
from tests.faults import hooks
from tests.faults.harness import TINY, fork
from tests.faults.hooks import full_disk, vanished_terminal, without_reader

CHAPTER = "x" * 100_000  # more than any buffer holds


@pytest.fixture(params=[without_reader, vanished_terminal, full_disk])
def lost(request: pytest.FixtureRequest) -> Iterator[TextIO]:
    stream = os.fdopen(request.param(), "w")
    yield stream
    with suppress(OSError):
        stream.close()


def test_what_nobody_reads_ends_no_work(lost: TextIO, capfd: pytest.CaptureFixture[str]) -> None:
    stream = _Guarded(lost, is_needed=False)
    for _ in range(3):
        assert stream.write(CHAPTER) == len(CHAPTER)
        stream.flush()
    lost.close()  # Python does so at its end, and would complain
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("lost", "code"), [(without_reader, 141), (vanished_terminal, 129)], indirect=["lost"])
def test_a_command_that_prints_ends_with_its_reader(lost: TextIO, code: int) -> None:
    stream = _Guarded(lost, is_needed=True)
    with pytest.raises(SystemExit) as stop:
        stream.write(CHAPTER)
    assert stop.value.code == code
    stream.flush()


@pytest.mark.parametrize("lost", [full_disk], indirect=True)
def test_a_full_disk_is_said(lost: TextIO) -> None:
    stream = _Guarded(lost, is_needed=True)
    with pytest.raises(StorageError, match=r"^the standard output cannot be written: No space left on device$"):
        stream.write(CHAPTER)


@pytest.mark.parametrize("lost", [without_reader], indirect=True)
def test_one_line_says_that_the_output_is_gone(
    lost: TextIO, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with guarded_streams():
        outlive_readers()
        monkeypatch.setattr(sys.stdout, "_stream", lost)
        for _ in range(3):
            sys.stdout.write(CHAPTER)
        monkeypatch.undo()
    assert capsys.readouterr().err == "genlab: the standard output is gone (Broken pipe); the command continues\n"


def test_streams_are_put_back() -> None:
    before = sys.stdout, sys.stderr
    with guarded_streams():
        assert sys.stdout is not before[0]
    assert (sys.stdout, sys.stderr) == before


def shell(line: str) -> subprocess.CompletedProcess[str]:
    program = f'genlab() {{ {sys.executable} -m genlab "$@"; }}; {line}'
    return subprocess.run(["sh", "-c", program], capture_output=True, text=True, timeout=60)


FULL = "genlab: error: the standard output cannot be written: No space left on device\n"
LINES = [
    ("genlab --version >&-", 0, ""),
    ("genlab --version 2>&-", 0, ""),
    ("genlab --version <&- >&- 2>&-", 0, ""),
    ("genlab nonsense >&-", 2, "genlab: error: there is no command"),
    ("genlab nonsense 2>&-", 2, ""),
    ("genlab nonsense 2>/dev/full", 2, ""),
    ("genlab --version >/dev/full", 7, FULL),
    ("genlab --version | true; exit 0", 0, ""),
    ("PYTHONIOENCODING=ascii genlab nonsense-ü", 2, r"genlab: error: there is no command 'nonsense-\xfc'"),
    ("PYTHONIOENCODING=ascii genlab datasets >/dev/null", 0, ""),
]


@pytest.mark.parametrize(("line", "code", "errors"), LINES)
def test_no_command_calls_a_closed_stream_a_bug(line: str, code: int, errors: str) -> None:
    result = shell(line)
    assert (result.returncode, result.stderr.count("\n")) == (code, min(len(errors), 1)), result.stderr
    assert result.stderr.startswith(errors)


def test_no_file_gets_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    """Standard output of a library would otherwise be written into a file of the run."""
    program = (
        "import os; from genlab.launch.streams import guarded_streams\n"
        "with guarded_streams():\n    file = open('precious', 'w')\n    assert os.get_inheritable(1)\n"
        "    os.system('echo overwritten; echo overwritten >&2')\n    file.write(str(file.fileno()))"
    )
    line = ["sh", "-c", f'exec {sys.executable} -c "$0" <&- >&- 2>&-', program]
    assert subprocess.run(line, cwd=tmp_path, timeout=60).returncode == 0
    assert int((tmp_path / "precious").read_text()) > 2


@pytest.mark.slow
@pytest.mark.parametrize("opened", [vanished_terminal, without_reader, full_disk])
def test_training_goes_on_and_finishes(tmp_path: Path, opened: Callable[[], int]) -> None:
    hook = partial(hooks.output_to, opened)
    fork(*TINY["draw"], "trainer.num_steps=6", folder=tmp_path / "run", hook=hook).succeed()
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "finished"
