"""One process per run folder, no stale lock, nothing removed that somebody made."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from genlab.composition.run_folder import claimed, is_abandoned, is_untouched, require_free, require_fresh, tidy
from genlab.errors import ConfigurationError, FolderInUseError, StorageError

HOLD = """
import sys
from pathlib import Path
from genlab.composition.run_folder import claimed
with claimed(Path(sys.argv[1]), is_resumed=False):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_held_folder_is_refused_with_its_owner_and_a_kill_frees_it(tmp_path: Path) -> None:
    folder = tmp_path / "ünï run, a=b"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for attempt in (require_free, lambda place: claimed(place, is_resumed=True).__enter__()):
            with pytest.raises(FolderInUseError, match=f"in use by PID {holder.pid} on "):
                attempt(folder)
        os.kill(holder.pid, signal.SIGKILL)
    with claimed(folder, is_resumed=False):
        pass


def test_a_killed_owner_is_told_from_a_living_one_and_from_one_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with claimed(folder, is_resumed=False):
        assert not is_abandoned(folder)
    assert not is_abandoned(folder)  # left in order
    line = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert not is_abandoned(folder)
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = sorted(path.name for path in folder.iterdir())
    assert is_abandoned(folder)
    assert sorted(path.name for path in folder.iterdir()) == before
    (folder / ".owner").write_text("PID 7 on another-machine")
    assert not is_abandoned(folder)


def test_a_folder_with_a_run_is_refused_unless_resumed(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 0")
    with pytest.raises(ConfigurationError, match="new or empty folder"), claimed(tmp_path, is_resumed=False):
        pass
    with claimed(tmp_path, is_resumed=True):
        pass
    require_free(tmp_path)


def test_a_file_in_the_way_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(StorageError), claimed(folder, is_resumed=False):
            pass
        with pytest.raises(StorageError):
            require_fresh(folder)


def test_tidying_removes_only_what_a_start_leaves(tmp_path: Path) -> None:
    run = tmp_path / "outputs" / "digits_draw" / "x"
    (run / ".hydra").mkdir(parents=True)
    for name in (".hydra/config.yaml", "train.log", ".lock"):
        (run / name).write_text("")
    assert is_untouched(run)
    (run / "metrics.jsonl").write_text("")
    tidy(run)
    assert (run / "train.log").exists()
    (run / "metrics.jsonl").unlink()
    tidy(run)
    assert list(tmp_path.iterdir()) == []
