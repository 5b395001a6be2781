"""Numbered folders, one process in each, no stale lock, and no file of a user's removed."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from genlab.errors import ConfigurationError, FolderInUseError, StorageError
from genlab.run.folder import (
    clear,
    is_abandoned,
    is_untouched,
    locked,
    make_new,
    never_saved,
    require_free,
    require_fresh,
    tidy,
)

HOLD = """
import sys
from pathlib import Path
from genlab.run.folder import locked
with locked(Path(sys.argv[1]), is_resumed=False):
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
        for attempt in (require_free, lambda place: locked(place, is_resumed=True).__enter__()):
            with pytest.raises(FolderInUseError, match=f"in use by PID {holder.pid} on "):
                attempt(folder)
        os.kill(holder.pid, signal.SIGKILL)
    with locked(folder, is_resumed=False):
        pass


def test_a_pipe_in_the_place_of_the_owner_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".owner")
    with locked(tmp_path, is_resumed=True):
        assert (tmp_path / ".owner").read_text().startswith("PID")
        (tmp_path / ".owner").unlink()
        os.mkfifo(tmp_path / ".owner")
        with pytest.raises(FolderInUseError, match="another process"):
            require_free(tmp_path)


def test_a_killed_owner_is_told_from_a_living_one_and_from_one_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with locked(folder, is_resumed=False):
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
    with pytest.raises(ConfigurationError, match="new or empty folder"), locked(tmp_path, is_resumed=False):
        pass
    with locked(tmp_path, is_resumed=True):
        pass
    require_free(tmp_path)


def test_a_file_in_the_way_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(StorageError), locked(folder, is_resumed=False):
            pass
        with pytest.raises(StorageError):
            require_fresh(folder)


def test_tidying_removes_only_what_a_start_leaves(tmp_path: Path) -> None:
    run = tmp_path / "outputs" / "digits-draw" / "x"
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


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, True),
        ({"metrics.jsonl": "", "train.log": "seed: 0", "events.out.tfevents.1": "x"}, True),
        ({"summary.json": '{"step": 3, "saved_step": 0}', "metrics.jsonl": '{"step": 3}'}, True),
        ({"summary.json": '{"saved_step": 0}', "checkpoints/.last.safetensors.7.tmp": "x"}, True),
        ({"summary.json": '{"saved_step": 0}', "checkpoints/best.safetensors": "x"}, False),
        ({"summary.json": '{"saved_step": 5}'}, False),  # its checkpoints have been removed
        ({"summary.json": '{"saved_step": 0}', "checkpoints/last.safetensors.damaged": "x"}, False),
        ({"summary.json": '{"saved_step": 0'}, False),
        ({"summary.json": "{}"}, False),
        ({"checkpoints/.last.safetensors.7.tmp": "{}"}, False),  # summary.json stands before the first save begins
        ({"metrics.jsonl": '{"step": 5}'}, False),
    ],
)
def test_only_a_run_that_cannot_have_saved_anything_is_said_never_to_have(
    tmp_path: Path, files: dict[str, str], expected: bool
) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert never_saved(tmp_path) == expected


def test_a_cleared_folder_keeps_its_logs_its_start_and_what_is_named(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    for place in (folder / ".hydra", folder / "checkpoints", elsewhere):
        place.mkdir(parents=True)
    for path in (
        *(folder / name for name in (".hydra/config.yaml", "config.yaml", ".lock", "train.log")),
        elsewhere / "kept",
    ):
        path.touch()
    (folder / "checkpoints" / "last.safetensors").touch()
    (folder / "samples").symlink_to(elsewhere)
    clear(folder, keep="config.yaml")
    assert sorted(path.name for path in folder.iterdir()) == [".hydra", ".lock", "config.yaml", "train.log"]
    clear(folder)
    assert sorted(path.name for path in folder.iterdir()) == [".hydra", ".lock", "train.log"]
    clear(tmp_path / "missing")
    assert (elsewhere / "kept").exists()


def test_starts_at_the_same_instant_never_share_a_number(tmp_path: Path) -> None:
    """Half of them fail at once, so that folders vanish while others are made."""

    def start(number: int) -> Path:
        folder, is_new = make_new(tmp_path / "outputs" / "digits-draw" / f"NNNN-seed-{number}".removesuffix("-seed-0"))
        assert is_new
        if number % 2:
            tidy(folder)
        else:
            (folder / "config.yaml").touch()
        return folder

    with ThreadPoolExecutor(max_workers=16) as executor:
        made = list(executor.map(start, range(64)))
    kept = sorted(path.name for path in (tmp_path / "outputs" / "digits-draw").iterdir())
    assert kept == sorted(path.name for path in made[::2])
    assert len({name.partition("-")[0] for name in kept}) == 32


def test_the_next_number_follows_the_highest_whatever_stands_beside_it(tmp_path: Path) -> None:
    for name in ("0009-lr-1e-3", "0002", "mine", "0041x", "12-old"):
        (tmp_path / name).mkdir()
    assert make_new(tmp_path / "NNNN-seed-1") == (tmp_path / "0013-seed-1", True)
    assert make_new(tmp_path / "NNNN") == (tmp_path / "0014", True)
    assert make_new(tmp_path / "mine") == (tmp_path / "mine", False)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        make_new(tmp_path / "file" / "NNNN")
