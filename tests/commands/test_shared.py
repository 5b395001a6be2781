"""`genlab evaluate` and `genlab sample` in several processes: the same output as one process, once."""

import io
import json
import os
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from PIL import Image

from genlab.cli import main
from genlab.launch.worker import ERROR_FILE_VARIABLE
from genlab.parallel.collectives import rank
from tests.conftest import Genlab, Outcome
from tests.pair import Pair

FEW = ("num_generated=510", "batch_size=100", "num_threads=1")


def slow(name: str) -> Any:
    return pytest.param(name, marks=pytest.mark.slow)


def said(arguments: tuple[str, ...]) -> Outcome:
    """Return the output of this process during a command."""
    output, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(errors):
        code = main(arguments)
    return Outcome(code, output.getvalue(), errors.getvalue())


def in_both(pair: Pair, *arguments: str) -> str:
    """Return the output of rank 0; rank 1 must be silent."""
    first, second = pair.run(said, arguments)
    assert (first.code, second.code, second.output, second.errors) == (0, 0, "", "")
    return str(first.output)


def measured(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of the ledger."""
    record = json.loads((folder / "evaluation.json").read_text())
    return [*record["measures"], *record["baselines"]]


def copied(run: Path, tmp_path: Path) -> tuple[Path, Path]:
    copies = tmp_path / "one" / "run", tmp_path / "two" / "run"
    for copy in copies:
        shutil.copytree(run, copy, ignore=shutil.ignore_patterns("evaluation.json", "samples"))
    return copies


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["trained_run", "exact_run", "cgan_run", "infogan_run"])
def test_the_ledger_is_that_of_one_process(
    pair: Pair, tmp_path: Path, classifier_run: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    one, two = copied(request.getfixturevalue(kind), tmp_path)
    arguments = ("samples=true", f"classifier={classifier_run}", *FEW)
    alone = said(("evaluate", f"run={one}", *arguments))
    assert alone.code == 0, alone.errors
    together = in_both(pair, "evaluate", f"run={two}", *arguments)
    assert together.replace("/two/", "/one/") == alone.output
    for ours, theirs in zip(measured(two), measured(one), strict=True):
        assert ours.pop("value") == pytest.approx(theirs.pop("value"), rel=1e-5), ours["name"]
        our_error, their_error = ours.pop("standard_error"), theirs.pop("standard_error")
        assert our_error == (None if their_error is None else pytest.approx(their_error, rel=1e-5)), ours["name"]
        assert ours == theirs


@pytest.mark.slow
def test_only_the_first_of_them_measures_what_is_left(
    pair: Pair, tmp_path: Path, cgan_run: Path, classifier_run: Path
) -> None:
    one, two = copied(cgan_run, tmp_path)
    said(("evaluate", f"run={one}", f"classifier={classifier_run}", *FEW))
    in_both(pair, "evaluate", f"run={two}", f"classifier={classifier_run}", *FEW)
    for name in ("real_beside_generated.png", "nearest_neighbours.png"):
        assert (one / "samples" / name).read_bytes() == (two / "samples" / name).read_bytes()


@pytest.mark.slow
def test_given_images_are_dealt_to_processes(pair: Pair, tmp_path: Path, exact_run: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(5):
        Image.new("L", (8, 8), 255 * (index % 2)).save(pictures / f"{index}.png")
    one, two = copied(exact_run, tmp_path)
    arguments = (f"images={pictures}", "batch_size=2", "num_threads=1")
    alone = said(("evaluate", f"run={one}", *arguments))
    together = in_both(pair, "evaluate", f"run={two}", *arguments)
    assert together.replace("/two/", "/one/") == alone.output
    records = [json.loads((run / "likelihoods.json").read_text())["images"] for run in (one, two)]
    assert [image["file"] for image in records[1]] == [f"{index}.png" for index in range(5)]
    for ours, theirs in zip(*records, strict=True):
        assert ours.pop("file") == theirs.pop("file")
        assert ours == pytest.approx(theirs, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["trained_run", "exact_run", "cgan_run"])
def test_pictures_are_those_of_one_process(
    pair: Pair, tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    run = request.getfixturevalue(kind)
    arguments = ("sample", f"run={run}", "num_samples=7", "num_threads=1")
    said((*arguments, f"out={tmp_path / 'one'}"))
    output = in_both(pair, *arguments, f"out={tmp_path / 'two'}")
    names = [path.name for path in sorted((tmp_path / "one").iterdir())]
    assert "samples.png" in names
    assert [path.name for path in sorted((tmp_path / "two").iterdir())] == names
    assert all(name in output for name in names)
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def said_under_torchrun(arguments: tuple[str, ...], notes: Path) -> Outcome:
    """The same in a process of torchrun, which names a file for the reason of a failure."""
    error_file = notes / "attempt_0" / str(rank()) / "error.json"
    error_file.parent.mkdir(parents=True)
    with patch.dict(os.environ, {ERROR_FILE_VARIABLE: str(error_file)}):
        return said(arguments)


@pytest.mark.slow
def test_a_mistake_is_reported_by_the_first_alone(pair: Pair, tmp_path: Path, cgan_run: Path) -> None:
    arguments = ("sample", f"run={cgan_run}", f"out={tmp_path}", "temperature=2")
    first, second = pair.run(said_under_torchrun, arguments, tmp_path / "notes")
    assert (first.code, second.code, second.errors) == (2, 2, "")
    assert first.errors == "genlab: error: temperature must be null for GAN, which has no such choice, got 2.0\n"


@pytest.mark.slow
def test_devices_starts_the_processes(genlab: Genlab, tmp_path: Path, trained_run: Path) -> None:
    arguments = ("sample", f"run={trained_run}", "num_samples=3", "num_threads=1", "device=cpu")
    assert genlab(*arguments, f"out={tmp_path / 'one'}").code == 0
    outcome = genlab(*arguments, f"out={tmp_path / 'two'}", "devices=2")
    assert (outcome.code, outcome.errors) == (0, "")
    assert outcome.output.count("samples.png") == 1
    assert (tmp_path / "one/samples.png").read_bytes() == (tmp_path / "two/samples.png").read_bytes()


@pytest.mark.parametrize("command", ["sample", "evaluate"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("devices=0",), "devices must be at least 1, got 0"),
        (("device=cpu", "devices=2", "-m", "seed=0,1"), "devices must be 1 with -m, whose jobs run here one by one"),
        (("device=cuda:0", "devices=2"), "device must "),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_line(
    genlab: Genlab, trained_run: Path, command: str, arguments: tuple[str, ...], message: str
) -> None:
    genlab(command, f"run={trained_run}", *arguments).assert_error(2, message)
    assert list(Path.cwd().iterdir()) == []
