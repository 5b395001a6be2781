"""Devices that torch counts and cannot use, as under a driver that is older than its CUDA."""

import pytest
import torch

from genlab.config.devices import choose_device
from genlab.errors import ConfigurationError
from tests.conftest import Genlab


@pytest.fixture
def unusable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("unusable")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_device_that_cannot_be_used_is_refused_in_a_line_and_auto_passes_it_over(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"device must be usable, got {name}: the driver is too old"):
        choose_device(name)
    assert choose_device("auto").type in ("cpu", "mps")


@pytest.mark.usefixtures("unusable")
def test_doctor_names_it_and_goes_on(genlab: Genlab) -> None:
    outcome = genlab("doctor").checked()
    assert "2 CUDA devices, which this torch (CUDA " in outcome.output
    assert "numerics" in outcome.output
