"""`out=FOLDER`: outputs for a run that cannot be written, which is reported before anything is computed."""

import errno
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from genlab.errors import StorageError
from genlab.models.gan.gan import GAN
from genlab.storage import require_writable
from tests.conftest import Genlab


def files(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*"))


def computed(*_: object, **__: object) -> None:
    raise AssertionError("computed before it looked")


@pytest.mark.parametrize(
    ("command", "word", "made"),
    [("evaluate", "samples=false", "evaluation.json"), ("sample", "num_samples=4", "samples.png")],
)
def test_a_run_that_cannot_be_written_is_reported_first_and_goes_elsewhere(
    genlab: Genlab,
    cgan_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    word: str,
    made: str,
) -> None:
    shutil.copytree(cgan_run, "run")
    before = files(Path("run"))
    probe = tempfile.TemporaryFile

    def read_only(*, dir: Path) -> Any:
        if dir.resolve().is_relative_to(tmp_path / "run"):
            raise OSError(errno.EROFS, "Read-only file system", str(dir))
        return probe(dir=dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    with monkeypatch.context() as patch:
        patch.setattr(GAN, "evaluate", computed)
        patch.setattr(GAN, "sample", computed)
        outcome = genlab(command, "run=run", word)
    assert outcome.code == 7
    assert outcome.errors.endswith("cannot be written (Read-only file system); out=FOLDER writes elsewhere\n")
    assert genlab(command, "run=run", word, "out=some/where").code == 0
    assert files(Path("run")) == before
    assert Path("some/where", made).is_file()


def test_given_images_are_measured_elsewhere_too(genlab: Genlab, exact_run: Path, tmp_path: Path) -> None:
    Image.new("L", (8, 8), 100).save(tmp_path / "a.png")
    before = files(exact_run)
    genlab("evaluate", f"run={exact_run}", f"images={tmp_path / 'a.png'}", "out=elsewhere").checked()
    assert files(exact_run) == before
    assert Path("elsewhere/likelihoods.json").is_file()


def test_looking_makes_nothing(tmp_path: Path) -> None:
    require_writable(tmp_path / "a" / "b")
    assert files(tmp_path) == []
    for place in (Path("/proc/x"), Path("/proc")):
        with pytest.raises(StorageError, match="cannot be written"):
            require_writable(place)
