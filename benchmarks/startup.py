"""Startup time of `genlab --help`, of `genlab train --cfg job`, and of a run of two training steps.

Whole processes, wall time, median of several; targets 0.2 s for the help and 5 s to the first training step.

    python -m benchmarks.startup [--repeats 5]
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    tiny = ["dataset.size=8", "trainer.dry_run=true", "trainer.test_at_end=false", "trainer.sample_interval=0"]
    commands = {"--help": ["--help"], "train --cfg job": ["train", "--cfg", "job"], "two steps": ["train", *tiny]}
    with tempfile.TemporaryDirectory() as folder:
        for name, words in commands.items():
            seconds = []
            for _ in range(repeats):
                start = time.perf_counter()
                subprocess.run([sys.executable, "-m", "genlab", *words], cwd=folder, capture_output=True, check=True)
                seconds.append(time.perf_counter() - start)
            print(f"genlab {name}: median {statistics.median(seconds):.2f} s, least {min(seconds):.2f} s")


if __name__ == "__main__":
    main()
