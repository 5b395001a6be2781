"""One table of what is measured: work, baseline, ratio, must, aim, and the peak memory of the program.

    python -m benchmarks [ONLY ...] [--write FILE]
    make bench [ONLY="loop gan"]

Each program runs in a process of its own on one thread, with few rounds; all take about five minutes on a quiet
machine. Started by itself a program takes more rounds. Ratios are of medians of CPU time, ours and the
straightforward way in turns. A program that fails costs its own rows.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.rows import VARIABLE
from genlab.run.environment import describe_cpu

PROGRAMS = {
    "loop": (("loop_overhead", "--networks", "mlp", "tiny", "--repeats", "10", "--steps", "30"),),
    "data": (("data_path", "--rounds", "6"),),
    "draw": (
        ("draw_step", "--setting", "small", "--rounds", "7"),
        ("draw_step", "--setting", "paper", "--rounds", "2"),
    ),
    "compiled": (
        ("draw_step", "--setting", "small", "--compile", "--rounds", "7"),
        ("draw_step", "--setting", "paper", "--compile", "--rounds", "2"),
    ),
    "evaluation": (("evaluation", "--rounds", "1", "--samples", "0", "10"),),
    "bound": (("importance_weighted_bound", "--rounds", "1", "--samples", "50"),),
    "gan": (("gan_step", "--way", "same", "--rounds", "5"), ("gan_step", "--way", "reuse", "--rounds", "5")),
    "step": (("training_step", "--rounds", "3", "--steps", "1"),),
    "pixelcnn": (
        ("pixelcnn_training", "--networks", "document", "--rounds", "2"),
        ("pixelcnn_training", "--networks", "gated", "--rounds", "5", "--compile"),
        ("pixelcnn_training", "--networks", "plus_plus", "--rounds", "5", "--compile"),
    ),
    "sampling": (
        ("pixelcnn_sampling", "--rounds", "1", "--pixels", "1", "--batches", "1", "16"),
        ("pixelcnn_sampling", "--plus-plus", "--rounds", "1", "--batches", "16", "64"),
    ),
    "frechet": (("frechet_distance", "--rounds", "1"),),
}
"""Name for ONLY, and the programs with their arguments."""
AS_THE_PROGRAM = {"MALLOC_MMAP_THRESHOLD_": str(2**28), "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
"""What `genlab` sets for itself (:mod:`genlab.launch.runtimes`), here for both sides."""
HEAD = "| work | straightforward | genlab | ratio | must | aim | | peak memory |"


def measured(arguments: tuple[str, ...]) -> list[str]:
    """Run a program; return the lines of its rows."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows"
        variables = {**os.environ, **AS_THE_PROGRAM, VARIABLE: str(rows), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", f"benchmarks.{arguments[0]}", *arguments[1:]]
        with subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL) as program:
            _, status, usage = os.wait4(program.pid, 0)
            program.returncode = os.waitstatus_to_exitcode(status)
        lines = rows.read_text(encoding="utf-8").splitlines() if rows.exists() else []
    name = " ".join(arguments)
    if program.returncode:
        return [f"| {name} | failed with exit code {program.returncode} | | | | | | |"]
    if not lines:
        return [f"| {name} | not measured: it lacks data | | | | | | |"]
    return [line_of(json.loads(line), usage.ru_maxrss / 1024) for line in lines]


def line_of(row: dict[str, object], peak: float) -> str:
    """Return a row of the table.

    Args:
        row: Of :func:`benchmarks.rows.keep_row`.
        peak: Memory of the program, MiB.
    """
    ratio, must, aim = float(str(row["ratio"])), float(str(row["must"])), row["aim"]
    is_met = ratio <= must if row["at_most"] else ratio >= must
    bound = "at most " if row["at_most"] else ""
    digits = 3 if row["at_most"] else 2
    return (
        f"| {row['work']} | {seconds(float(str(row['baseline'])))} | {seconds(float(str(row['ours'])))} "
        f"| {ratio:.{digits}f} | {bound}{must:g} | {'' if aim is None else aim} | {'' if is_met else 'missed'} "
        f"| {peak:,.0f} MiB |"
    )


def seconds(value: float) -> str:
    """Return a time with its unit."""
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1e3:.2f} ms" if value >= 1e-3 else f"{value * 1e6:.0f} us"


def machine() -> str:
    """Return a line on the machine, with the vector instructions that torch found."""
    found = [name for name, has in torch.cpu.get_capabilities().items() if has is True]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{datetime.datetime.now(tz=datetime.UTC):%d %B %Y}, {describe_cpu()}, {os.cpu_count()} cores "
        f"({' '.join(sorted(found))}), torch {torch.__version__}, one thread, load average {load}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "only", nargs="*", metavar="ONLY", help=f"some of {', '.join(PROGRAMS)}; all of them by default"
    )
    parser.add_argument("--write", type=Path, help="a file for the table, such as benchmarks/reports/DATE_CPU.md")
    arguments = parser.parse_args()
    if unknown := set(arguments.only) - set(PROGRAMS):
        parser.error(f"ONLY must be some of {', '.join(PROGRAMS)}, got {', '.join(sorted(unknown))}")
    start = time.monotonic()
    lines = [machine(), "", HEAD, "|---" * HEAD.count(" |") + "|"]
    print("\n".join(lines), flush=True)
    for name in arguments.only or PROGRAMS:
        for program in PROGRAMS[name]:
            rows = measured(program)
            print("\n".join(rows), flush=True)
            lines += rows
    lines += ["", f"{(time.monotonic() - start) / 60:.0f} minutes; load average {os.getloadavg()[0]:.1f} at the end."]
    print("\n".join(lines[-2:]))
    if arguments.write is not None:
        arguments.write.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
