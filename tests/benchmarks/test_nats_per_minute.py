"""The benchmark of nats against CPU minutes, with stand-ins for the trainings."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.nats_per_minute import EXPERIMENTS, LONG_EXPERIMENTS, Result, main, table
from genlab.config.catalogue import config_directory

START, A_STEP = 6.0, 0.25


class Trainings:
    """Carries out nothing: a training takes six seconds and a quarter of one a step, and reaches 100 - steps / 100.

    Args:
        compilation: Seconds that the first compiled training takes more.
    """

    def __init__(self, *, compilation: float = 0.0) -> None:
        self.steps: list[int] = []
        self.experiments: list[str] = []
        self.compilation = compilation

    def __call__(self, words: Sequence[str]) -> float:
        values = dict(word.split("=", 1) for word in words[1:])
        if words[0] == "train":
            folder = Path(values["hydra.run.dir"])
            folder.mkdir()
            environment = {"cpu": "a CPU", "cpu_capability": "AVX2", "num_threads": 1, "git": None}
            (folder / "environment.json").write_text(json.dumps(environment))
            self.steps.append(int(values["trainer.num_steps"]))
            self.experiments.append(values["experiment"])
            seconds = START + A_STEP * self.steps[-1]
            if values.get("trainer.compile") != "false":
                seconds += self.compilation
                self.compilation = 0.0
            return seconds
        measure = {"name": "nll_nats", "value": 100 - self.steps[-1] / 100}
        (Path(values["run"]) / "evaluation.json").write_text(json.dumps({"measures": [measure]}))
        return 1e9  # of the test, which is not counted


def test_steps_are_fitted_to_the_minutes_and_what_is_there_is_not_trained_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainings = Trainings()
    words = ["--out", str(tmp_path), "--models", "pixelcnn", "--minutes"]
    main([*words, "1", "0.05"], run=trainings)
    fitted = trainings.steps[-1]
    assert START + A_STEP * fitted == pytest.approx(60, abs=2)
    assert "too few for pixelcnn" in capsys.readouterr().out
    count = len(trainings.steps)
    main([*words, "1", "2"], run=trainings)
    assert len(trainings.steps) == count + 4
    assert START + A_STEP * trainings.steps[-1] == pytest.approx(120, abs=4)
    row = f"| `pixelcnn` | exact | {100 - fitted / 100:.2f} ({fitted:,} steps) |"
    assert row in (tmp_path / "results.md").read_text()


def test_the_compilation_of_the_first_run_does_not_count_as_steps(tmp_path: Path) -> None:
    trainings = Trainings(compilation=90.0)
    main(["--out", str(tmp_path), "--models", "draw", "--minutes", "5"], run=trainings)
    assert START + A_STEP * trainings.steps[-1] == pytest.approx(300, abs=10)


def test_a_training_that_missed_its_minutes_is_shown_with_its_own() -> None:
    facts = {"minutes": 15.0, "steps": 9000, "measure": "nll_nats", "nats": 83.0, "hardware": "a CPU", "commit": "abc"}
    results = [
        Result(model="pixelcnn", cpu_minutes=14.5, **facts),  # type: ignore[arg-type]
        Result(model="pixelcnn_pp", cpu_minutes=12.21, **facts),  # type: ignore[arg-type]
    ]
    text = table(results)
    assert "| 83.00 (9,000 steps) |" in text
    assert "| 83.00 (9,000 steps, 12.2 min) |" in text


def test_half_an_hour_takes_the_experiment_for_long_runs(tmp_path: Path) -> None:
    trainings = Trainings()
    main(["--out", str(tmp_path), "--models", "draw", "pixelcnn", "--minutes", "29", "30"], run=trainings)
    longest = dict(zip(trainings.experiments, trainings.steps, strict=True))
    assert list(longest) == ["draw_mnist_quick", "pixelcnn_mnist_quick", "draw_mnist_hour"]
    assert START + A_STEP * longest["draw_mnist_hour"] == pytest.approx(1800, abs=60)


def test_the_experiments_are_there() -> None:
    for name in (*EXPERIMENTS.values(), *LONG_EXPERIMENTS.values()):
        assert (config_directory() / "experiment" / f"{name}.yaml").is_file()
