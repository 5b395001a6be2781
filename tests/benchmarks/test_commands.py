"""Every command that a report or a page of the docs names starts: its module imports, and its options exist."""

import argparse
import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = sorted(
    path.stem
    for path in (ROOT / "benchmarks").glob("*.py")
    if "\ndef main(" in path.read_text() and path.stem != "__main__"
)


def documented() -> list[str]:
    """The commands in code spans, without those that hold a placeholder."""
    pages = [*(ROOT / "benchmarks" / "reports").glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    found = {command for page in pages for command in re.findall(r"`python -m (benchmarks\.[^`]*)`", page.read_text())}
    return sorted(command for command in found if not re.search(r"[A-Z]|\.\.\.", command))


class Parsed(Exception):  # noqa: N818 - no error
    """The line was understood."""


@pytest.mark.parametrize("command", [*(f"benchmarks.{name}" for name in PROGRAMS), *documented()])
def test_a_benchmark_starts_as_it_is_documented(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser: argparse.ArgumentParser, words: object = None) -> None:
        parse(parser)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    name, *words = shlex.split(command)
    monkeypatch.setattr(sys, "argv", [name, *words])
    monkeypatch.setattr(sys, "path", [str(ROOT), *(path for path in sys.path if not path.endswith("benchmarks"))])
    module = importlib.import_module("benchmarks.gpu.__main__" if name == "benchmarks.gpu" else name)
    with pytest.raises(Parsed):
        module.main()


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_benchmark_says_how_it_is_called(name: str) -> None:
    text = (ROOT / "benchmarks" / f"{name}.py").read_text()
    assert f"python -m benchmarks.{name}" in text
    assert f"benchmarks/{name}.py" not in text
