import dataclasses

import pytest

from genlab.errors import ConfigurationError
from genlab.training.settings import TrainerSettings
from tests.training.conftest import make_settings

BAD = {
    "num_steps": -1,
    "num_epochs": -0.5,
    "batch_size": 0,
    "labelled_fraction": 1.0,
    "gradient_accumulation": 3,
    "max_gradient_norm": float("nan"),
    "ema_decay": 1.0,
    "log_interval": 0,
    "validation_interval": -1,
    "validation_images": 0,
    "sample_interval": -1,
    "num_sample_images": 0,
    "checkpoint_interval": -5,
    "max_minutes": 0.0,
    "early_stopping_patience": 0,
    "max_skipped_steps": -1,
    "watch_interval": -1,
    "watch_images": 1,
    "min_diversity_ratio": 0.0,
    "min_modes_covered": 0,
    "on_collapse": "stop",
    "num_initialization_images": 0,
    "devices": 0,
    "max_restarts": 1,
}


@pytest.mark.parametrize("key", BAD)
def test_ranges_name_key_rule_and_value(key: str) -> None:
    with pytest.raises(ValueError, match=rf"^trainer\.{key} must be .*, got {BAD[key]}$"):
        make_settings(**{key: BAD[key]})


@pytest.mark.parametrize(("num_images", "repeats"), [(20, 1), (37, 1), (37, 5), (60_000, 1)])
def test_steps_and_epochs_follow_from_each_other(num_images: int, repeats: int) -> None:
    by_epochs = make_settings(num_epochs=3.0).with_both_lengths(num_images=num_images, repeats=repeats)
    seen = by_epochs.num_steps * by_epochs.batch_size * repeats
    assert 0 <= seen - 3 * num_images < by_epochs.batch_size * repeats
    by_steps = make_settings(num_steps=by_epochs.num_steps).with_both_lengths(num_images=num_images, repeats=repeats)
    assert by_steps.num_epochs == pytest.approx(seen / num_images)
    again = by_steps.with_both_lengths(num_images=num_images, repeats=repeats)
    assert again == by_steps
    with pytest.raises(ConfigurationError, match=r"^trainer\.num_epochs must be at most .* steps\), got 1e\+30$"):
        make_settings(num_epochs=1e30).with_both_lengths(num_images=num_images, repeats=repeats)


def test_epochs_count_the_steps_before_another_batch_size() -> None:
    before = {"num_images": 100, "repeats": 2, "seen_at": (5, 160)}  # 5 steps of 2 batches of 16
    assert make_settings(num_steps=10, batch_size=8).with_both_lengths(**before).num_epochs == pytest.approx(2.4)
    assert make_settings(num_epochs=2.4, batch_size=8).with_both_lengths(**before).num_steps == 10
    assert make_settings(num_epochs=0.0, batch_size=8).with_both_lengths(**before).num_steps == 0
    assert make_settings(num_steps=0, batch_size=32).with_both_lengths(**before).num_epochs == 0


def test_no_default_stands_in_code() -> None:
    assert all(field.default is dataclasses.MISSING for field in dataclasses.fields(TrainerSettings))


def test_parts_of_a_batch_must_be_alike() -> None:
    with pytest.raises(
        ValueError, match=r"^trainer\.gradient_accumulation must be 1 with trainer\.labelled_fraction, got 2$"
    ):
        make_settings(labelled_fraction=0.5, gradient_accumulation=2)


def test_stopping_on_collapse_needs_a_bound() -> None:
    with pytest.raises(ValueError, match=r"^trainer\.on_collapse must be warn without a bound .*, got stop$"):
        make_settings(on_collapse="stop", watch_interval=5)
    make_settings(on_collapse="stop", watch_interval=5, min_diversity_ratio=0.5)


@pytest.mark.parametrize(
    ("batch_size", "num_processes", "fitting"), [(150, 4, [148, 152]), (3, 4, [4]), (1001, 7 * 11, [1001])]
)
def test_batches_that_cannot_be_shared_are_answered_with_sizes_that_can(
    batch_size: int, num_processes: int, fitting: list[int]
) -> None:
    settings = make_settings(batch_size=batch_size)
    if batch_size in fitting:
        settings.require_divisible_batches(num_processes)
        return
    with pytest.raises(ConfigurationError) as refusal:
        settings.require_divisible_batches(num_processes)
    assert f"such as {' or '.join(map(str, fitting))}, got {batch_size}" in str(refusal.value)
    for size in fitting:
        make_settings(batch_size=size).require_divisible_batches(num_processes)


@pytest.mark.parametrize(("labelled_fraction", "num_fitting"), [(0.4, 2), (0.1, 1), (0.99, 1)])
def test_labelled_images_that_cannot_be_shared_are_answered_with_fractions_that_can(
    labelled_fraction: float, num_fitting: int
) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        make_settings(batch_size=12, labelled_fraction=labelled_fraction).require_divisible_batches(3)
    fractions = str(refusal.value).partition("such as ")[2].partition(",")[0].split(" or ")
    assert len(fractions) == num_fitting
    for fraction in fractions:
        make_settings(batch_size=12, labelled_fraction=float(fraction)).require_divisible_batches(3)


def test_labelled_images_that_no_fraction_shares_are_refused_without_one() -> None:
    with pytest.raises(ConfigurationError, match=r"there are processes, got 2 of 4 images$"):
        make_settings(batch_size=4, labelled_fraction=0.5).require_divisible_batches(4)
