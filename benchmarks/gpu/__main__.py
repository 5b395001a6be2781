"""Benchmarks that need a GPU, within eight minutes: agreement first, then times, launches and memory.

    python -m benchmarks.gpu [--device cuda] [--minutes 8] [--only CASE ...] [--out benchmarks/reports]

Each case is a process of its own with a limit of time, so that a failure costs its row and no other. A case that comes
next is started ahead and waits, so that the device does not wait for imports. The report, one JSON file and one
Markdown page, is rewritten after each case. It needs the repository and genlab's dependencies, not an installation.
Exit code 0: every case ended and everything agrees; 1 otherwise.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from datetime import date
from pathlib import Path
from typing import IO, Any

from benchmarks.gpu.report import write_report

LEAST_SECONDS = 10.0
"""A case is not started with less time left."""


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--only", nargs="+", metavar="CASE", help="these cases alone")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal of seconds")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/reports"))
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    if arguments.case:
        return run_case(arguments.case, arguments.device, tiny=arguments.tiny)
    return conduct(arguments)


# ---- one case, in a process of its own


def run_case(name: str, device_name: str, *, tiny: bool) -> int:
    """Give the rows of a case as lines of JSON, after a line on standard input has said that it may begin."""
    import torch

    from benchmarks.gpu.cases import CASES, FULL, TINY
    from genlab.numerics import make_explicit

    sys.stdin.readline()
    device = torch.device(device_name)
    make_explicit(device)
    try:
        for row in CASES[name].run(TINY if tiny else FULL, device):
            print(json.dumps(row), flush=True)
    except Exception as error:
        traceback.print_exc()
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
        return 1
    return 0


# ---- all of them


class CaseProcess:
    """A case's process, started and waiting.

    Args:
        name: Of the case.
        command: Prints rows as lines of JSON after it has read a line.
        log: File for its standard error.
    """

    def __init__(self, name: str, command: list[str], log: IO[bytes]) -> None:
        self.name = name
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

    def finish(self, *, limit: float) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Let it run; its rows, and how it ended."""
        start = time.monotonic()
        error = None
        try:
            self._process.communicate(b"begin\n", timeout=limit)
        except subprocess.TimeoutExpired:
            error = f"no end after {limit:.0f} s"
        self.stop()
        rows = [row for row in map(_read, self._lines()) if row is not None]
        errors = [row["error"] for row in rows if "error" in row]
        if self._process.returncode and not error:
            error = errors[0] if errors else f"exit code {self._process.returncode}"
        seconds = round(time.monotonic() - start, 1)
        return [row | {"case": self.name} for row in rows if "error" not in row], {"seconds": seconds, "error": error}

    def stop(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _lines(self) -> list[str]:
        with self._output:
            self._output.seek(0)
            return self._output.read().decode(errors="replace").splitlines()


def _read(line: str) -> dict[str, Any] | None:
    """Return a row; None for a line that a library has printed."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def conduct(arguments: argparse.Namespace) -> int:
    from benchmarks.gpu.cases import CASES

    limits = {name: float(case.seconds) for name, case in CASES.items()}
    names = arguments.only or list(limits)
    unknown = [name for name in names if name not in limits]
    if unknown:
        print(f"--only must name cases ({', '.join(limits)}), got {unknown[0]}", file=sys.stderr)
        return 2
    until = time.monotonic() + 60 * arguments.minutes
    record: dict[str, Any] = {
        "title": f"GPU report of {date.today():%d %B %Y}",
        "machine": machine_facts(arguments.device),
        "cases": {},
        "rows": [],
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    name = f"{date.today():%Y-%m-%d}_gpu"
    with (arguments.out / f"{name}.log").open("wb") as log:
        waiting = CaseProcess(names[0], command_of(names[0], arguments), log)
        for index, case in enumerate(names):
            current = waiting
            if index + 1 < len(names):
                waiting = CaseProcess(names[index + 1], command_of(names[index + 1], arguments), log)
            left = until - time.monotonic()
            if left < LEAST_SECONDS:
                current.stop()
                record["cases"][case] = {"seconds": 0.0, "error": "not begun: the time was over"}
                continue
            rows, outcome = current.finish(limit=min(limits[case], left))
            record["rows"] += rows
            record["cases"][case] = outcome
            page = write_report(arguments.out, name, record)
            print(f"{case}: {outcome['error'] or 'done'} in {outcome['seconds']} s, {len(rows)} rows", flush=True)
        page = write_report(arguments.out, name, record)
    print(page.read_text(encoding="utf-8"))
    is_right = all(row.get("holds") is not False for row in record["rows"])
    return 0 if is_right and not any(case["error"] for case in record["cases"].values()) else 1


def command_of(name: str, arguments: argparse.Namespace) -> list[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", "--case", name, "--device", arguments.device]
    return command + ["--tiny"] * arguments.tiny


def machine_facts(device_name: str) -> dict[str, Any]:
    import torch

    facts: dict[str, Any] = {"torch": torch.__version__, "python": platform.python_version()}
    if device_name.startswith("cuda") and torch.cuda.is_available():
        facts = {"device": torch.cuda.get_device_name(), "CUDA": torch.version.cuda, **facts}
    else:
        facts = {"device": device_name, **facts}
    return facts


if __name__ == "__main__":
    sys.exit(main())
