"""Samples as files: the images that are measured, resumable, and never half written."""

import errno
import functools
import io
import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from genlab.commands import sample_files
from genlab.commands.sample_files import Sampling, describe_sampling, draw_files
from genlab.errors import ConfigurationError, DataError, FolderInUseError, NonFiniteError, StoppedBySignal, StorageError
from genlab.functional import to_bytes
from genlab.metrics.generation import draw_batches, draw_images, draw_labels
from genlab.run.loading import TrainedModel, load_trained
from genlab.sampling import files
from genlab.storage import locked_folder
from tests.conftest import Genlab
from tests.pair import Pair

CPU = torch.device("cpu")
NUM = 510  # two whole batches and a part of one


@pytest.fixture(scope="module", name="trained")
def loaded(cgan_run: Path) -> TrainedModel:
    return load_trained(cgan_run, checkpoint="best", device=CPU)


def described(trained: TrainedModel, kind: str, **changes: Any) -> Sampling:
    settings = {"format": kind, "num_samples": NUM, "seed": 3, "label": None, "temperature": None}
    return describe_sampling(trained, **(settings | changes))


def drawn(trained: TrainedModel, folder: Path, kind: str, **changes: Any) -> dict[str, bytes]:
    """Return the content of all files of a sampling, except its record."""
    sampling = described(trained, kind, **changes)
    draw_files(trained, sampling, folder, options={}, allow_other_data=False, device=CPU, command="x")
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "sampling.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(scope="module", name="expected")
def images_that_evaluate_draws(trained: TrainedModel) -> tuple[Tensor, Tensor]:
    counts = torch.tensor(sample_files._class_counts(trained, described(trained, "png"), allow_other_data=False))
    assert counts.sum() == 1297  # of the training images
    labels = draw_labels(counts, NUM, seed=3)
    return to_bytes(draw_images(trained.model, NUM, labels=labels, seed=3, device=CPU)), labels


def test_files_hold_the_images_that_are_measured(
    trained: TrainedModel, tmp_path: Path, expected: tuple[Tensor, Tensor]
) -> None:
    images, labels = expected
    written = drawn(trained, tmp_path / "png", "png")
    assert set(written) == {f"{label}/{index:06d}.png" for index, label in enumerate(labels.tolist())}
    for name, content in written.items():
        with Image.open(io.BytesIO(content)) as picture:
            assert (np.asarray(picture) == images[int(name[2:8])][0].numpy()).all()
    assert set(drawn(trained, tmp_path / "npz", "npz")) == {"samples.npz"}
    with np.load(tmp_path / "npz" / "samples.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"arr_0", "arr_1"}
        levels, classes = arrays["arr_0"], arrays["arr_1"]
    assert (levels.dtype, levels.shape, levels.flags.c_contiguous) == (np.uint8, (NUM, 8, 8, 3), True)
    assert (levels == images.permute(0, 2, 3, 1).numpy()).all()  # grey in each of three channels
    assert (classes == labels.numpy()).all()


@pytest.mark.parametrize("kind", ["png", "npz"])
def test_a_full_disk_leaves_whole_files_and_the_same_command_draws_the_rest(
    trained: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    whole = drawn(trained, tmp_path / "whole", kind)
    replace, num_written = files.replace_atomically, 0

    def full(*arguments: Any, **options: Any) -> None:
        nonlocal num_written
        num_written += 1
        if num_written > (300 if kind == "png" else 1):
            raise OSError(errno.ENOSPC, "No space left on device")
        if kind == "png":
            replace(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(*((files, "replace_atomically") if kind == "png" else (files.os, "fsync")), full)
        patch.setattr(sample_files, "replace_atomically", lambda path, content: path.write_bytes(content))
        with pytest.raises(StorageError, match=r"^disk full at 250 of 510 images; the same command draws the rest"):
            drawn(trained, tmp_path / "part", kind)
    left = [path for path in (tmp_path / "part").rglob("*.*") if not path.name.startswith(".")]
    assert all(path.read_bytes() == whole[path.relative_to(tmp_path / "part").as_posix()] for path in left[1:])
    assert len(left) == (301 if kind == "png" else 1)
    draws = []
    monkeypatch.setattr(
        sample_files,
        "draw_batches",
        lambda *a, starts, **k: draws.append(starts) or draw_batches(*a, starts=starts, **k),
    )
    assert drawn(trained, tmp_path / "part", kind) == whole
    assert draws == [[250, 500]]
    assert drawn(trained, tmp_path / "part", kind) == whole
    assert draws[1] == []


def test_a_batch_is_drawn_when_it_is_asked_for(trained: TrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the memory does not depend on the number of samples."""
    num_drawn = []
    sample = type(trained.model).sample
    monkeypatch.setattr(
        type(trained.model),
        "sample",
        lambda self, num, **options: num_drawn.append(num) or sample(self, num, **options),
    )
    labels = torch.zeros(10**6, dtype=torch.int64)
    starts = range(0, 10**6, 250)
    batches = draw_batches(trained.model, 10**6, starts=starts, labels=labels, seed=0, device=CPU)
    assert next(batches)[1].shape == (250, 1, 8, 8)
    assert num_drawn == [250]


def test_a_signal_stops_it_with_an_account(
    trained: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample, num_calls = type(trained.model).sample, 0

    def stopped(*arguments: Any, **options: Any) -> Tensor:
        nonlocal num_calls
        num_calls += 1
        if num_calls == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return sample(*arguments, **options)

    monkeypatch.setattr(type(trained.model), "sample", stopped)
    with pytest.raises(StoppedBySignal, match="stopped by SIGTERM at 500 of 510 images; the same") as stop:
        drawn(trained, tmp_path / "a", "png")
    assert stop.value.exit_code == 143
    monkeypatch.setattr(type(trained.model), "sample", lambda self, num, **_: torch.full((num, 1, 8, 8), torch.nan))
    with pytest.raises(NonFiniteError, match="images from 500 on are not finite"):
        drawn(trained, tmp_path / "a", "png")


def test_a_pipe_gets_plain_lines_with_the_time_left(
    trained: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sample_files, "SECONDS_BETWEEN_LINES", 0)
    drawn(trained, tmp_path, "npz")
    first, *_, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"250 of 510 images, \d\d:\d\d left", first)
    assert last == f"510 images: {tmp_path / 'samples.npz'}"


def test_a_folder_of_something_else_is_refused(trained: TrainedModel, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    drawn(trained, folder, "png", num_samples=2, label=4)
    assert sorted(path.name for path in folder.iterdir()) == ["4", "sampling.json"]
    for change, message in (
        ({"num_samples": 3}, "whose num_samples is 2 and not 3"),
        ({"num_samples": 2, "seed": 4}, "whose seed is 3 and not 4"),
        ({"num_samples": 2, "label": None}, "whose label is 4 and not null"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            drawn(trained, folder, "png", **({"label": 4} | change))
    with locked_folder(folder), pytest.raises(FolderInUseError, match="is in use by another process"):
        drawn(trained, folder, "png", num_samples=2, label=4)
    for content in ("{", "[]", "{}"):
        (folder / "sampling.json").write_text(content)
        with pytest.raises(ConfigurationError, match=r"sampling\.json"):
            drawn(trained, folder, "png", num_samples=2, label=4)
    (folder / "sampling.json").unlink()
    with pytest.raises(ConfigurationError, match=r"must be a new or empty folder, .* which contains 4$"):
        drawn(trained, folder, "png", num_samples=2, label=4)


def test_classes_name_folders_that_lead_nowhere(trained: TrainedModel) -> None:
    name = sample_files._class_folders
    assert name(["cat", "dog"], 2) == ("cat", "dog")
    assert name([], 0) == ()
    for names in (["cat", "../dog"], ["cat", ".."], ["cat", ""], ["cat", "CAT"], ["cat"], ["a/b", "c"]):
        assert name(names, 2) == ("0", "1")
    assert name([], 11)[:2] == ("00", "01")


def test_a_label_is_the_name_of_a_class_before_its_number(genlab: Genlab, cgan_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(cgan_run, copy)
    environment = json.loads((copy / "environment.json").read_text())
    (copy / "environment.json").write_text(json.dumps({**environment, "class_names": [*"98765432x", "y\xa0z\u200b"]}))
    names = [*"98765432x", "y\\xa0z\\u200b"]  # as messages have them
    for label, drawn_label in (("9", 0), ("0", 0), ("1", 1), ("x", 8), ("'y\xa0z\u200b'", 9), (names[9], 9)):
        outcome = genlab(
            "sample", f"run={copy}", "format=npz", "num_samples=2", f"label={label}", f"out=of_{drawn_label}"
        )
        assert (outcome.code, outcome.errors) == (0, "")
        assert np.load(f"of_{drawn_label}/samples.npz")["arr_1"].tolist() == [drawn_label] * 2
        assert json.loads(Path(f"of_{drawn_label}/sampling.json").read_text())["class_names"] == names


def test_the_command_line(genlab: Genlab, trained: TrainedModel, cgan_run: Path) -> None:
    outcome = genlab("sample", f"run={cgan_run}", "format=npz", "num_samples=3", "out=a", "seed=3")
    assert (outcome.code, outcome.errors) == (0, "")
    assert outcome.output.endswith("3 images: a/samples.npz\n")
    record = json.loads(Path("a/sampling.json").read_text())
    assert (record["is_finished"], record["seed"], record["num_samples"]) == (True, 3, 3)
    outcome = genlab("sample", f"run={cgan_run}", "format=npz", "split=train")
    assert (outcome.code, outcome.errors) == (2, "genlab: error: split has no effect with format=npz\n")
    for word, message in (
        ("temperature=0.5", "temperature must be null for GAN, which has no such choice, got 0.5"),
        ("method=parallel", "method must be auto for GAN, which has no such choice, got parallel"),
    ):
        outcome = genlab("sample", f"run={cgan_run}", "format=png", "out=b", word)
        assert (outcome.code, outcome.errors) == (2, f"genlab: error: {message}\n")
    with pytest.raises(ConfigurationError, match="label must be between 0 and 9, got 10"):
        described(trained, "png", label=10)


def in_pair(run: Path, folder: Path) -> None:
    drawn(load_trained(run, checkpoint="best", device=CPU), folder, "png")


@pytest.mark.slow
def test_processes_draw_the_files_of_one(pair: Pair, trained: TrainedModel, cgan_run: Path, tmp_path: Path) -> None:
    pair.run(in_pair, cgan_run, tmp_path / "two")
    found = {path.name: path.read_bytes() for path in (tmp_path / "two").rglob("*.png")}
    assert found == {Path(name).name: content for name, content in drawn(trained, tmp_path / "one", "png").items()}


def test_a_sampling_that_was_refused_before_its_first_image_leaves_the_folder_to_the_corrected_command(
    genlab: Genlab, exact_run: Path, tmp_path: Path
) -> None:
    line = ("sample", f"run={exact_run}", "num_samples=3", "format=png", f"out={tmp_path / 'here'}")
    assert genlab(*line, "temperature=-1").code == 2
    genlab(*line, "temperature=1").checked()
    assert len(list((tmp_path / "here").glob("*.png"))) == 3


@pytest.mark.parametrize("root_is_named", [False, True])
def test_a_folder_that_is_named_for_the_frequencies_of_classes_must_hold_the_data(
    cgan_run: Path, monkeypatch: pytest.MonkeyPatch, root_is_named: bool
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise DataError("the data are other data")

    monkeypatch.setattr(sample_files, "build_dataset", refuse)
    trained = load_trained(cgan_run, checkpoint="last", device=torch.device("cpu"))
    sampling = describe_sampling(trained, format="npz", num_samples=2, seed=0, label=None, temperature=None)
    counts = functools.partial(
        sample_files._class_counts, trained, sampling, allow_other_data=False, root_is_named=root_is_named
    )
    if root_is_named:
        with pytest.raises(DataError, match="are other data"):
            counts()
    else:
        assert counts() == [1] * 10


def test_a_folder_that_was_begun_without_the_data_is_not_continued_silently(
    cgan_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = load_trained(cgan_run, checkpoint="last", device=CPU)
    build = sample_files.build_dataset

    def missing(*_: Any, **__: Any) -> None:
        raise DataError("the data are missing")

    def draw(**options: bool) -> str:
        sampling = described(trained, "png", num_samples=4)
        named = {"allow_other_data": False, **options}
        draw_files(trained, sampling, tmp_path, options={}, device=CPU, command="x", **named)
        return capsys.readouterr().out

    monkeypatch.setattr(sample_files, "build_dataset", missing)
    assert draw().startswith("classes are drawn uniformly, and not as often as in training: the data are missing\n")
    monkeypatch.setattr(sample_files, "build_dataset", build)
    assert draw().startswith("classes are drawn uniformly, as before: the folder was begun without the run's data\n")
    for key in ("allow_other_data", "root_is_named"):
        with pytest.raises(ConfigurationError, match=r"whose class_counts is \[1, 1, .* and not \[1[0-9]{2}, "):
            draw(**{key: True})


def test_data_that_give_no_frequencies_of_classes_are_refused(genlab: Genlab, cgan_run: Path, exact_run: Path) -> None:
    for run, words, message in (
        (cgan_run, ("label=1", "allow_other_data=true"), "allow_other_data has no effect with label: of the data only"),
        (exact_run, ("allow_other_data=true",), "allow_other_data has no effect without classes: of the data only"),
    ):
        genlab("sample", f"run={run}", "format=png", "num_samples=2", "out=a", *words).assert_error(2, message)
