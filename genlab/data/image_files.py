"""Search for the image files below a folder: ignored entries, and the treatment of links."""

import os
import stat
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path

from genlab.data.location import require_folder
from genlab.data.sample_record import RECORD_NAME
from genlab.errors import DataError
from genlab.printing import printable

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp"})
# Of file systems, network storage, archives and programs; those of other programs begin with a dot.
_SYSTEM_NAMES = frozenset(
    {"@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot", "__macosx", "__pycache__"}
    | {"lost+found", "$recycle.bin", "system volume information"}
    | {"network trash folder", "temporary items", "thumbs.db", "ehthumbs.db", "desktop.ini"}
)
_log = getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """The identity of a file, from which a change is detected.

    Attributes:
        name: Relative to the folder, with forward slashes.
        num_bytes: Its size.
        modified_ns: Its time of modification, nanoseconds.
    """

    name: str
    num_bytes: int
    modified_ns: int


def scan(top: Path, *, key: str) -> list[ImageFile]:
    """Return the image files below a folder, sorted by name; ignored files are logged.

    Args:
        top: The folder.
        key: The setting that named it, for the errors.

    Raises:
        DataError: The folder does not exist, cannot be listed or holds no image.
    """
    require_folder(top, key=key)
    passed_over = Counter[str]()
    files = sorted(_images_below(top, passed_over), key=lambda file: file.name)
    listed = ", ".join(f"{count} {printable(kind)}" for kind, count in sorted(passed_over.items()))
    if not files:
        found = f" (it holds {listed})" if listed else ""
        raise DataError(f"{key} must hold PNG, JPEG or WebP files, {printable(str(top))} has none{found}")
    if listed:
        _log.warning("%s: ignored: %s", printable(str(top)), listed)
    return files


def _images_below(top: Path, passed_over: Counter[str]) -> Iterator[ImageFile]:
    """Yield the images below a folder; each real folder is read once, so that circular links end.

    Each file is read once too, by its own name if it lies below the folder: under two names it would be an image of
    two splits or two classes.
    """
    seen: set[tuple[int, int]] = set()
    real_files = set[str]()
    links_to_files: list[os.DirEntry[str]] = []
    around = {_identity(place) for place in top.resolve().parents}
    folders, links = [top], deque[Path]()
    while folders or links:
        place = folders.pop() if folders else links.popleft()
        identity = _identity(place)
        if identity in around or identity in seen:
            passed_over["links to folders around them" if identity in around else "links to folders read already"] += 1
            continue
        seen.add(identity)
        real_place = place.resolve()
        for entry in _entries(place):
            if entry.name == RECORD_NAME:
                continue
            is_folder = Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()
            if (kind := _kind_passed_over(entry, is_folder=is_folder)) is not None:
                passed_over[kind] += 1
            elif is_folder:
                (links if entry.is_symlink() else folders).append(Path(entry.path))
            elif entry.is_symlink():
                links_to_files.append(entry)
            else:
                real_files.add(str(real_place / entry.name))
                yield _image_file(entry, top)
    for entry in sorted(links_to_files, key=lambda entry: entry.path):
        if (real_file := os.path.realpath(entry.path)) in real_files:
            passed_over["links to files read already"] += 1
        else:
            real_files.add(real_file)
            yield _image_file(entry, top)


def _image_file(entry: "os.DirEntry[str]", top: Path) -> ImageFile:
    status = _status(entry)
    name = Path(entry.path).relative_to(top).as_posix()
    return ImageFile(name=name, num_bytes=status.st_size, modified_ns=status.st_mtime_ns)


def _kind_passed_over(entry: "os.DirEntry[str]", *, is_folder: bool) -> str | None:
    """Return the kind, in the plural, of an ignored entry; None for an image or a folder of images."""
    if entry.name.startswith("."):
        return "hidden folders" if is_folder else "hidden files"
    if entry.name.lower() in _SYSTEM_NAMES:
        return "system folders" if is_folder else "system files"
    if is_folder:
        return None
    suffix = Path(entry.name).suffix.lower()
    is_dangling = entry.is_symlink() and not Path(entry.path).exists()
    if suffix not in SUFFIXES:
        return "dangling links" if is_dangling else suffix or "files without suffix"
    # A dangling link of an image is refused when it is read; a pipe would wait for its writer.
    return None if is_dangling or stat.S_ISREG(_status(entry).st_mode) else "pipes and devices"


def _entries(place: Path) -> "list[os.DirEntry[str]]":
    try:
        with os.scandir(place) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"the folder {printable(str(place))} cannot be listed ({error.strerror})") from error


def _status(entry: "os.DirEntry[str]") -> os.stat_result:
    try:
        return entry.stat()
    except OSError:
        return entry.stat(follow_symlinks=False)  # a dangling link


def _identity(place: Path) -> tuple[int, int]:
    status = place.stat()
    return status.st_dev, status.st_ino
