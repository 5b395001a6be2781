"""`genlab datasets`: the list, and the summary of one data set before anything is trained on it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.composed import values_of
from genlab.config.build import build
from genlab.data.dataset import Dataset
from tests.conftest import Genlab, Outcome


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Ten pictures of cats, eight of dogs."""
    generator = np.random.default_rng(0)
    for name, count in (("cats", 10), ("dogs", 8)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for index in range(count):
            levels = generator.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(levels).save(tmp_path / "pictures" / name / f"{index}.png")
    return tmp_path / "pictures"


def look(genlab: Genlab, folder: Path, *arguments: str) -> Outcome:
    return genlab("datasets", "folder", f"dataset.root={folder}", f"dataset.cache={folder}.cache", *arguments)


def test_the_list_does_without_torch() -> None:
    program = (
        "import sys; from genlab.cli import main; assert main(['datasets']) == 0; assert 'torch' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "\nmnist " in result.stdout


@pytest.mark.parametrize("arguments", [("digits",), ("dataset=digits",)])
def test_a_look_is_at_the_data_that_training_reads(genlab: Genlab, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    outcome = genlab("datasets", *arguments, "dataset.size=8", "dataset.binarization=none").checked()
    values = values_of("dataset=digits", "dataset.size=8", "dataset.binarization=none")
    dataset = build(values["dataset"], "dataset", expects=Dataset)
    lines = outcome.output.splitlines()
    assert lines[0] == dataset.provenance
    assert lines[1] == "8x8 pixels, channels 1, levels 17, classes 10"
    assert lines[-1] == f"fingerprint {dataset.fingerprint}"
    assert outcome.errors == ""
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_reported_by_class(genlab: Genlab, pictures: Path) -> None:
    outcome = look(genlab, pictures, "dataset.validation_fraction=0.5", "dataset.test_fraction=0")
    assert outcome.code == 0, outcome.errors
    lines = outcome.output.splitlines()
    assert lines[0] == "folder pictures 32x32, 256 levels, 9/9/0"
    rows = {
        line.split()[1]: [int(count) for count in line.split()[2:]]
        for line in lines
        if " cats " in line or " dogs " in line
    }
    assert {name: sum(counts) for name, counts in rows.items()} == {"cats": 10, "dogs": 8}
    assert next(line for line in lines if line.startswith("test ")).split() == ["test", "0", "-", "-"]


def test_every_bad_file_is_reported_as_training_tells_it(
    genlab: Genlab, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (pictures / "cats" / "empty.png").touch()
    whole = (pictures / "dogs" / "0.png").read_bytes()
    (pictures / "dogs" / "cut.png").write_bytes(whole[: len(whole) // 2])
    outcome = look(genlab, pictures, "dataset.on_error=skip")
    assert outcome.code == 0
    assert outcome.output.splitlines()[0] == "folder pictures 32x32, 2 files skipped, 256 levels, 16/1/1"
    assert "cats/empty.png is empty" in caplog.text
    told = []
    for command in (("datasets", "folder"), ("train", "dataset=folder")):
        outcome = genlab(*command, f"dataset.root={pictures}", f"dataset.cache={pictures}.cache")
        assert outcome.code == 3
        told.append(outcome.errors[outcome.errors.index("genlab: error: 2 files below ") :])
    assert told[0] == told[1]
    assert [line.split()[0] for line in told[0].splitlines()[1:]] == ["cats/empty.png", "dogs/cut.png"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("folder",), 2, "dataset.root must name the folder of images, got null"),
        (("folder", "dataset.root=nowhere"), 3, "dataset.root must be an existing folder"),
        (("folder", "dataset.root=."), 3, "dataset.root must hold PNG, JPEG or WebP files"),
        (("digits", "dataset.size=9"), 2, "dataset.size must be 8 or 16 or 28, got 9"),
        (("digits", "mnist"), 2, "one dataset must be given, got digits and mnist"),
        (("my/pictures",), 2, "dataset has no option 'my/pictures'; options: "),
        (
            ("mnist", "dataset.root=.", "dataset.download=false"),
            3,
            "MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte are missing",
        ),
    ],
)
def test_what_cannot_be_looked_at_is_reported_in_a_line(
    genlab: Genlab, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    outcome = genlab("datasets", *arguments)
    assert (outcome.code, message in outcome.errors) == (code, True), outcome.errors
    assert len(outcome.errors.splitlines()) == 1
    assert outcome.output == ""
    assert list(tmp_path.iterdir()) == []


def test_a_key_without_effect_is_refused_as_by_training(genlab: Genlab) -> None:
    words = ("digits", "dataset.binarization=none", "dataset.threshold=0.3")
    looked, trained = genlab("datasets", *words), genlab("train", "dataset=digits", *words[1:])
    assert (looked.code, looked.errors) == (trained.code, trained.errors)
    assert "dataset.threshold has no effect while dataset.binarization is none" in looked.errors


def test_the_empty_folder_of_a_failed_download_is_not_found(genlab: Genlab, tmp_path: Path) -> None:
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    assert "nothing found" in genlab("doctor", f"root={tmp_path}").output
    (tmp_path / "MNIST" / "raw" / "images").touch()
    (tmp_path / "train_32x32.mat").touch()
    (tmp_path / "classifiers").mkdir()
    (tmp_path / "classifiers" / "model").touch()
    assert "found: MNIST, train_32x32.mat\n" in genlab("doctor", f"root={tmp_path}").output
    assert f"must be an existing folder, got {tmp_path}/no" in genlab("doctor", f"root={tmp_path}/no").output
