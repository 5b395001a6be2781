"""OpenMP's spin is short in every process that genlab starts, and the user's and a library's environment stays."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from genlab.launch.runtimes import SPIN_SETTINGS, WAIT_POLICY, shorten_spin

NAMES = (*SPIN_SETTINGS, WAIT_POLICY)


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)


def variables() -> dict[str, str]:
    return {name: os.environ[name] for name in NAMES if name in os.environ}


def test_variables_are_set_before_torch_and_never_after(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_spin()
    assert variables() == {}  # these tests have loaded torch
    monkeypatch.delitem(sys.modules, "torch")
    shorten_spin()
    assert variables() == SPIN_SETTINGS


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"GOMP_SPINCOUNT": "7"}, {**SPIN_SETTINGS, "GOMP_SPINCOUNT": "7"}),
        ({"KMP_BLOCKTIME": "infinite"}, {**SPIN_SETTINGS, "KMP_BLOCKTIME": "infinite"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_the_users_own_stay(given: dict[str, str], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    shorten_spin()
    assert variables() == expected


def result_of(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


def test_the_program_sets_them_before_anything_heavy_and_the_library_never() -> None:
    tell = "import os, sys; print('torch' in sys.modules, os.environ.get('GOMP_SPINCOUNT'))"
    told = f"False {SPIN_SETTINGS['GOMP_SPINCOUNT']}"
    assert result_of(f"import genlab.cli; genlab.cli.main(['--version']); {tell}").splitlines()[-1] == told
    assert result_of(f"import genlab, genlab.cli; {tell}") == "False None\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [(), ("trainer.devices=2",), ("-m", "seed=0,1"), ("-m", "seed=0,1", "hydra/launcher=local")]
)
def test_every_process_that_loads_torch_has_read_them(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """The runtime itself tells, as it is loaded, of what it has read; joblib's workers load no torch."""
    tiny = ("trainer=smoke", "model=gan", "dataset.size=8", "num_threads=1", "trainer.num_steps=2")
    told = subprocess.run(
        [sys.executable, "-m", "genlab", "train", *tiny, "device=cpu", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_DISPLAY_ENV": "verbose"},
        check=True,
    )
    text = told.stderr + "".join(path.read_text() for path in tmp_path.rglob("output.log"))
    counts = re.findall(r"GOMP_SPINCOUNT = '(\d+)'", text)
    if not counts:
        pytest.skip("torch has another OpenMP runtime here")
    assert set(counts) == {SPIN_SETTINGS["GOMP_SPINCOUNT"]}
    assert len(counts) >= (3 if arguments else 1)
