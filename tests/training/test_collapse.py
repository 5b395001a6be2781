"""The watch for collapse: right by brute force, silent where all is well, and without a trace in the training."""

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genlab.data.dataset import Dataset
from genlab.data.store import Store
from genlab.errors import ConfigurationError, DataError, StoppedBySignal
from genlab.models.base import Model
from genlab.training.collapse import ClassPredictor, CollapseWatch, mean_pairwise_distance, num_modes_covered
from genlab.types import Phase
from tests.training.conftest import TinyGAN, make_dataset, make_trainer
from tests.training.test_trainer import StopAt, assert_states_equal, last_state, scalars

CPU = torch.device("cpu")
WATCHED: dict[str, Any] = {"watch_interval": 3, "min_diversity_ratio": 0.5}


class Drawing(TinyGAN):
    """A model that samples by a given function."""

    def __init__(self, draw: Callable[[int, torch.Generator | None], Tensor]) -> None:
        super().__init__()
        self.draw = draw

    def sample(self, num_samples, *, labels=None, generator=None):
        return self.draw(num_samples, generator)


def noise(num: int, generator: torch.Generator | None) -> Tensor:
    return torch.rand(num, 1, 4, 4, generator=generator).round()


def constant(num: int, generator: torch.Generator | None) -> Tensor:
    return torch.full((num, 1, 4, 4), 0.5)


def by_first_pixel(name: str = "pixels", num_modes: int = 2) -> ClassPredictor:
    return ClassPredictor(name=name, num_modes=num_modes, predict=lambda images: images[:, 0, 0, 0].round().long())


def make_watch(
    model: Model, predictor: ClassPredictor | None = None, dataset: Dataset | None = None, **changes: Any
) -> CollapseWatch:
    folder = Path("nothing is written")
    trainer = make_trainer(folder, model, dataset=dataset, class_predictor=predictor, **(WATCHED | changes))
    watch = trainer.observers["collapse"]
    assert isinstance(watch, CollapseWatch)
    return watch


@pytest.mark.parametrize("num_images", [2, 3, 9])
def test_diversity_is_the_mean_over_pairs(num_images: int) -> None:
    images = torch.rand(num_images, 3, 5, 2)
    distances = [
        math.dist(images[i].flatten().tolist(), images[j].flatten().tolist())
        for i in range(num_images)
        for j in range(num_images)
        if i != j
    ]
    assert mean_pairwise_distance(images) == pytest.approx(sum(distances) / len(distances), rel=1e-6)


def test_equal_images_have_no_diversity_to_the_last_bit() -> None:
    assert mean_pairwise_distance(torch.rand(1, 3, 8, 8).expand(40, -1, -1, -1)) == 0


def test_modes_are_counted_once() -> None:
    assert num_modes_covered(torch.tensor([7, 0, 7, 3, 0])) == 3


def test_a_model_as_diverse_as_the_data_has_ratio_one() -> None:
    data = make_dataset(num_images=400)
    images = next(data.batches("train", batch_size=400, seed=0, device=CPU)).images

    def draw(num: int, generator: torch.Generator | None) -> Tensor:
        return images[torch.randperm(400, generator=generator)[:num]]

    watch = make_watch(Drawing(draw), dataset=data, watch_images=200)
    values = watch.look(Drawing(draw), step=1)
    assert values == {"watch/diversity_ratio": pytest.approx(1, abs=0.03), "watch/collapse_alarm": 0.0}


def test_the_alarm_goes_on_and_off_with_one_line_each(caplog: pytest.LogCaptureFixture) -> None:
    model = Drawing(noise)
    watch = make_watch(model)
    with caplog.at_level(logging.INFO):
        for step, draw in enumerate((noise, constant, constant, noise, noise, constant)):
            model.draw = draw
            values = watch.look(model, step=step)
            assert values["watch/collapse_alarm"] == float(draw is constant)
    lines = [(record.levelname, record.getMessage().split(":")[0]) for record in caplog.records]
    assert lines == [("WARNING", "step 1"), ("INFO", "step 3"), ("WARNING", "step 5")]
    assert "0 of the training images' diversity (trainer.min_diversity_ratio=0.5)" in caplog.records[0].getMessage()
    assert watch.report() == {
        "alarm": True,
        "first_step": 1,
        "diversity_ratio": 0.0,
        "modes_covered": None,
        "bounds": {"min_diversity_ratio": 0.5, "min_modes_covered": None},
        "num_images": 16,
    }


def test_images_that_are_no_numbers_are_an_alarm() -> None:
    model = Drawing(lambda num, generator: constant(num, generator) * float("nan"))
    assert make_watch(model).look(model, step=0)["watch/collapse_alarm"] == 1.0


def test_without_bounds_there_is_no_alarm() -> None:
    model = Drawing(constant)
    assert make_watch(model, min_diversity_ratio=None).look(model, step=0)["watch/collapse_alarm"] == 0.0


def test_few_modes_are_an_alarm_of_their_own() -> None:
    def ones_first(num: int, generator: torch.Generator | None) -> Tensor:
        images = noise(num, generator)
        images[:, 0, 0, 0] = 1
        return images

    model = Drawing(ones_first)
    watch = make_watch(model, by_first_pixel(), min_modes_covered=2)
    values = watch.look(model, step=4)
    assert values["watch/diversity_ratio"] > 0.5
    assert (values["modes/covered"], values["watch/collapse_alarm"]) == (1.0, 1.0)
    assert watch.report().items() >= {"modes_covered": 1, "num_modes": 2, "classifier": "pixels"}.items()
    model.draw = noise
    assert watch.look(model, step=5) == {
        "watch/diversity_ratio": pytest.approx(1, abs=0.5),
        "modes/covered": 2.0,
        "watch/collapse_alarm": 0.0,
    }


def test_what_cannot_be_watched_is_refused() -> None:
    class Measuring(Model):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 1)

        def phases(self) -> tuple[Phase, ...]:
            return (Phase(name="model", modules=(self.layer,), loss=self.evaluate),)

        def evaluate(self, batch: Any) -> dict[str, Tensor]:
            return {}

    with pytest.raises(ConfigurationError, match=r"^trainer\.watch_interval must be 0 for Measuring, .*, got 3$"):
        make_watch(Measuring())
    with pytest.raises(ConfigurationError, match="needs a classifier to count modes with, got 2"):
        make_watch(TinyGAN(), min_modes_covered=2)
    with pytest.raises(ConfigurationError, match=r"at most 16 \(trainer.watch_images=16, 100 modes\), got 17"):
        make_watch(TinyGAN(), by_first_pixel(num_modes=100), min_modes_covered=17)
    with pytest.raises(ConfigurationError, match="at most 2 "):
        make_watch(TinyGAN(), by_first_pixel(), min_modes_covered=3)


def test_training_images_without_differences_are_refused(run_folder: Callable[[str], Path]) -> None:
    dataset = make_dataset(binarization="none")
    dataset._stores["train"] = Store(torch.ones(9, 1, 4, 4, dtype=torch.uint8), torch.full((9,), -1))
    with pytest.raises(DataError, match=r"the 9 training images .* all equal .* trainer.watch_interval=0"):
        make_trainer(run_folder("a"), dataset=dataset, **WATCHED)


def test_the_trainer_looks_when_due_and_at_the_end(run_folder: Callable[[str], Path]) -> None:
    folder = run_folder("a")
    summary = make_trainer(folder, Drawing(constant), class_predictor=by_first_pixel(), **WATCHED).fit(resume=False)
    looks = [line for line in scalars(folder) if "watch/diversity_ratio" in line]
    assert [line["step"] for line in looks] == [3, 6, 9, 12, 15, 18, 20]
    assert {(line["watch/collapse_alarm"], line["modes/covered"]) for line in looks} == {(1.0, 1.0)}
    assert summary.status == "finished"
    kept = json.loads((folder / "summary.json").read_text())["collapse"]
    assert kept.items() >= {"alarm": True, "first_step": 3, "diversity_ratio": 0.0, "modes_covered": 1}.items()


def test_the_watch_leaves_no_trace_in_the_training(run_folder: Callable[[str], Path]) -> None:
    plain, watched = run_folder("plain"), run_folder("watched")
    summary = make_trainer(plain, Drawing(noise)).fit(resume=False)
    assert summary.collapse is None
    make_trainer(watched, Drawing(noise), class_predictor=by_first_pixel(), **WATCHED).fit(resume=False)
    ours, theirs = last_state(watched), last_state(plain)
    assert ours["observers"].pop("collapse")
    assert "collapse" not in theirs["observers"]
    ours["final"] = {tag: value for tag, value in ours["final"].items() if tag in theirs["final"]}
    assert_states_equal(ours, theirs)
    assert [line for line in scalars(watched) if "watch/diversity_ratio" not in line] == scalars(plain)


def test_the_evaluated_weights_are_watched(run_folder: Callable[[str], Path]) -> None:
    trainer = make_trainer(run_folder("a"), watch_interval=20, ema_decay=0.999, num_steps=20, test_at_end=False)
    trainer.fit(resume=False)
    watch = make_watch(trainer.model)
    averaged = watch.look(trainer.state.evaluated_model(), step=20)["watch/diversity_ratio"]
    assert trainer.summary.collapse is not None
    assert trainer.summary.collapse["diversity_ratio"] == averaged
    assert watch.look(trainer.model.eval(), step=20)["watch/diversity_ratio"] != averaged


def test_an_alarm_stops_the_run_for_good_when_asked_to(run_folder: Callable[[str], Path]) -> None:
    folder = run_folder("a")
    summary = make_trainer(folder, Drawing(constant), on_collapse="stop", **WATCHED).fit(resume=False)
    assert (summary.status, summary.step) == ("finished", 3)
    assert str(summary.reason).startswith("collapsed: 0 of the training images' diversity")
    assert summary.test
    assert last_state(folder)["step"] == 3
    resumed = make_trainer(folder, Drawing(constant), on_collapse="stop", **WATCHED).fit(resume=True)
    assert (resumed.status, resumed.step, resumed.reason) == ("finished", 3, summary.reason)
    assert str(summary.reason).endswith("; to continue, resume with trainer.on_collapse=warn")
    onward = make_trainer(folder, Drawing(constant), on_collapse="warn", **WATCHED).fit(resume=True)
    assert (onward.step, onward.reason) == (20, None)
    healthy = make_trainer(run_folder("b"), Drawing(noise), on_collapse="stop", **WATCHED).fit(resume=False)
    assert (healthy.step, healthy.reason) == (20, None)


def test_a_resumption_is_judged_by_its_own_bounds(run_folder: Callable[[str], Path]) -> None:
    folder = run_folder("a")
    strict, lenient = ({**WATCHED, "on_collapse": "stop", "min_diversity_ratio": bound} for bound in (100.0, 1e-3))
    stopped = make_trainer(folder, Drawing(noise), **strict).fit(resume=False)
    assert (stopped.step, stopped.collapse and stopped.collapse["alarm"]) == (3, True)
    onward = make_trainer(folder, Drawing(noise), **lenient).fit(resume=True)
    assert (onward.step, onward.reason) == (20, None)
    assert onward.collapse is not None
    assert (onward.collapse["alarm"], onward.collapse["first_step"]) == (False, 3)


class CollapsedUntil(StopAt):
    """Draws one image, and noise once it was trained beyond a weight; stops at a step."""

    def __init__(self, step: int) -> None:
        super().__init__(step)
        self.register_buffer("num_updates", torch.zeros(()))

    def generator_loss(self, batch: Any) -> Any:
        self.num_updates += 1
        return super().generator_loss(batch)

    def sample(self, num_samples, *, labels=None, generator=None):
        return (noise if self.num_updates > 7 else constant)(num_samples, generator)


@pytest.mark.parametrize("stop", [7, *(pytest.param(stop, marks=pytest.mark.slow) for stop in (2, 4, 11))])
def test_resume_remembers_the_first_alarm_and_stays_bitwise_equal(run_folder: Callable[[str], Path], stop: int) -> None:
    whole, cut = run_folder("whole"), run_folder("cut")
    make_trainer(whole, CollapsedUntil(1000), **WATCHED).fit(resume=False)
    with pytest.raises(StoppedBySignal):
        make_trainer(cut, CollapsedUntil(stop), **WATCHED).fit(resume=False)
    make_trainer(cut, CollapsedUntil(1000), **WATCHED).fit(resume=True)
    assert_states_equal(last_state(whole), last_state(cut))
    assert scalars(whole) == scalars(cut)
    ours, theirs = (json.loads((folder / "summary.json").read_text())["collapse"] for folder in (whole, cut))
    assert ours == theirs
    assert (ours["alarm"], ours["first_step"]) == (False, 3)


def test_resume_may_start_to_watch(run_folder: Callable[[str], Path]) -> None:
    folder = run_folder("a")
    make_trainer(folder, Drawing(constant), num_steps=4).fit(resume=False)
    summary = make_trainer(folder, Drawing(constant), num_steps=8, **WATCHED).fit(resume=True)
    assert summary.collapse is not None
    assert summary.collapse["first_step"] == 6
