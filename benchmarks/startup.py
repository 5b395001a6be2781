"""Start-up time and peak memory of whole processes: help, composition, first step, job of a sweep, smoke run.

    python -m benchmarks.startup [--repeats 3]

Wall and CPU time are the least of several, as other programs only add to them; a job is a sweep of three runs less one
of a single run, halved. Targets: 0.2 s for the help, 4 s to the first step, 3 s for a job, 800 MB for a smoke run.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time

DRY = ("dataset.size=8", "trainer.dry_run=true", "trainer.test_at_end=false", "trainer.sample_interval=0")
COMMANDS = {
    "--help": ("--help",),
    "train --cfg job": ("train", "--cfg", "job"),
    "two steps": ("train", *DRY),
    "smoke run": ("train", "trainer=smoke"),
    "sweep of 1": ("train", "-m", "seed=1", *DRY),
    "sweep of 3": ("train", "-m", "seed=1,2,3", *DRY),
}


def measured(arguments: tuple[str, ...], folder: str) -> tuple[float, float, float]:
    """Return the wall seconds, CPU seconds and peak memory (MiB) of a command with its children."""
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "genlab", *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as program:
        _, status, usage = os.wait4(program.pid, 0)
        program.returncode = os.waitstatus_to_exitcode(status)
    if program.returncode:
        raise SystemExit(f"genlab {' '.join(arguments)} ended with exit code {program.returncode}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    least: dict[str, tuple[float, ...]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in COMMANDS.items():
            rows = [measured(arguments, folder) for _ in range(repeats)]
            least[name] = tuple(map(min, zip(*rows, strict=True)))
            wall, cpu, peak = least[name]
            print(f"genlab {name:16} {wall:6.2f} s, {cpu:6.2f} s of CPU, {peak:5.0f} MiB", flush=True)
    jobs = zip(least["sweep of 3"][:2], least["sweep of 1"][:2], strict=True)
    wall, cpu = ((three - one) / 2 for three, one in jobs)
    print(f"a job of a sweep        {wall:6.2f} s, {cpu:6.2f} s of CPU; load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
