"""Every data set's YAML names its factory and gives exactly its arguments, of the types it takes."""

import importlib
import inspect
import os
from pathlib import Path

import pytest
import torch
import yaml
from beartype.door import is_bearable

from genlab.data.binarized_mnist import FILES
from tests.data.sources import dataset_node

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "dataset").glob("*.yaml"))
REAL_DATA = os.environ.get("GENLAB_DATA")
VARIANTS = {"digits_grey": "digits", "digits_few_labels": "digits_grey"}
"""Files that say what they change in another one."""
NAMES = sorted({path.stem for path in CONFIGS} - VARIANTS.keys())


def _load(name: str):
    path = next(path for path in CONFIGS if path.stem == name)
    settings = dataset_node(path)
    module, function = settings.pop("_target_").rsplit(".", 1)
    return getattr(importlib.import_module(module), function), settings


def test_the_data_sets_are_seen():
    assert len(NAMES) >= 12
    assert len(CONFIGS) == len(NAMES) + len(VARIANTS)


@pytest.mark.parametrize(("name", "base"), VARIANTS.items())
def test_a_variant_changes_values_of_its_base(name, base):
    changes = yaml.safe_load((CONFIGS[0].parent / f"{name}.yaml").read_text())
    assert changes.pop("defaults") == [base, "_self_"]
    while base in VARIANTS:
        base = VARIANTS[base]
    factory, settings = _load(base)
    assert changes
    for key, value in changes.items():
        assert is_bearable(value, inspect.signature(factory).parameters[key].annotation), key
        assert value != settings[key]


@pytest.mark.parametrize("name", NAMES)
def test_yaml_is_the_signature(name):
    factory, settings = _load(name)
    assert factory.__name__ == name
    parameters = inspect.signature(factory).parameters
    assert set(settings) == set(parameters)
    for key, parameter in parameters.items():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        if key not in ("flip", "fresh_clutter", "num_training"):  # no keys of older runs
            assert parameter.default is inspect.Parameter.empty  # YAML is the only place of defaults
        assert is_bearable(settings[key], parameter.annotation), key


@pytest.mark.skipif(REAL_DATA is None, reason="needs the real files: set GENLAB_DATA")
@pytest.mark.parametrize(
    ("name", "sizes", "mean"),
    [
        ("mnist", [50_000, 10_000, 10_000], 0.1307),
        ("binarized_mnist", [50_000, 10_000, 10_000], 0.1308),
    ],
)
def test_real_files(name, sizes, mean):
    factory, settings = _load(name)
    data = factory(**(settings | {"download": False}))
    assert [data.num_images(split) for split in FILES] == sizes
    images = data.subset("train", 10_000, seed=0, device=torch.device("cpu")).images
    assert abs(images.mean().item() - mean) < 0.002
