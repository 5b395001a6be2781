"""Every failure has a message of one line and an exit code."""

import errno
import importlib.util
from pathlib import Path

import pytest
import torch

from genlab.config.plain_yaml import load_plain
from genlab.errors import (
    CheckpointError,
    ConfigurationError,
    DataError,
    FolderInUseError,
    NonFiniteError,
    StoppedBySignal,
    SweepError,
)
from genlab.launch.failures import explain, leaves_folder, note_circumstances


def caused(outer: Exception, inner: BaseException) -> Exception:
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyError("x"), 1),
        (ConfigurationError("x"), 2),
        (DataError("x"), 3),
        (caused(DataError("x"), PermissionError(errno.EACCES, "denied")), 3),
        (CheckpointError("x"), 4),
        (NonFiniteError("x"), 5),
        (MemoryError(), 6),
        (torch.OutOfMemoryError("CUDA out of memory"), 6),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), 6),
        (OSError(errno.ENOSPC, "No space left on device"), 7),
        (OSError(errno.EROFS, "Read-only file system"), 7),
        (caused(RuntimeError("PytorchStreamWriter failed"), OSError(errno.ENOSPC, "No space left on device")), 7),
        (PermissionError(errno.EACCES, "Permission denied", "outputs"), 7),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "summary.json"), 7),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "samples/x.png"), 7),
        (caused(ValueError("x"), FileExistsError(errno.EEXIST, "File exists", "samples")), 7),
        (FileNotFoundError(errno.ENOENT, "No such file"), 1),
        (FolderInUseError("x"), 8),
        (SweepError("x"), 9),
        (KeyboardInterrupt(), 130),
        (StoppedBySignal("x", 15), 143),
    ],
)
def test_exit_codes(error: BaseException, code: int) -> None:
    message, found = explain(error)
    assert found == code
    assert message
    assert "\n" not in message


def test_a_bug_says_how_to_see_its_traceback() -> None:
    assert "GENLAB_DEBUG=1" in explain(ZeroDivisionError("two\nlines"))[0]
    # Handling an expected error does not make a bug expected.
    bug = AssertionError("x")
    bug.__context__ = ValueError("y")
    assert explain(bug)[1] == 1


@pytest.mark.parametrize("kind", [ConfigurationError, DataError, KeyError, PermissionError])
def test_no_line_moves_the_cursor(kind: type[Exception]) -> None:
    message, _ = explain(kind("a\x1b]0;title\x07 \x9b2J \u202e\n\tb \u00e9"))
    assert message.replace("\n", " ").isprintable()
    assert "\u00e9" in message


def test_files_that_cannot_be_used_stand_one_a_line() -> None:
    message, code = explain(DataError("2 files cannot be used:\na.png is  empty\nb.png is truncated"))
    assert (message, code) == ("2 files cannot be used:\n  a.png is empty\n  b.png is truncated", 3)


def test_an_exception_out_of_the_users_own_code_is_not_called_our_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("import torch\n\nclass Model:\n    def loss(self):\n        torch.cat([])\n")
    spec = importlib.util.spec_from_file_location("mine", tmp_path / "mine.py")
    assert spec is not None
    assert spec.loader is not None
    mine = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mine)
    with pytest.raises(ValueError, match="non-empty") as raised:
        mine.Model().loss()
    note_circumstances(raised.value, log=Path("run/train.log"), targets=["mine.Model"])
    message, code = explain(raised.value)
    assert code == 1
    place = "raised in mine.py:5 (Model.loss), which is not part of genlab; the traceback is in run/train.log"
    assert message.endswith(place)
    assert leaves_folder(raised.value)

    (tmp_path / "wrong.py").write_text("x = (")
    with pytest.raises(SyntaxError) as unread:
        compile("x = (", str(tmp_path / "wrong.py"), "exec")
    unread.value.__traceback__ = None
    assert "; raised in wrong.py:1, which is not part of genlab; GENLAB_DEBUG=1" in explain(unread.value)[0]


def test_an_exception_of_genlab_is_its_bug_though_a_library_raised_it() -> None:
    with pytest.raises(TypeError) as raised:
        load_plain(None)  # type: ignore[arg-type]
    error = raised.value
    assert error.__traceback__ is not None
    error.__traceback__ = error.__traceback__.tb_next  # without this file, which is no part of genlab
    note_circumstances(error, log=None, targets=["genlab.models.draw.draw.DRAW", "torch.optim.Adam"])
    assert explain(error)[0].endswith("(a bug of genlab; GENLAB_DEBUG=1 shows the traceback)")
    note_circumstances(error, log=None, targets=["genlab.models.draw.draw.DRAW", "mine.Model", "mine.Model"])
    assert explain(error)[0].endswith("(a bug of genlab, or of mine.Model; GENLAB_DEBUG=1 shows the traceback)")
    assert not leaves_folder(error)
