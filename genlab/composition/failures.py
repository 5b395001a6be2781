"""From an exception to one line and an exit code."""

import errno
import sys
from collections.abc import Iterator

from genlab.errors import (
    ConfigurationError,
    DataError,
    FolderInUseError,
    GenlabError,
    MemoryExhaustedError,
    StorageError,
    is_out_of_memory,
)
from genlab.printing import printable
from genlab.storage import is_disk_full

BUG = 1
INTERRUPTED = 130
# The last three: a folder stands where a file should, or the other way round.
_STORAGE_ERRNOS = {
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG),
    *(errno.EISDIR, errno.ENOTDIR, errno.EEXIST),
}


def explain(error: BaseException) -> tuple[str, int]:
    """One line without a traceback, and the exit code of the contract.

    An expected failure speaks for itself; behind anything else, a full disk, a missing permission, a folder in place of
    a file or exhausted memory anywhere in the chain of causes is what happened, and what remains is a bug of ours.
    """
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    if isinstance(error, DataError):  # the files that cannot be used follow, one a line
        return "\n  ".join(one_line(line) for line in str(error).splitlines()), error.exit_code
    if isinstance(error, GenlabError):
        return one_line(str(error)), error.exit_code
    chain = list(_chain(error))
    for link in chain:
        if isinstance(link, GenlabError):
            return one_line(str(link)), link.exit_code
        if isinstance(link, OSError) and (is_disk_full(link) or link.errno in _STORAGE_ERRNOS):
            where = f": {link.filename}" if link.filename else ""
            what = f"disk full ({link.strerror})" if is_disk_full(link) else link.strerror
            return one_line(f"{what}{where}"), StorageError.exit_code
        if is_out_of_memory(link):
            way_out = "try a smaller trainer.batch_size, or trainer.gradient_accumulation=2 and more"
            return one_line(f"out of memory ({str(link) or type(link).__name__}); {way_out}"), (
                MemoryExhaustedError.exit_code
            )
    if _is_of_configuration(error):
        return one_line(str(error)), ConfigurationError.exit_code
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return one_line(f"{text} (a bug of genlab; GENLAB_DEBUG=1 shows the traceback)"), BUG


def one_line(text: str) -> str:
    """The text with every run of white space made one space; what strangers wrote in it moves no cursor."""
    return printable(" ".join(text.split()))


def leaves_folder_to_others(error: BaseException) -> bool:
    """Whether a run folder must not be tidied up after this error, for it belongs to another process."""
    return isinstance(error, FolderInUseError)


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
