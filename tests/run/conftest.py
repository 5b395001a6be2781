"""The folder of a run that was never trained, and changes of its configuration."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.composed import configuration_of
from genlab.config.schema import RunConfiguration
from genlab.run.record import save_configuration
from genlab.types import ImageSpec

SPEC = ImageSpec(channels=1, height=8, width=8, num_levels=2, num_classes=10)


@pytest.fixture(scope="module")
def configuration() -> RunConfiguration:
    return configuration_of("model.num_glimpses=2", "model.num_units=8")


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configuration: RunConfiguration) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = Path("outputs/digits-draw/0001-x")
    folder.mkdir(parents=True)
    save_configuration(folder, configuration, SPEC, dataset_fingerprint=None)
    return folder


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    values = yaml.safe_load((folder / "config.yaml").read_text())
    change(values)
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
