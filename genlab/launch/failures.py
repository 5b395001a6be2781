"""Conversion of exceptions to a one-line message and an exit code."""

import errno
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

from genlab.errors import (
    ConfigurationError,
    DataError,
    FolderInUseError,
    GenlabError,
    MemoryExhaustedError,
    StoppedBySignal,
    StorageError,
    is_out_of_memory,
)
from genlab.paths import from_here
from genlab.printing import one_line
from genlab.storage import is_disk_full

BUG = 1
ERROR_PREFIX = "genlab: error: "
STOPPED_PREFIX = "genlab: "
_KEPT = "the traceback is in "
_OR_OF = ", or of "
_OURS = ("genlab", "hydra_plugins")
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
INTERRUPTED = 130
_LESS_MEMORY = (
    "less is needed with a smaller num_samples of sample, batch_size of evaluate, trainer.batch_size of train"
)
# The last three: a folder stands where a file should, or the other way round.
_STORAGE_ERRNOS = {
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG),
    *(errno.EISDIR, errno.ENOTDIR, errno.EEXIST),
}


def explain(error: BaseException) -> tuple[str, int]:
    """Return a one-line message without a traceback, and the exit code.

    An expected failure has its own message. For any other exception, the chain of causes is searched for a full disk, a
    missing permission, a folder in place of a file, or exhausted memory; the rest are bugs of genlab.
    """
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    if isinstance(error, DataError):  # the files that cannot be used follow, one a line
        return "\n  ".join(one_line(line) for line in str(error).splitlines()), error.exit_code
    for link in _chain(error):
        if isinstance(link, GenlabError):
            return one_line(str(link)), link.exit_code
        if isinstance(link, OSError) and (is_disk_full(link) or link.errno in _STORAGE_ERRNOS):
            where = f": {link.filename}" if link.filename else ""
            what = f"disk full ({link.strerror})" if is_disk_full(link) else link.strerror
            return one_line(f"{what}{where}"), StorageError.exit_code
        if is_out_of_memory(link):
            told = f"out of memory ({str(link) or type(link).__name__}); {_LESS_MEMORY}"
            return one_line(told), MemoryExhaustedError.exit_code
    if _is_of_configuration(error):
        return one_line(str(error)), ConfigurationError.exit_code
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith((_KEPT, _OR_OF))]
    kept = next((note for note in notes if note.startswith(_KEPT)), "GENLAB_DEBUG=1 shows the traceback")
    place = raised_elsewhere(error)
    if place is not None:
        return one_line(f"{text}; raised in {place}, which is not part of genlab; {kept}"), BUG
    or_of = next((note for note in notes if note.startswith(_OR_OF)), "")
    return one_line(f"{text} (a bug of genlab{or_of}; {kept})"), BUG


def raised_elsewhere(error: BaseException) -> str | None:
    """Return the innermost line of an error's traceback that belongs to neither genlab nor an installed package.

    Returns:
        File, line and function; None where there is no such line, so that the error is of genlab or of a library.
    """
    if isinstance(error, SyntaxError) and error.filename and not _is_installed(error.filename):
        return f"{from_here(Path(error.filename))}:{error.lineno}"
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        code, package = frame.f_code, str(frame.f_globals.get("__name__")).partition(".")[0]
        if package not in _OURS and not _is_installed(code.co_filename):
            return f"{from_here(Path(code.co_filename))}:{line} ({code.co_qualname})"
    return None


def _is_installed(file: str) -> bool:
    path = Path(file)
    if not path.is_absolute():  # a compiled module's, or of text that was executed
        return True
    return file.startswith(_INSTALLED) or not {"site-packages", "dist-packages"}.isdisjoint(path.parts)


def note_circumstances(error: BaseException, *, log: Path | None, targets: Iterable[str]) -> None:
    """Attach to an unexpected error the notes that :func:`explain` adds to its message.

    Args:
        error: On its way to the user.
        log: The file with its traceback.
        targets: Targets of the configuration, some of which may not be genlab's.
    """
    others = [name for name in dict.fromkeys(targets) if name.partition(".")[0] not in (*_OURS, "torch")]
    if others:
        error.add_note(f"{_OR_OF}{' or '.join(others)}")
    if log is not None:
        error.add_note(f"{_KEPT}{log}")


def prefix_of(error: BaseException) -> str:
    """Return the prefix of the message on the terminal; stopping the program on purpose is not an error."""
    return STOPPED_PREFIX if isinstance(error, KeyboardInterrupt | StoppedBySignal) else ERROR_PREFIX


def leaves_folder(error: BaseException) -> bool:
    """Return True if a run folder must be kept after this error: it belongs to others, or contains the traceback."""
    texts = (str(error), *getattr(error, "__notes__", ()))
    return isinstance(error, FolderInUseError) or any(_KEPT in text for text in texts)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def _is_of_configuration(error: BaseException) -> bool:
    # Neither package is imported for this: an exception of theirs can only exist once they are.
    kinds = [
        getattr(sys.modules.get(module), name, None)
        for module, name in (("hydra.errors", "HydraException"), ("omegaconf.errors", "OmegaConfBaseException"))
    ]
    return any(kind is not None and isinstance(error, kind) for kind in kinds)
