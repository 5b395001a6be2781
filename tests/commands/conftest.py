"""One small trained run that every command is tried on."""

from pathlib import Path

import pytest

from tests.conftest import train_in

TINY = (
    "trainer=smoke",
    "trainer.num_steps=3",
    "dataset.size=8",
    "model.num_glimpses=2",
    "model.num_units=16",
    "num_threads=1",
)


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_in(tmp_path_factory.mktemp("outputs") / "run", "model=draw", *TINY)


def train_tiny(tmp_path_factory: pytest.TempPathFactory, model: str, *arguments: str) -> Path:
    tiny = ("trainer=smoke", "trainer.num_steps=2", "dataset.size=8", "num_threads=1", "trainer.sample_interval=0")
    return train_in(tmp_path_factory.mktemp("outputs") / model, f"model={model}", *tiny, *arguments)


@pytest.fixture(name="classifier_run", scope="session")
def trained_classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_tiny(tmp_path_factory, "classifier", "trainer.num_steps=20")


@pytest.fixture(name="cgan_run", scope="session")
def trained_cgan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_tiny(tmp_path_factory, "cgan")


@pytest.fixture(name="infogan_run", scope="session")
def trained_infogan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_tiny(tmp_path_factory, "infogan")


@pytest.fixture(name="exact_run", scope="session")
def trained_exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_tiny(tmp_path_factory, "gated_pixelcnn", "model.num_layers=2", "model.channels=4")
