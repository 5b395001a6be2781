"""Cache of the decoded bytes of a folder, written once under a name that identifies their source."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from tqdm import tqdm

from genlab.data.containers import RefusedImage, UnreadableImage
from genlab.data.decoding import PictureRules, decode, decoded
from genlab.data.download import exclusive_access, storage_error
from genlab.data.image_files import ImageFile
from genlab.errors import DataError
from genlab.printing import printable
from genlab.storage import whole_folder
from genlab.terminal import hides_bar

_FORMAT = 5  # of the cache and of the rules in decoding.py and containers.py: raise it when one of them changes
_log = getLogger(__name__)


def decoded_folder(
    top: Path, files: Sequence[ImageFile], *, place: Path, rules: PictureRules, max_skipped: int, num_workers: int
) -> tuple[UInt8[Tensor, "M C H W"], Mapping[str, str]]:
    """Return the pictures of files, memory-mapped, and the name and reason of each file that is skipped.

    The files are decoded if they or the rules are new.

    Args:
        top: The folder of the files.
        files: Its files.
        place: Folder that holds the caches of all folders.
        rules: The form into which every file is decoded.
        max_skipped: Refuse the folder when more files than this cannot be used.
        num_workers: Threads that decode; Pillow releases the interpreter while it does.

    Raises:
        DataError: More files than allowed cannot be used; all are listed with their reasons.
        StorageError: The cache cannot be written.
    """
    # Names, sizes and times rather than contents: reading every byte would cost as much as decoding.
    states = [(file.name, file.num_bytes, file.modified_ns) for file in files]
    key = hashlib.sha256(json.dumps([_FORMAT, str(top), asdict(rules), states]).encode()).hexdigest()[:32]
    home = place / key
    manifest = _valid_manifest(top, home)
    if manifest is None:  # else nothing is written, for the place may be read-only
        with exclusive_access(place, key):
            manifest = _valid_manifest(top, home) or _write(home, top, files, rules, num_workers)
    skipped: dict[str, str] = manifest["skipped"]
    if len(skipped) > max_skipped:
        way_on = f"dataset.max_skipped={max_skipped} is the most"
        if max_skipped == 0:
            way_on = "dataset.on_error=skip leaves out up to dataset.max_skipped of them"
        scaling = "; dataset.crop=center or stretch scales them" if rules.crop == "none" else ""
        raise DataError(
            f"{len(skipped)} files below {printable(str(top))} cannot be used ({way_on}{scaling}):{_list(skipped)}"
        )
    if skipped:
        _log.warning("%d files cannot be used and are skipped:%s", len(skipped), _list(skipped))
    animated: dict[str, int] = manifest["animated"]
    if animated:
        names = ", ".join(f"{printable(name)} ({count} frames)" for name, count in animated.items())
        _log.warning("of %d animated files only the first frame is used: %s", len(animated), names)
    shape = (len(files) - len(skipped), rules.channels, *rules.sides)
    if shape[0] == 0:
        raise DataError(f"no file below {printable(str(top))} can be used:{_list(skipped)}")
    levels = np.memmap(home / "images.u8", dtype=np.uint8, mode="c", shape=shape)  # writes never reach the file
    return torch.from_numpy(levels), skipped


def _valid_manifest(top: Path, home: Path) -> dict[str, Any] | None:
    """Return the manifest of a cache; None if the cache is missing, incomplete or of an older format."""
    try:
        manifest: dict[str, Any] = json.loads((home / "manifest.json").read_text())
        num_bytes = (home / "images.u8").stat().st_size
    except (OSError, ValueError):
        return None
    # A file may have become readable without a change of its name, size or time.
    is_outdated = any(_can_be_read(top / name) for name in manifest.get("unreadable", ()))
    return manifest if manifest.get("num_bytes") == num_bytes and not is_outdated else None


def _write(home: Path, top: Path, files: Sequence[ImageFile], rules: PictureRules, num_workers: int) -> dict[str, Any]:
    """Decode all files into a folder, which appears when it is complete; return its manifest."""
    try:
        if home.exists():  # damaged
            shutil.rmtree(home)
        with whole_folder(home) as part:
            manifest = _decode_all(part / "images.u8", top, [file.name for file in files], rules, num_workers)
            (part / "manifest.json").write_text(json.dumps(manifest))
    except OSError as error:
        raise storage_error(home, error) from error
    return manifest


def _decode_all(path: Path, top: Path, names: Sequence[str], rules: PictureRules, num_workers: int) -> dict[str, Any]:
    skipped: dict[str, str] = {}
    unreadable: list[str] = []
    animated: dict[str, int] = {}
    shown = f"decoding {printable(top.name)}"
    _log.info("%s: %s files, once", shown, f"{len(names):,}")
    with path.open("wb") as file, tqdm(total=len(names), desc=shown, unit="image", disable=hides_bar()) as bar:
        for name, result in decoded(names, lambda name: decode(top / name, rules), num_workers=num_workers, bar=bar):
            if isinstance(result, RefusedImage):
                skipped[name] = str(result)
                if isinstance(result, UnreadableImage):
                    unreadable.append(name)
            else:
                file.write(result.levels)
                if result.num_frames > 1:
                    animated[name] = result.num_frames
        file.flush()
        os.fsync(file.fileno())
        num_bytes = file.tell()
    return {"num_bytes": num_bytes, "skipped": skipped, "unreadable": unreadable, "animated": animated}


def _can_be_read(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError:
        return False
    return True


def _list(skipped: Mapping[str, str]) -> str:
    return "".join(f"\n  {printable(name)} {reason}" for name, reason in skipped.items())
