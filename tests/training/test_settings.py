import dataclasses

import pytest

from genlab.training.settings import TrainerSettings
from tests.training.conftest import DEFAULTS, make_settings

BAD = {
    "num_steps": -1,
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


def test_no_default_stands_in_code() -> None:
    assert {field.name for field in dataclasses.fields(TrainerSettings)} == DEFAULTS.keys()
    assert all(field.default is dataclasses.MISSING for field in dataclasses.fields(TrainerSettings))


def test_a_patience_without_validation_would_have_no_effect() -> None:
    with pytest.raises(ValueError, match="null when nothing is validated"):
        make_settings(early_stopping_patience=3, validation_interval=0)


def test_parts_of_a_batch_must_be_alike() -> None:
    with pytest.raises(ValueError, match=r"^trainer\.gradient_accumulation must be 1 with labelled_fraction, got 2$"):
        make_settings(labelled_fraction=0.5, gradient_accumulation=2)


def test_stopping_on_collapse_needs_a_bound() -> None:
    with pytest.raises(ValueError, match=r"^trainer\.on_collapse must be warn without a bound .*, got stop$"):
        make_settings(on_collapse="stop", watch_interval=5)
    make_settings(on_collapse="stop", watch_interval=5, min_diversity_ratio=0.5)
