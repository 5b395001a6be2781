"""A rehearsal of ``make gpu-results`` on the CPU: the published experiments at sizes of seconds, in slices."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import gpu_results
from benchmarks.gpu_results import EXPERIMENTS, main
from tests.conftest import Genlab

TINY = {
    "pixelcnn_mnist": ("model.num_blocks=1", "model.stream_channels=4", "model.block_channels=4"),
    "draw_mnist": ("model.num_glimpses=2", "model.num_units=8"),
    "semi_supervised_gan_mnist": ("dataset.num_labels_per_class=2",),
    "dcgan_stacked_mnist": ("model.generator.channels=4", "model.discriminator.channels=4"),
}
SHORT = (
    *("dataset=digits_grey", "trainer.num_steps=4", "trainer.batch_size=4", "trainer.num_sample_images=4"),
    *("trainer.num_initialization_images=8", "trainer.validation_images=4", "trainer.sample_interval=0"),
)


@pytest.mark.parametrize(
    "name", ["pixelcnn_mnist", *(pytest.param(name, marks=pytest.mark.slow) for name in list(EXPERIMENTS)[1:])]
)
def test_an_experiment_advances_in_slices_and_ends(
    genlab: Genlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The first slice is over after a step; the second, from its archive and in another folder, finishes."""
    words: list[Sequence[str]] = []

    def run(chosen: Sequence[str], seconds: float) -> int:
        words.append(chosen)
        assert seconds > 0
        if chosen[0] == "evaluate":
            return 0
        outcome = genlab(*chosen).checked()
        return outcome.code

    overrides = [part for word in (*SHORT, *TINY[name]) for part in ("--override", word)]
    monkeypatch.setattr(gpu_results, "START_MINUTES", 100.0)  # nothing is left of the slice
    packs = tmp_path / "packs"
    assert main(["--only", name, "--out", "first", "--pack", str(packs), *overrides], run=run) == 0
    assert json.loads((tmp_path / "first" / name / "summary.json").read_text())["status"] == "interrupted"
    monkeypatch.setattr(gpu_results, "START_MINUTES", 0.0)
    assert main(["--only", name, "--out", "second", "--restore", str(packs), "--pack", str(packs)], run=run) == 0
    summary = json.loads((tmp_path / "second" / name / "summary.json").read_text())
    assert (summary["status"], summary["step"]) == ("finished", 4)
    trained = [chosen[1] for chosen in words if chosen[0] == "train"]
    assert trained == [f"experiment={name}", f"resume=second/{name}"]
    assert f"| {name} | finished | 4 |" in (packs / "gpu_results.md").read_text()
    before = len(words)
    main(["--only", name, "--out", "second"], run=run)
    assert [chosen[0] for chosen in words[before:]] == ["report"], "what is finished is left alone"


def test_a_slice_that_fails_is_reported_and_the_next_one_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = []

    def run(words: Sequence[str], seconds: float) -> int:
        begun.append(words[1])
        return 5 if words[1] == "experiment=pixelcnn_mnist" else 0

    assert main(["--out", str(tmp_path), "--minutes", "0.1"], run=run) == 1
    assert begun[:4] == [f"experiment={name}" for name in EXPERIMENTS]
    assert "| pixelcnn_mnist | not begun (exit code 5) |" in capsys.readouterr().out


def test_an_evaluation_that_fails_is_repeated_by_the_next_slice(tmp_path: Path) -> None:
    name = "dcgan_stacked_mnist"
    (tmp_path / name).mkdir()
    (tmp_path / name / "summary.json").write_text(json.dumps({"status": "finished"}))
    codes = [-1, 0]  # the first one runs out of time
    begun: list[Sequence[str]] = []

    def run(words: Sequence[str], seconds: float) -> int:
        assert seconds > 0
        begun.append(words)
        return codes[len(begun) - 1]

    for code in (-1, 0, None):
        found = gpu_results.advance([name], minutes=1, out=tmp_path, run=run, overrides={name: ()})
        assert found[name]["code"] == code
    assert [words[0] for words in begun] == ["evaluate"] * 2
