"""What a process takes from its surroundings before it joins others."""

import pytest
import torch

from genlab.collectives import num_processes
from genlab.errors import ConfigurationError
from genlab.training.processes import joined, own_device

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "variables",
    [
        {"WORLD_SIZE": "2"},
        {"WORLD_SIZE": "abc", "RANK": "0", "LOCAL_RANK": "0"},
        {"WORLD_SIZE": "2", "RANK": "0"},
        {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"},
    ],
)
def test_a_process_is_alone_without_a_whole_place(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with joined(CPU):
        assert num_processes() == 1
    assert own_device(torch.device("cuda")) == torch.device("cuda")


@pytest.mark.parametrize("text", ["abc", "0", "-3", "nan", "inf", "1e300", ""])
def test_a_time_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "GENLAB_TIMEOUT_SECONDS": text}.items():
        monkeypatch.setenv(name, value)
    message = f"^GENLAB_TIMEOUT_SECONDS must be a positive number of seconds, at most a week, got {text}$"
    with pytest.raises(ConfigurationError, match=message), joined(CPU):
        pass
