"""Downloads that are either complete and verified or absent."""

import errno
import fcntl
import hashlib
import http.client
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging import getLogger
from pathlib import Path
from typing import Any

from tqdm import tqdm

from genlab.errors import StorageError
from genlab.terminal import hides_bar

TIMEOUT_SECONDS = 30.0  # of silence, not of the whole download
_CHUNK_BYTES = 1 << 20
_log = getLogger(__name__)
_STORAGE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}


class DownloadError(Exception):
    """A file could not be fetched; the message is the reason alone."""


class _NoDowngrade(urllib.request.BaseHandler):
    """Handler that refuses http after https: torchvision falls back to http."""

    def __init__(self) -> None:
        self._is_secure = False

    def https_request(self, request: urllib.request.Request) -> urllib.request.Request:
        """Note a request over https, unless a server over http sent it there; called by urllib."""
        self._is_secure = self._is_secure or not request.unverifiable
        return request

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        """Refuse http after https; called by urllib."""
        if self._is_secure:
            raise urllib.error.URLError("http is refused after https")
        return request


def file_md5(path: Path) -> str:
    """Return the MD5 of a file in hex, with which older data sets were published."""
    return _digest(path, "md5")


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


@contextmanager
def exclusive_access(folder: Path, name: str) -> Iterator[None]:
    """Let one process at a time (of a sweep, of torchrun) build in a folder, which is made if missing.

    The lock is a file in the folder, for others may share the folder and not this user's cache; it is removed again.

    Raises:
        StorageError: The folder cannot be written.
    """
    path = folder / f".{name}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(path)
    except OSError as error:
        raise storage_error(folder, error) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _locked(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Whoever held the lock before has removed the file, and others may lock another of that name by now.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)


@contextmanager
def exclusive_download(folder: Path, name: str) -> Iterator[None]:
    """Let one process at a time download into a folder.

    Raises:
        DownloadError: The folder cannot be written; nothing was left there.
    """
    if folder.is_dir() and not os.access(folder, os.W_OK):
        raise DownloadError(f"{folder} cannot be written")
    with exclusive_access(folder, name):
        yield


def storage_error(path: Path, error: OSError) -> StorageError:
    """Return the error of a path that cannot be written."""
    return StorageError(
        f"cannot write {path}: {error.strerror or error}; free space there, or name another folder: dataset.root for "
        "downloads, dataset.cache for decoded images, XDG_CACHE_HOME for the rest"
    )


def torchvision_dataset(class_name: str, root: Path, **options: Any) -> Any:
    """Build a data set of torchvision, with a download if it is requested.

    Raises:
        DownloadError: The files are missing or damaged and could not be fetched.
        StorageError: The disk is full or the folder cannot be written.
    """
    from torchvision import datasets  # more than a second to import, and needless when the files are there

    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_SECONDS)  # torchvision sets none: behind a silent firewall it would hang
    opener = getattr(urllib.request, "_opener", None)
    urllib.request.install_opener(urllib.request.build_opener(_NoDowngrade()))
    try:
        return getattr(datasets, class_name)(root, **options)
    except (OSError, RuntimeError, ValueError, TypeError, AssertionError) as error:
        if isinstance(error, OSError) and error.errno in _STORAGE_ERRNOS:
            raise storage_error(root, error) from error
        raise DownloadError(" ".join(_reason(error).split())) from error
    finally:
        urllib.request.install_opener(opener)
        socket.setdefaulttimeout(patience)


def fetch(url: str, path: Path, *, digest: str, algorithm: str = "md5") -> None:
    """Download a file, which gets its name only after its digest is verified.

    Args:
        url: Address of the file.
        path: Destination; its folder is created.
        digest: The published sum, hex.
        algorithm: Of the sum.

    Raises:
        DownloadError: No answer, a cut connection, or other bytes than published.
        StorageError: The disk is full or the folder cannot be written.
    """
    # The process id keeps two runs that start together from writing into one file.
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(url, part)
        found = _digest(part, algorithm)
        if found != digest:
            raise DownloadError(f"the file received has {algorithm} {found} instead of {digest}")
        part.replace(path)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        if part.exists():
            part.unlink()


def _download(url: str, part: Path) -> None:
    _log.info("downloading %s", url)
    try:
        response = urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS)
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(_reason(error)) from error
    with response, part.open("wb") as file:
        length = response.headers.get("Content-Length")
        total = int(length) if length else None
        name = url.rsplit("/", 1)[-1]
        with tqdm(total=total, unit="B", unit_scale=True, desc=name, disable=hides_bar()) as bar:
            while chunk := _read(response):
                file.write(chunk)
                bar.update(len(chunk))


def _read(response: http.client.HTTPResponse) -> bytes:
    """Read the next bytes of a download, with its errors separate from those of writing."""
    try:
        return response.read(_CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(_reason(error)) from error


def _reason(error: Exception) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(reason) or type(error).__name__
