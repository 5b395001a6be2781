"""A whole sweep with the launcher of SLURM, whose commands are small programs that start processes here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.test_slurm import program, programs  # noqa: F401  # the fixture
from tests.launch.test_sweep import TINY, only_sweep, table

SBATCH = """
import os, pathlib, re, subprocess, sys
script, home = pathlib.Path(sys.argv[-1]), pathlib.Path(__file__).parent
last = int(re.search(r"--array=0-(\\d+)", script.read_text()).group(1))
for index in range(last + 1):
    values = {"SLURM_JOB_ID": str(70 + index), "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(index)}
    (home / f"task-{index}").write_text(str(script))
    subprocess.Popen(
        ["bash", "-c", f"bash '{script}'; rm '{home}/task-{index}'"],
        env={**os.environ, **values},
        start_new_session=True,
        stdout=subprocess.DEVNULL,  # the launcher reads the pipe of sbatch to its end
        stderr=subprocess.DEVNULL,
    )
print("Submitted batch job 7")
"""
SRUN = """
import os, sys
arguments = sys.argv[1:]
while arguments[0].startswith("--"):
    name = arguments.pop(0)
    if name in ("--output", "--error"):
        path = arguments.pop(0).replace("%A", "7").replace("%a", os.environ["SLURM_ARRAY_TASK_ID"]).replace("%t", "0")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1 if name == "--output" else 2)
command = [word.replace("%j", f"7_{os.environ['SLURM_ARRAY_TASK_ID']}") for word in arguments]
os.execvp(arguments[0], arguments)
"""
SQUEUE = """
import pathlib
for path in sorted(pathlib.Path(__file__).parent.glob("task-*")):
    print(f"7_{path.name[5:]}|RUNNING|None|{path.read_text()}")
"""


@pytest.mark.slow
def test_a_sweep_runs_as_an_array_and_a_failed_job_ends_nothing(tmp_path: Path, programs: Path) -> None:  # noqa: F811
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("squeue", SQUEUE), ("scancel", "")):
        program(programs, name, text)
    arguments = ["train", "-m", "hydra/launcher=slurm", *TINY, "model.num_units=8", "model.read_size=3,12,4"]
    done = subprocess.run(
        [sys.executable, "-m", "genlab", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 9, done.stderr
    sweep = only_sweep(tmp_path)
    assert [row["status"] for row in table(sweep)] == ["finished", "failed", "finished"]
    assert "SLURM job 7: 3 running" in done.stdout
    assert "job 1: failed: " in done.stdout
    assert f"SLURM job 7, output: outputs/sweeps/{sweep.name}/.submitit/" in done.stdout
