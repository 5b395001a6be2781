"""Every failure has its line and its code."""

import errno

import pytest
import torch

from genlab.composition.failures import explain
from genlab.errors import (
    CheckpointError,
    ConfigurationError,
    DataError,
    FolderInUseError,
    NonFiniteError,
    StoppedBySignal,
    SweepError,
)


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
