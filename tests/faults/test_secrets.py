"""Files of a run on disk: nothing of the environment, and no permission beyond the owner's umask."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Genlab
from tests.faults.harness import run
from tests.faults.tally import Tally

pytestmark = pytest.mark.slow
FAULT = "16 secrets and permissions"
CANARY = "canary-4f1b9c27"
TINY = (
    *("model=draw", "model.num_glimpses=2", "model.num_units=16", "dataset.size=8", "num_threads=1", "trainer=smoke"),
    *("trainer.num_steps=4", "trainer.sample_interval=2", "trainer.num_sample_images=4"),
)
VARIABLES = {"MY_TOKEN": CANARY, "AWS_SECRET_ACCESS_KEY": CANARY, "GENLAB_ALLOW": f"my_{CANARY.replace('-', '_')}"}


def files_under(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def holders(folder: Path) -> list[Path]:
    """The files in which the canary stands, in their names or their bytes."""
    forms = (CANARY.encode(), CANARY.replace("-", "_").encode())
    return [path for path in files_under(folder) if any(form in path.read_bytes() for form in forms)]


LINES = {
    "a run": (0, ("train", *TINY, "hydra.run.dir=outputs/run")),
    "a run that fails": (5, ("train", *TINY, "optimizer.default.lr=1e30", "hydra.run.dir=outputs/run")),
    "a sweep": (0, ("train", "-m", *TINY, "seed=0,1", "hydra.sweep.dir=outputs/sweep")),
}


@pytest.mark.parametrize("name", LINES)
def test_nothing_of_the_environment_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, words = LINES[name]
    with tally.trying(FAULT, "runs, failures and sweeps with secrets in the environment"):
        result = run(*words, timeout=600, **VARIABLES)
        assert result.returncode == code, result.stderr
        assert len(list(files_under(tmp_path))) > 3
        assert holders(tmp_path) == []
        assert CANARY not in result.stdout + result.stderr


def test_what_is_asked_for_would_be_found(genlab: Genlab, tmp_path: Path, tally: Tally) -> None:
    """The search itself: what a user writes into the configuration by hand does stand in the run."""
    assert genlab("train", *TINY, f"dataset.root={CANARY}", "dataset=mnist").code != 0
    assert genlab("train", *TINY, f"hydra.run.dir=outputs/{CANARY}").code == 0
    assert holders(tmp_path)
    tally.wrong_variant_noticed(FAULT, "a secret on the command line")


@pytest.fixture
def private() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.usefixtures("private")
def test_files_and_folders_follow_the_umask(
    genlab: Genlab, tmp_path: Path, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: dict[str, int] = {}
    rename = Path.replace

    def watched(path: Path, target: Path) -> Path:
        modes[path.name] = path.stat().st_mode  # temporary files, too
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", watched)
    with tally.trying(FAULT, "commands under umask 077"):
        for words in (
            ("train", *TINY, "hydra.run.dir=outputs/run"),
            ("evaluate", "run=outputs/run", "num_images=8", "num_importance_samples=0"),
            ("sample", "run=outputs/run", "num_samples=4"),
            ("export", "run=outputs/run"),
            ("compare", "outputs", "--html", "page.html"),
        ):
            assert genlab(*words).code == 0, words
        assert modes
        modes |= {str(path): path.stat().st_mode for path in tmp_path.rglob("*")}
        assert {name: oct(mode) for name, mode in modes.items() if mode & (stat.S_IRWXG | stat.S_IRWXO)} == {}


def test_the_common_umask_lets_others_read(genlab: Genlab, tmp_path: Path, tally: Tally) -> None:
    """The same look sees permissions where there are some."""
    before = os.umask(0o022)
    try:
        assert genlab("train", *TINY, "hydra.run.dir=outputs/run").code == 0
    finally:
        os.umask(before)
    assert (tmp_path / "outputs/run/config.yaml").stat().st_mode & stat.S_IROTH
    assert (tmp_path / "outputs/run/checkpoints/last.safetensors").stat().st_mode & stat.S_IROTH
    tally.wrong_variant_noticed(FAULT, "umask 022")
