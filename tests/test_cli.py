"""The command line in subprocesses; few tests, because each costs seconds."""

import json
import os
import pickle
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from genlab.cli import COMMANDS, Job, main
from genlab.run.folder import resume_command
from tests.conftest import Genlab
from tests.thinning import slow

GENLAB = [sys.executable, "-m", "genlab"]
TINY = ["trainer=smoke", "trainer.num_steps=2", "dataset.size=8", "model.num_glimpses=2", "model.num_units=16"]
TINY += ["trainer.sample_interval=0", "num_threads=1"]


def call(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*GENLAB, *arguments], cwd=cwd, capture_output=True, text=True, timeout=200, env={**os.environ, **environment}
    )


def test_help_and_version_import_neither_torch_nor_hydra() -> None:
    for flag in ("--help", "--version"):
        program = f"""
import sys
from genlab.cli import main
assert main(["{flag}"]) == 0
assert not {{"torch", "hydra", "omegaconf", "numpy"}} & set(sys.modules), sorted(sys.modules)
"""
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, result.stderr
        assert "genlab" in result.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("genlab train model=draw_n", {"model=draw_no_attention"}),
        slow(("genlab tr", {"train"})),
        slow(("genlab train experiment=draw_mnist_q", {"experiment=draw_mnist_quick"})),
        slow(("genlab board fol", {"folder="})),
        slow(("genlab datasets dataset=stack", {"dataset=stacked_mnist"})),
    ],
)
def test_completion_in_a_real_bash(tmp_path: Path, line: str, expected: set[str]) -> None:
    program = tmp_path / "genlab"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m genlab "$@"\n')
    program.chmod(0o755)
    script = f"""
eval "$(genlab -sc install=bash 2>/dev/null | sed s/__main__.py/genlab/)"
COMP_LINE="{line}"; COMP_POINT=${{#COMP_LINE}}; COMP_WORDS=($COMP_LINE); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
hydra_bash_completion
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    result = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=60, env=environment, cwd=tmp_path
    )
    assert set(result.stdout.split()) == expected, result.stderr


def test_completion_lists_a_command_a_line_for_fish_and_bash_alike(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", "genlab ")
    assert main(["-sc", "query=fish"]) == 0
    assert capsys.readouterr().out.split("\n") == [*COMMANDS, ""]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("genlab compare outputs --so", {"--sort"}),
        ("genlab models draw_n", {"draw_no_attention"}),
        ("genlab runs rm su", {"sure="}),
        ("genlab train name='x model=draw_n", set()),
        ("genlab trian model=", set()),
    ],
)
def test_completion_beside_positional_arguments_flags_and_what_is_half_typed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], line: str, expected: set[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    assert main(["-sc", "query=bash"]) == 0
    output, errors = capfd.readouterr()
    assert (set(output.split()), errors) == (expected, "")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("genlab sample run=", {"run=last", "run=a/one", "run=a/two", "run=digits_draw"}),
        ("genlab train resume=a/t", {"resume=a/two"}),
        ("genlab evaluate outp", {"outputs/a/one", "outputs/a/two"}),
        ("genlab compare a/one a/t", {"a/two"}),
        ("genlab runs rm a/o", {"a/one"}),
        ("genlab export digits_d", {"digits_draw"}),
    ],
)
def test_completion_of_runs_imports_neither_torch_nor_hydra(tmp_path: Path, line: str, expected: set[str]) -> None:
    for name in ("one", "two"):
        (tmp_path / "outputs/a" / name).mkdir(parents=True)
        (tmp_path / "outputs/a" / name / "config.yaml").write_text("")
    program = """
import sys
from genlab.cli import main
assert main(["-sc", "query=fish"]) == 0
assert not {"torch", "hydra", "omegaconf", "numpy"} & set(sys.modules), sorted(sys.modules)
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={**os.environ, "COMP_LINE": line, "GENLAB_PRETRAINED": str(tmp_path)},
    )
    assert (result.returncode, set(result.stdout.split())) == (0, expected), result.stderr


def test_a_port_in_use_is_a_line(genlab: Genlab) -> None:
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
        outcome = genlab("board", ".", f"port={port}")
    told = f"port {port} cannot be used (Address already in use); without a port the next free one is taken"
    assert (outcome.code, outcome.errors) == (2, f"genlab: error: {told}\n")


def test_help_fits_80_columns_and_windows_is_refused_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    assert main(["--help"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
    assert main(["train"]) == 2
    assert "genlab needs Linux, macOS or WSL 2" in capsys.readouterr().err


def test_a_run_its_files_its_resumption_and_what_resumption_refuses(tmp_path: Path, genlab: Genlab) -> None:
    folder = tmp_path / "ünï run, a=b"
    result = call("train", *TINY, f"hydra.run.dir='{folder}'", cwd=tmp_path, SECRET="canary-5137")
    assert result.returncode == 0, result.stderr
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    assert config["spec"] == {"channels": 1, "height": 8, "width": 8, "num_levels": 2, "num_classes": 10}
    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    assert environment["seed"] == 0
    assert environment["num_threads"] == 1
    assert f"changed   {' '.join(TINY)}\n" in result.stdout
    assert "num_steps:" not in result.stdout
    composed = (folder / ".hydra" / "config.yaml").read_bytes()
    assert not any(b"canary-5137" in file.read_bytes() for file in folder.rglob("*") if file.is_file())

    refused = genlab("train", f"hydra.run.dir='{folder}'")
    assert (refused.code, "resume=" in refused.errors) == (2, True)
    refused = genlab("train", f"resume={folder}", "model.num_glimpses=3")
    refused.assert_error(2, "model.num_glimpses cannot change on resume")

    resumed = genlab("train", f"resume={folder}", "trainer.num_steps=3", "-v").checked()
    assert "  num_steps: 3\n" in resumed.output
    assert json.loads((folder / "summary.json").read_text(encoding="utf-8"))["step"] == 3
    assert yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["trainer"]["num_steps"] == 3
    assert (folder / ".hydra" / "config.yaml").read_bytes() == composed
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


@pytest.mark.slow
def test_a_users_own_model_from_a_config_dir(tmp_path: Path) -> None:
    (tmp_path / "my_models.py").write_text(
        "from genlab.models.draw.draw import DRAW\n\nclass Mine(DRAW):\n    '''A model of one's own.'''\n"
    )
    group = tmp_path / "my" / "model"
    group.mkdir(parents=True)
    (group / "mine.yaml").write_text(
        "# my own model\ndefaults:\n  - draw\n  - _self_\n_target_: my_models.Mine\nnum_units: 8\n"
    )
    arguments = ["--config-dir", "my", "model=mine", *TINY[:-3], "num_threads=1", "trainer.sample_interval=0"]
    listed = call("models", "--config-dir", "my", cwd=tmp_path)
    assert "my own model" in listed.stdout, listed.stderr
    result = call("train", *arguments, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert result.returncode == 0, result.stderr
    (folder,) = (tmp_path / "outputs").glob("digits-mine/0001*")
    assert "GENLAB_ALLOW=my_models " in resume_command(folder)
    command = json.loads((folder / "environment.json").read_text(encoding="utf-8"))["command"]
    assert command.endswith(" --config-dir my")
    # The line repeats the run, whose name is then taken.
    again = call(*shlex.split(command)[1:], f"hydra.run.dir={folder}", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert "GENLAB_ALLOW=my_models" in again.stderr


def test_a_reader_that_leaves_is_no_bug() -> None:
    process = subprocess.Popen([*GENLAB, "models"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 141


def test_a_job_can_be_sent_to_a_worker() -> None:
    job = pickle.loads(pickle.dumps(Job("train")))  # noqa: S301 - our own bytes
    assert job.command == "train"
    assert OmegaConf.create({"x": "${genlab.job_folder:1,[],[]}"}).x == "001"


@pytest.mark.slow
def test_the_wheel_carries_the_configuration(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    root = Path(__file__).resolve().parent.parent
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    result = subprocess.run(
        [*install, "--target", str(tmp_path / "site"), str(root)], capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "site" / "hydra_plugins" / "genlab_tpe" / "sweeper.py").is_file()
    program = "import sys, genlab.cli; print(genlab.__file__); sys.exit(genlab.cli.main(['train', '--cfg', 'job']))"
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert result.returncode == 0, result.stderr
    assert str(tmp_path / "site") in result.stdout
    assert "num_steps" in result.stdout
