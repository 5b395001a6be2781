"""Nothing is imported from the working directory, by genlab or by the processes that it starts."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import genlab as package
from genlab.commands.board import BoardSettings, tensorboard_command
from genlab.launch import sweep_job as process
from genlab.launch.processes import Processes, launch_processes
from tests.conftest import Outcome

TINY = ["trainer=smoke", "trainer.num_steps=2", "model=gan", "trainer.sample_interval=0", "num_threads=1"]
TINY += ["trainer.validation_interval=0", "trainer.test_at_end=false"]


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Return a folder with files and folders that have the names of what genlab imports."""
    trap = "raise SystemExit('imported from the working directory')\n"
    for name in ("inspect", "json", "torch", "logging", "tensorboard", "pathlib", "joblib", "hydra", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text(trap)
    return tmp_path


def set_trap_for_genlab(folder: Path) -> None:
    (folder / "genlab").mkdir()
    for name in ("__init__", "__main__"):
        (folder / "genlab" / f"{name}.py").write_text("raise SystemExit('not the installed package')\n")


def call(line: list[str], *, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"} | variables
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, timeout=300, env=environment)


def test_python_m_genlab_does_not_import_what_lies_there(hostile: Path) -> None:
    result = call([sys.executable, "-m", "genlab", "train", "--cfg", "job"], cwd=hostile)
    assert result.returncode == 0, result.stderr


def test_what_the_user_puts_on_the_path_stays(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.stderr.write('from PYTHONPATH')\n")
    result = call([sys.executable, "-m", "genlab", "--version"], cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert (result.returncode, result.stderr) == (0, "from PYTHONPATH")


def test_a_clone_that_is_not_installed_finds_itself_in_its_children(tmp_path: Path) -> None:
    (tmp_path / "genlab").symlink_to(Path(package.__file__).parent)
    program = "import genlab.cli, os; genlab.cli.main = lambda: print(os.environ['PYTHONPATH'])"
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n{program}\n")
    result = call([sys.executable, "-m", "genlab"], cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert result.stdout.split(os.pathsep)[0].strip() == str(tmp_path), result.stderr


def started_by_a_sweep(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    from genlab.launch.sweep_folder import JobRecord, SweepFolder
    from genlab.launch.sweep_settings import SweepSettings

    lines: list[list[str]] = []

    def run(line: list[str], record: JobRecord, *_: object) -> JobRecord:
        lines.append(line)
        return record

    monkeypatch.setattr(process, "_run", run)
    monkeypatch.setattr(process, "_arguments_of_job", lambda *_, **__: ["--version"])
    monkeypatch.setattr(process, "_choices_text", lambda *_: "")
    monkeypatch.setattr(process, "write_tables", lambda *_: [])
    settings = SweepSettings(measure=None, minimize=True, resume=None)
    sweep = SweepFolder(hostile / "sweep")
    sweep.jobs_folder.mkdir(parents=True)
    record = JobRecord(number=0, overrides=(), folder="0", status="running")
    process._run_and_record(record, sweep, settings, {})
    return lines[0]


def started_by_a_launcher(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[list[str]] = []
    monkeypatch.setattr(
        "torch.distributed.launcher.api.elastic_launch",
        lambda config, program: lambda *arguments: lines.append([program, *arguments]),
    )
    launch_processes("train", ["--version"], Processes(num=2))
    return lines[0]


def started_by_the_board(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return [*tensorboard_command(BoardSettings(folder=".", port=None)), "--version"]


@pytest.mark.parametrize("line", [started_by_a_sweep, started_by_a_launcher, started_by_the_board])
def test_processes_do_not_import_what_lies_there(
    hostile: Path, monkeypatch: pytest.MonkeyPatch, line: Callable[[Path, pytest.MonkeyPatch], list[str]]
) -> None:
    set_trap_for_genlab(hostile)
    arguments = line(hostile, monkeypatch)
    if "genlab" in arguments:
        # torch is not needed to see where genlab is found
        arguments = [*arguments[: arguments.index("genlab") + 1], "--version"]
    result = call(arguments, cwd=hostile)
    assert result.returncode == 0, result.stderr


def test_a_package_of_ones_own_that_lies_there_is_answered_with_the_way_to_name_it(
    genlab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_models.py").touch()
    monkeypatch.setenv("GENLAB_ALLOW", "my_models,others")
    outcome: Outcome = genlab("train", "model._target_=my_models.Mine")
    outcome.assert_error(2, "there is no module my_models; the working directory is not searched: set PYTHONPATH=$PWD")
    outcome = genlab("train", "model._target_=others.Mine")
    assert "there is no module others\n" in outcome.errors


def test_a_working_directory_that_is_gone_is_said(genlab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    outcome: Outcome = genlab("models")
    assert (outcome.code, outcome.errors) == (
        7,
        "genlab: error: the working directory does not exist any more; change to another\n",
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("-m", "seed=0,1"),
        ("-m", "seed=0,1", "hydra/launcher=local"),
        ("-m", "seed=0,1", "hydra/launcher=slurm_rehearsal"),
        ("trainer.devices=2", "device=cpu"),
        ("-m", "seed=0,1", "trainer.devices=2", "device=cpu"),
    ],
)
def test_whole_runs_beside_such_files(hostile: Path, arguments: tuple[str, ...]) -> None:
    set_trap_for_genlab(hostile)
    program = "import sys; from genlab.cli import main; sys.exit(main())"  # as the installed command does
    result = call([sys.executable, "-P", "-c", program, "train", *TINY, *arguments], cwd=hostile)
    assert result.returncode == 0, result.stderr
