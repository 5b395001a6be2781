"""The loop: resume is bitwise, limits stop it, faults never reach a weight or a checkpoint."""

import json
import math
import os
import shutil
import signal
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from genlab.checks.training import differences, leaves, scalars
from genlab.data.store import Store
from genlab.errors import CheckpointError, ConfigurationError, DataError, NonFiniteError, StoppedBySignal
from genlab.measures import Direction, Measure
from genlab.run.checkpoint import CheckpointFolder
from genlab.training.trainer import Trainer
from genlab.types import Batch, Loss
from tests.thinning import thinned
from tests.training.conftest import TinyGAN, make_dataset, make_trainer

CPU = torch.device("cpu")


class StopAt(TinyGAN):
    """Sends itself a signal while it computes a given step, as a scheduler would."""

    def __init__(self, step: int, number: int = signal.SIGTERM, accumulation: int = 1) -> None:
        super().__init__()
        self.left = 2 * accumulation * (step - 1) + 1  # two discriminator updates a step
        self.number = number

    def discriminator_loss(self, batch: Batch) -> Loss:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)
        return super().discriminator_loss(batch)


class PoisonAt(TinyGAN):
    """Returns a loss that is not a number in one generator update."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.left = step

    def generator_loss(self, batch: Batch) -> Loss:
        self.left -= 1
        loss = super().generator_loss(batch)
        return Loss(value=loss.value * float("nan"), metrics=loss.metrics) if self.left == 0 else loss


def last_state(folder: Path) -> dict[str, Any]:
    return CheckpointFolder(folder / "checkpoints").load("last.safetensors", device=CPU)


def assert_states_equal(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert differences(ours, theirs) == []
    assert sum(isinstance(value, Tensor) for value in leaves(ours).values()) > 30


@pytest.mark.parametrize(
    "stop", [2, *(pytest.param(stop, marks=pytest.mark.slow) for stop in (1, 4, 5, 19))]
)  # 37 images in batches of 2 x 8: an epoch ends within step 3
@pytest.mark.parametrize("accumulation", thinned([1, 2], 2))
def test_resume_is_bitwise_equal_to_the_uninterrupted_run(
    run_folder: Callable[[str], Path], stop: int, accumulation: int
) -> None:
    whole, cut = run_folder("whole"), run_folder("cut")
    make_trainer(whole, gradient_accumulation=accumulation).fit(resume=False)
    with pytest.raises(StoppedBySignal) as stopped:
        make_trainer(cut, StopAt(stop, accumulation=accumulation), gradient_accumulation=accumulation).fit(resume=False)
    assert stopped.value.exit_code == 143
    assert last_state(cut)["step"] == stop
    make_trainer(cut, gradient_accumulation=accumulation).fit(resume=True)
    assert_states_equal(last_state(whole), last_state(cut))
    assert scalars(whole) == scalars(cut)
    assert json.loads((cut / "summary.json").read_text())["status"] == "finished"


def test_resume_is_bitwise_equal_on_partly_labelled_data(run_folder: Callable[[str], Path]) -> None:
    def trainer(folder: Path, model: TinyGAN | None = None) -> Trainer:
        return make_trainer(folder, model, dataset=make_dataset(num_labels_per_class=3), labelled_fraction=0.4)

    whole, cut = run_folder("whole"), run_folder("cut")
    trainer(whole).fit(resume=False)
    with pytest.raises(StoppedBySignal):
        trainer(cut, StopAt(5)).fit(resume=False)
    trainer(cut).fit(resume=True)
    assert_states_equal(last_state(whole), last_state(cut))
    assert scalars(whole) == scalars(cut)


def test_metrics_of_a_checkpoint_take_no_more_memory_than_in_their_file(run_folder: Callable[[str], Path]) -> None:
    """A tensor for each of them would take a thousand times as much."""
    folder = run_folder("a")
    make_trainer(folder, num_steps=4).fit(resume=False)
    state = last_state(folder)
    state["observers"]["metrics"] = {"train/critic/loss": torch.zeros(200_000)}
    CheckpointFolder(folder / "checkpoints").save_last(state, step=4)
    trainer = make_trainer(folder, num_steps=4)
    tracemalloc.start()
    try:
        trainer.fit(resume=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000


def test_resume_from_an_older_checkpoint_cuts_the_lost_lines(run_folder: Callable[[str], Path]) -> None:
    whole, cut = run_folder("whole"), run_folder("cut")
    make_trainer(whole).fit(resume=False)
    make_trainer(cut).fit(resume=False)
    (cut / "checkpoints" / "last.safetensors").unlink()  # as if killed before the last save
    make_trainer(cut).fit(resume=True)
    assert_states_equal(last_state(whole), last_state(cut))
    assert scalars(whole) == scalars(cut)


def test_another_seed_of_noise_would_be_noticed(run_folder: Callable[[str], Path]) -> None:
    make_trainer(run_folder("a")).fit(resume=False)
    other = make_trainer(run_folder("b"))
    other.seed = 4
    other.fit(resume=False)
    with pytest.raises(AssertionError):
        assert_states_equal(last_state(run_folder("a")), last_state(run_folder("b")))


def test_interrupt_exits_130_and_usr1_saves_and_goes_on(run_folder: Callable[[str], Path]) -> None:
    with pytest.raises(StoppedBySignal) as stopped:
        make_trainer(run_folder("int"), StopAt(3, signal.SIGINT)).fit(resume=False)
    assert stopped.value.exit_code == 130
    assert json.loads((run_folder("int") / "summary.json").read_text())["status"] == "interrupted"
    trainer = make_trainer(run_folder("usr1"), StopAt(3, signal.SIGUSR1), checkpoint_interval=0, validation_interval=0)
    steps: list[int] = []
    save = trainer.checkpoints.save_last
    trainer.checkpoints.save_last = lambda state, **facts: (steps.append(facts["step"]), save(state, **facts))[1]  # type: ignore[method-assign]
    trainer.fit(resume=False)
    assert steps == [3, 20]


def test_handlers_come_back(run_folder: Callable[[str], Path]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    make_trainer(run_folder("a"), num_steps=1).fit(resume=False)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_loss_that_is_no_number_stops_before_the_update(run_folder: Callable[[str], Path]) -> None:
    folder = run_folder("poisoned")
    trainer = make_trainer(folder, PoisonAt(7), ema_decay=None, validation_interval=0)
    with pytest.raises(NonFiniteError, match=r"step 6: .*phase generator"):
        trainer.fit(resume=False)
    assert all(torch.isfinite(value).all() for value in trainer.model.state_dict().values())
    assert json.loads((folder / "summary.json").read_text())["status"] == "diverged"
    assert last_state(folder)["step"] == 4
    make_trainer(folder, ema_decay=None, validation_interval=0).fit(resume=True)  # the last checkpoint is good
    assert last_state(folder)["step"] == 20


@pytest.mark.parametrize(("lr", "saved_step"), [(1e38, None), (1e7, 1)])
def test_a_huge_learning_rate_never_reaches_a_checkpoint(
    run_folder: Callable[[str], Path], lr: float, saved_step: int | None
) -> None:
    folder = run_folder("huge")
    with pytest.raises(NonFiniteError):
        make_trainer(folder, lr=lr, max_gradient_norm=None, checkpoint_interval=1, ema_decay=None).fit(resume=False)
    saved = list((folder / "checkpoints").glob("*.safetensors"))
    assert len(saved) == (0 if saved_step is None else 1)
    if saved:
        state = last_state(folder)
        assert state["step"] == saved_step
        assert all(torch.isfinite(weights).all() for weights in state["model"].values())


def test_skipping_leaves_the_phase_untouched_and_has_a_limit(run_folder: Callable[[str], Path]) -> None:
    trainer = make_trainer(run_folder("skip"), PoisonAt(7), on_non_finite="skip", max_skipped_steps=1)
    assert trainer.fit(resume=False).num_skipped_steps == 1
    with pytest.raises(NonFiniteError, match=r"after 0 skipped updates \(trainer.max_skipped_steps\)"):
        make_trainer(run_folder("none"), PoisonAt(7), on_non_finite="skip", max_skipped_steps=0).fit(resume=False)


def test_phases_touch_only_their_own_parameters(run_folder: Callable[[str], Path]) -> None:
    trainer = make_trainer(run_folder("a"))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    update = trainer.state.updates[0]
    trainer._frozen_outside.enter(update)
    update.run(trainer._stream.batch(0))
    trainer._frozen_outside.leave(update)
    changed = {
        name for name, value in trainer.model.named_parameters() if not torch.equal(value.detach(), before[name])
    }
    assert changed == {name for name in before if name.startswith("discriminator")}
    assert all(parameter.requires_grad for parameter in trainer.model.parameters())
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


def test_overfitting_one_batch_sees_one_batch(run_folder: Callable[[str], Path]) -> None:
    seen = []

    class Watching(TinyGAN):
        def discriminator_loss(self, batch: Batch) -> Loss:
            seen.append(batch.images)
            return super().discriminator_loss(batch)

    make_trainer(run_folder("a"), Watching(), num_steps=3, overfit_one_batch=True).fit(resume=False)
    assert len(seen) == 6
    assert all(torch.equal(images, seen[0]) for images in seen)


def test_a_step_delivers_each_of_its_batches_once(
    run_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two batches for the discriminator, the first of them also for the generator."""
    trainer = make_trainer(run_folder("a"))
    delivered: list[int] = []
    batch = trainer._stream.batch_from
    monkeypatch.setattr(trainer._stream, "batch_from", lambda start: delivered.append(start) or batch(start))
    trainer._training_step()
    assert delivered == [0, 8]


def test_a_step_trains_what_was_evaluated(run_folder: Callable[[str], Path]) -> None:
    trainer = make_trainer(run_folder("a"))
    assert not any(module.training for module in trainer.evaluated_model().modules())
    trainer._training_step()
    assert all(module.training for module in trainer.model.modules())


def test_a_network_that_its_model_keeps_in_evaluation_stays_there(run_folder: Callable[[str], Path]) -> None:
    model = TinyGAN()
    statistics = model.generator[1].eval()
    trainer = make_trainer(run_folder("a"), model, ema_decay=None)
    trainer.evaluated_model()
    trainer._training_step()
    assert not statistics.training
    assert model.generator.training


def test_a_mask_of_minus_infinity_is_saved(run_folder: Callable[[str], Path]) -> None:
    model = TinyGAN()
    model.register_buffer("mask", torch.full((2, 2), -torch.inf))
    assert make_trainer(run_folder("a"), model, num_steps=1).fit(resume=False).saved_step == 1


def test_zero_steps_evaluate_only(run_folder: Callable[[str], Path]) -> None:
    trainer = make_trainer(run_folder("a"), num_steps=0)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    summary = trainer.fit(resume=False)
    assert summary.status == "finished"
    assert summary.test.keys() == {"test/gap_nats"}
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())


def test_dry_run_runs_everything_once_and_saves_nothing(run_folder: Callable[[str], Path]) -> None:
    folder = run_folder("a")
    summary = make_trainer(folder, dry_run=True, num_steps=1000, sample_interval=1000).fit(resume=False)
    assert summary.step == 2
    assert "validation/gap_nats" in summary.final
    assert (folder / "samples" / "step_00000002.png").exists()
    assert not list((folder / "checkpoints").iterdir())


def test_the_film_of_training_is_the_same_after_a_resumption(run_folder: Callable[[str], Path]) -> None:
    whole, cut, never = run_folder("whole"), run_folder("cut"), run_folder("never")
    make_trainer(whole, sample_interval=5).fit(resume=False)
    with pytest.raises(StoppedBySignal):
        make_trainer(cut, StopAt(7), sample_interval=5).fit(resume=False)
    assert not (cut / "samples" / "training.gif").exists()
    make_trainer(cut, sample_interval=5).fit(resume=True)
    film = (whole / "samples" / "training.gif").read_bytes()
    assert (cut / "samples" / "training.gif").read_bytes() == film
    with Image.open(whole / "samples" / "training.gif") as image:
        assert (image.n_frames, image.size) == (4, (300, 174))  # 118 pixels of a grid, 56 of the curve that chooses
    make_trainer(never, sample_interval=0).fit(resume=False)
    assert not (never / "samples").exists()


@pytest.mark.parametrize(("direction", "best", "step"), [(None, 1.0, 10), ("lower", 1.0, 10), ("higher", 4.0, 20)])
def test_the_best_checkpoint_is_the_one_that_the_declaration_of_its_measure_says(
    run_folder: Callable[[str], Path], direction: Direction | None, best: float, step: int
) -> None:
    values = iter([3.0, 1.0, 2.0, 4.0])

    class Scripted(TinyGAN):
        if direction is not None:
            measures = MappingProxyType({"gap_nats": Measure(unit="nats", kind="exact", direction=direction)})

        def evaluate(self, batch: Batch) -> dict[str, Tensor]:
            return {"gap_nats": torch.full((len(batch.images),), self.value)}

    trainer = make_trainer(run_folder("a"), Scripted(), test_at_end=False, ema_decay=None)
    evaluate = trainer.evaluate

    def scripted(split: Any, *, limit: int | None = None) -> Any:
        trainer.model.value = next(values)  # type: ignore[assignment]
        return evaluate(split, limit=limit)

    trainer.evaluate = scripted  # type: ignore[method-assign]
    summary = trainer.fit(resume=False)
    assert summary.best == {"validation/gap_nats": best, "step": float(step)}
    assert CheckpointFolder(run_folder("a") / "checkpoints").load("best.safetensors", device=CPU)["step"] == step
    measures = json.loads((run_folder("a") / "summary.json").read_text(encoding="utf-8"))["measures"]
    assert (measures.get("gap_nats") or {}).get("direction") == direction


class Flat(TinyGAN):
    """Never improves on its first validation; its test may be stopped by a signal."""

    gap = 1.0
    stops_test = False

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        if self.stops_test:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"gap_nats": torch.full((len(batch.images),), self.gap)}


def test_early_stopping_counts_validations_without_gain(run_folder: Callable[[str], Path]) -> None:
    summary = make_trainer(run_folder("a"), Flat(), early_stopping_patience=2, num_steps=100).fit(resume=False)
    assert summary.step == 15  # first at 5, no gain at 10 and 15
    assert summary.status == "finished"
    assert "has not improved" in str(summary.reason)
    assert summary.test


def test_a_run_that_had_stopped_early_is_tested_where_it_stopped(
    run_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = run_folder("a")
    trainer = make_trainer(folder, Flat(), early_stopping_patience=2, num_steps=100)
    test = trainer.test

    def stopped_test() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Flat, "stops_test", True)
            test()

    trainer.test = stopped_test  # type: ignore[method-assign]
    with pytest.raises(StoppedBySignal):
        trainer.fit(resume=False)
    resumed = make_trainer(folder, Flat(), early_stopping_patience=2, num_steps=100).fit(resume=True)
    assert (resumed.status, resumed.step) == ("finished", 15)
    assert "has not improved" in str(resumed.reason)
    assert resumed.test
    longer = make_trainer(folder, Flat(), early_stopping_patience=2, num_steps=200).fit(resume=True)
    assert longer.step == 15
    assert str(longer.reason).endswith("; to continue, resume with trainer.early_stopping_patience=3 or more")
    assert "learning rate" not in caplog.text
    more = make_trainer(folder, Flat(), early_stopping_patience=3, num_steps=100).fit(resume=True)
    assert (more.status, more.step) == ("finished", 20)


def test_a_mean_leaves_out_the_batches_that_have_no_value(run_folder: Callable[[str], Path]) -> None:
    metrics = make_trainer(run_folder("a"), TinyGAN()).metrics
    for value in (math.nan, 0.25, 0.75, math.nan):
        metrics.record("model", {"error": torch.tensor(value), "unknown": torch.tensor(math.nan)})
    means = metrics.take()
    assert means["train/model/error"] == 0.5
    assert math.isnan(means["train/model/unknown"])


def test_early_stopping_needs_a_measure(run_folder: Callable[[str], Path]) -> None:
    class Unmeasured(TinyGAN):
        selection_measure = None

    with pytest.raises(ConfigurationError, match="early_stopping_patience must be null without a measure"):
        make_trainer(run_folder("a"), Unmeasured(), early_stopping_patience=2)
    with pytest.raises(ConfigurationError, match="early_stopping_patience must be null without a measure"):
        make_trainer(run_folder("a"), TinyGAN(), early_stopping_patience=2, validation_interval=0)


def test_time_limit_leaves_a_resumable_run(run_folder: Callable[[str], Path]) -> None:
    folder = run_folder("a")
    summary = make_trainer(folder, max_minutes=1e-9).fit(resume=False)
    assert (summary.status, summary.step) == ("interrupted", 1)
    assert make_trainer(folder).fit(resume=True).step == 20


def test_a_time_limit_does_not_interrupt_a_run_that_has_ended(run_folder: Callable[[str], Path]) -> None:
    ended = make_trainer(run_folder("a"), max_minutes=1e-9, num_steps=1).fit(resume=False)
    assert (ended.status, ended.step, ended.reason) == ("finished", 1, None)
    assert ended.test
    changes: dict[str, Any] = {"early_stopping_patience": 1, "validation_interval": 1}
    make_trainer(run_folder("b"), Flat(), num_steps=1, **changes).fit(resume=False)
    stopped = make_trainer(run_folder("b"), Flat(), max_minutes=1e-9, **changes).fit(resume=True)
    assert (stopped.status, stopped.step) == ("finished", 2)
    assert "has not improved" in str(stopped.reason)


def test_a_resumption_without_a_step_keeps_what_the_run_measured(run_folder: Callable[[str], Path]) -> None:
    first = make_trainer(run_folder("a")).fit(resume=False)
    again = make_trainer(run_folder("a")).fit(resume=True)
    assert {"validation/gap_nats", "train/generator/learning_rate"} < again.final.keys()
    assert again.final == first.final


def test_other_validation_images_select_the_best_step_anew(
    run_folder: Callable[[str], Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make_trainer(run_folder("a"), Flat(), num_steps=10).fit(resume=False).best["step"] == 5
    monkeypatch.setattr(Flat, "gap", 2.0)
    for changes, step in (({}, 5), ({"validation_images": 9}, 15)):
        folder = shutil.copytree(run_folder("a"), run_folder("b") / str(step))
        caplog.clear()
        assert make_trainer(folder, Flat(), **changes).fit(resume=True).best["step"] == step
        assert ("selected anew" in caplog.text) == bool(changes)


def test_a_run_goes_on_in_another_precision(run_folder: Callable[[str], Path]) -> None:
    make_trainer(run_folder("a"), num_steps=5).fit(resume=False)
    for precision in ("float16", "bfloat16", "float32"):
        folder = shutil.copytree(run_folder("a"), run_folder("b") / precision)
        assert make_trainer(folder, precision=precision, num_steps=6).fit(resume=True).step == 6


def test_a_device_is_awaited_before_it_is_observed(
    run_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue of the steps would else be counted as time of the observers."""
    trainer = make_trainer(run_folder("a"), max_minutes=60.0)
    trainer.device = torch.device("cuda")
    awaited: list[int] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: awaited.append(trainer.step))
    for trainer.step in range(1, 11):
        trainer._await_device()
    assert awaited == [3, 5, 6, 9, 10]  # log lines and validations


def test_metrics_average_the_whole_window(run_folder: Callable[[str], Path]) -> None:
    recorded: list[float] = []

    class Recording(TinyGAN):
        def generator_loss(self, batch: Batch) -> Loss:
            loss = super().generator_loss(batch)
            recorded.append(loss.value.item())
            return loss

    make_trainer(run_folder("a"), Recording(), num_steps=6).fit(resume=False)
    lines = [line for line in scalars(run_folder("a")) if "train/generator/adversarial_nats" in line]
    assert [line["step"] for line in lines] == [3, 6]
    assert lines[1]["train/generator/adversarial_nats"] == pytest.approx(sum(recorded[3:6]) / 3, rel=1e-6)
    assert lines[0]["images_seen"] == 3 * 8 * 2


def test_another_model_is_refused(run_folder: Callable[[str], Path]) -> None:
    class Wider(TinyGAN):
        def __init__(self) -> None:
            super().__init__()
            self.discriminator[0] = nn.Linear(16, 17)

    folder = run_folder("a")
    make_trainer(folder, num_steps=2, ema_decay=None).fit(resume=False)
    with pytest.raises(CheckpointError, match="another model"):
        make_trainer(folder, Wider(), ema_decay=None).fit(resume=True)


def test_an_empty_split_is_reported_before_the_first_batch(run_folder: Callable[[str], Path]) -> None:
    def trainer(**changes: Any) -> Trainer:
        dataset = make_dataset()
        empty = Store(torch.zeros(0, 1, 4, 4, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64))
        dataset._stores["validation"] = dataset._stores["test"] = empty
        return make_trainer(run_folder("a"), dataset=dataset, **changes)

    with pytest.raises(
        DataError, match=r"noise has no images in split validation and test; .*interval=0 .*at_end=false"
    ):
        trainer()
    with pytest.raises(DataError, match=r"noise has no images in split test; .*num_test, .*test_at_end=false"):
        trainer(validation_interval=0)
    summary = trainer(validation_interval=0, test_at_end=False, sample_interval=10).fit(resume=False)
    assert summary.status == "finished"


def test_golden_losses(run_folder: Callable[[str], Path]) -> None:
    """Refactoring must keep these to the last bits; a change of numerics is a line in CHANGELOG."""
    make_trainer(run_folder("a"), num_steps=3, log_interval=1).fit(resume=False)
    losses = [line["train/discriminator/adversarial_nats"] for line in scalars(run_folder("a"))[:3]]
    assert losses == pytest.approx([1.37864351, 1.29003739, 1.29456806], rel=1e-5)


def test_a_run_does_not_become_shorter(run_folder: Callable[[str], Path]) -> None:
    make_trainer(run_folder("a"), num_steps=3).fit(resume=False)
    with pytest.raises(ConfigurationError, match=r"num_steps must be at least the step of the run .*, 3, got 2"):
        make_trainer(run_folder("a"), num_steps=2).fit(resume=True)


def test_images_are_counted_by_the_batches_that_were_trained(run_folder: Callable[[str], Path]) -> None:
    first = make_trainer(run_folder("a"), num_steps=4, batch_size=8).fit(resume=False).images_seen
    summary = make_trainer(run_folder("a"), num_steps=6, batch_size=16).fit(resume=True)
    assert summary.images_seen == 2 * first
    assert make_trainer(run_folder("a"), num_steps=6, batch_size=8).fit(resume=True).images_seen == 2 * first


def test_one_epoch_shows_every_image_once(run_folder: Callable[[str], Path]) -> None:
    trainer: Trainer = make_trainer(run_folder("a"))
    dataset = make_dataset(binarization="none")
    stream = dataset.stream(batch_size=8, seed=trainer.seed, device=CPU)
    seen = torch.cat([stream.batch(index).images for index in range(5)])[:37]
    everything = next(dataset.batches("train", batch_size=37, seed=0, device=CPU)).images
    assert sorted(map(tuple, seen.flatten(1).tolist())) == sorted(map(tuple, everything.flatten(1).tolist()))


def test_batches_of_another_size_continue_the_epoch(
    run_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, seen = make_dataset(binarization="none"), []
    for batch_size, num_steps in ((8, 1), (4, 3), (6, 4)):
        trainer = make_trainer(run_folder("a"), dataset=dataset, batch_size=batch_size, num_steps=num_steps)
        batch_from = trainer._stream.batch_from

        def record(start: int, batch_from: Callable[[int], Batch] = batch_from) -> Batch:
            seen.append((batch := batch_from(start)).images)
            return batch

        monkeypatch.setattr(trainer._stream, "batch_from", record)
        trainer.fit(resume=num_steps > 1)
    images = torch.cat(seen)
    assert len(images) == 2 * (8 + 2 * 4 + 6)
    everything = next(dataset.batches("train", batch_size=37, seed=0, device=CPU)).images
    assert sorted(map(tuple, images[:37].flatten(1).tolist())) == sorted(map(tuple, everything.flatten(1).tolist()))


def test_a_run_resumes_with_the_best_weights_that_its_checkpoint_knows(
    run_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the saves of last.safetensors and best.safetensors, and ended before another validation."""
    folder = run_folder("a")
    settings = {"num_steps": 20, "validation_interval": 5, "checkpoint_interval": 0}

    class Killed(BaseException):
        pass

    def kill(*_: object, **__: object) -> None:
        raise Killed

    trainer = make_trainer(folder, **settings)
    monkeypatch.setattr(trainer.checkpoints, "save_best", kill)
    with pytest.raises(Killed):
        trainer.fit(resume=False)
    checkpoints = CheckpointFolder(folder / "checkpoints")
    assert checkpoints.last_step == 5, "the best weights are never newer than last.safetensors"
    trainer = make_trainer(folder, **settings | {"validation_interval": 0, "num_steps": 7})
    summary = trainer.fit(resume=True)
    assert (summary.best["step"], trainer.tested) == (5.0, ("best.safetensors", 5))
    assert checkpoints.load("best.safetensors", device=CPU)["step"] == 5
