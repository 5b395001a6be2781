"""Runs by name: a unique beginning, the last one, a list, a removal."""

import json
import os
from pathlib import Path

import pytest

from genlab.cli import COMMANDS
from genlab.commands.board import BoardSettings
from genlab.commands.runs import RunsSettings, run, table
from genlab.comparison.runs import read_runs
from genlab.errors import ConfigurationError, FolderInUseError
from genlab.launch.arguments import parse_command_line
from genlab.launch.contract import JobContext
from genlab.launch.syntax import expanded
from genlab.run.folder import locked
from genlab.run.names import find_run

NAMES = ("mnist-dcgan/0001-lr-1e-3", "mnist-dcgan/0012-seed-2", "digits-draw/0001", "sweeps/0001-seed/000-seed-1")
CONTEXT = JobContext(
    command="genlab runs",
    overrides=(),
    choices={},
    run_folder=Path(),
    is_restarted=False,
    config_folders=(),
)


@pytest.fixture(autouse=True)
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for age, name in enumerate(NAMES):
        config = tmp_path / "outputs" / name / "config.yaml"
        config.parent.mkdir(parents=True)
        config.write_text("format_version: 1\nseed: 1\n")
        os.utime(config, (1000 - age, 1000 - age))
    return tmp_path / "outputs"


def test_the_list_is_made_beside_a_training_that_renames_its_files(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (outputs / NAMES[0] / "model.tmp").write_text("renamed while the sizes are summed")
    is_file = Path.is_file

    def renamed_afterwards(path: Path, **options: bool) -> bool:
        found = is_file(path, **options)
        if path.name == "model.tmp":
            path.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(Path, "is_file", renamed_afterwards)
    assert "mnist-dcgan/0001-lr-1e-3" in table(read_runs([outputs]), width=0)


@pytest.mark.parametrize("flag", ["--yes", "--yes=true"])
def test_a_flag_without_a_value_may_be_given_one(flag: str) -> None:
    _, syntax = COMMANDS["runs"]
    assert "sure=true" in expanded(["rm", "digits", flag], syntax)


@pytest.mark.parametrize(
    ("typed", "place"),
    [
        ("last", 0),
        ("last:digits-draw", 2),
        ("last:outputs/digits-draw", 2),
        ("mnist-dcgan/0012", 1),
        ("outputs/mnist-dcgan/0012", 1),
        ("0012", 1),
        ("digits", 2),
        ("000-seed-1", 3),
        ("outputs/digits-draw/0001", 2),
        ("digits-draw/", 2),
        ("digits-draw/0001/", 2),
        ("mnist-dcgan/0012-seed-2/", 1),
    ],
)
def test_a_run_is_found_by_the_beginning_of_its_name(typed: str, place: int) -> None:
    expected = Path("outputs") / NAMES[place]
    assert find_run(typed) == expected
    for key in ("run", "resume"):
        (override,) = parse_command_line([f"{key}={typed}"], positional=None).overrides
        assert override == f"{key}={expected}", "without quotes, since it is recorded to be read"


def test_a_slash_tells_a_model_from_those_whose_names_begin_with_its_own(outputs: Path) -> None:
    config = outputs / "digits-draw_classifier" / "0001" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("seed: 1\n")
    assert find_run("digits-draw/") == Path("outputs/digits-draw/0001")
    with pytest.raises(ConfigurationError, match="digits-draw is the beginning of 2 runs"):
        find_run("digits-draw")


def test_an_export_is_found_by_the_name_in_the_list_and_is_never_the_last(outputs: Path) -> None:
    export = outputs / "given"
    export.mkdir()
    (export / "model.safetensors").touch()
    (export / "config.yaml").write_text("seed: 1\n")
    assert find_run("given") == Path("outputs/given")
    assert find_run("last") == Path("outputs") / NAMES[0]


def test_a_board_takes_the_name_of_a_run(outputs: Path) -> None:
    for typed, place in (
        ("outputs", "outputs"),
        ("digits", "outputs/digits-draw/0001"),
        ("mnist-dcgan", "outputs/mnist-dcgan"),
        ("sweeps/0001-seed", "outputs/sweeps/0001-seed"),
        ("last", f"outputs/{NAMES[0]}"),
    ):
        assert BoardSettings(folder=typed, port=None).place == Path(place)
    with pytest.raises(ValueError, match="folder must be an existing folder of runs, got digts"):
        BoardSettings(folder="digts", port=None)


def test_a_folder_of_runs_is_read_by_the_name_in_the_list(outputs: Path) -> None:
    found = read_runs([Path("mnist-dcgan")])
    assert [run.folder for run in found] == [Path("outputs") / name for name in NAMES[:2]]
    with pytest.raises(ConfigurationError, match="mnist-dcgan/00 is the beginning of 2 runs"):
        read_runs([Path("mnist-dcgan/00")])
    (outputs.parent / "elsewhere").mkdir()
    with pytest.raises(ConfigurationError, match=r"there is no folder \.\./elsewhere"):
        read_runs([Path("../elsewhere")])


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("mnist-dcgan/00", r"mnist-dcgan/00 is the beginning of 2 runs: outputs/mnist-dcgan/0001-lr-1e-3, outputs/"),
        ("last:mnist-wgan", "last must name a run, but there is no run below outputs/mnist-wgan/"),
        ("last:digits-drw", r"no run below outputs/digits-drw/; did you mean 'last:digits-draw'\?"),
        ("lst", r"there is no run in lst; did you mean 'last'\?"),
        ("digits-drw/0001", "did you mean 'outputs/digits-draw/0001'"),
        ("outputs/digits-draw/0002", "did you mean 'outputs/digits-draw/0001'"),
        (
            "outputs/digits-draw",
            "is a folder of runs; name one of them, the newest first: outputs/digits-draw/0001",
        ),
        ("digits_drw", "did you mean 'digits_draw'"),
    ],
)
def test_a_name_of_none_or_of_several_is_refused(typed: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        find_run(typed)


def test_the_list_fits_the_terminal_with_whole_names(outputs: Path) -> None:
    measure = {"direction": "lower", "unit": "1", "kind": "estimate", "quantity": None}
    tag = "quality/frechet_distance_random_network"
    summary = {"selected_by": tag, "best": {tag: 12.5, "step": 7.0}, "measures": {tag: measure}, "step": 9}
    (outputs / NAMES[0] / "summary.json").write_text(json.dumps(summary))
    (outputs / NAMES[0] / "config.yaml").write_text("seed: 1\ntrainer: {}\ndataset: {}\n")
    runs = read_runs([Path("outputs")])
    assert "frechet_distance_random_network 12.50 (step 7)  " in table(runs)
    assert all(f"{name} " in table(runs) for name in NAMES)
    lines = table(runs, width=80).splitlines()
    assert max(map(len, lines)) <= 80
    assert {*NAMES} < {*lines}
    assert " 12.50 (step 7)" in table(runs, width=70)
    assert max(map(len, table(runs, width=70).splitlines())) <= 70
    assert max(map(len, table(runs, width=60).splitlines())) <= 60  # without the step
    assert find_run(table(read_runs([Path("outputs/digits-draw")])).splitlines()[-1].split()[0]) == runs[0].folder


def test_the_list_says_of_which_step_a_measure_is(outputs: Path) -> None:
    folder = outputs / NAMES[0]
    entry = {"name": "nll_nats", "value": 12.5, "direction": "lower", "unit": "nats/image", "kind": "exact"}
    (folder / "config.yaml").write_text("seed: 1\n")
    for step, expected in ((4, "nll_nats 12.50  "), (8, "nll_nats 12.50 (step 4)  ")):
        (folder / "summary.json").write_text(json.dumps({"step": step, "status": "interrupted"}))
        (folder / "evaluation.json").write_text(json.dumps({"step": 4, "measures": [entry]}))
        assert expected in table(read_runs([folder]))


def test_a_removal_asks_first_and_never_takes_a_run_in_use(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = RunsSettings(runs=("rm", "digits-draw/0001"), sure=False)
    with pytest.raises(ConfigurationError, match="add --yes"):
        run(settings, CONTEXT)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: "n")
    run(settings, CONTEXT)
    folder = outputs / "digits-draw" / "0001"
    with locked(folder, is_resumed=True), pytest.raises(FolderInUseError):
        run(RunsSettings(runs=("rm", "digits-draw/0001"), sure=True), CONTEXT)
    assert folder.exists()
    run(RunsSettings(runs=("rm", "digits-draw/0001"), sure=True), CONTEXT)
    assert not folder.parent.exists()
    assert len(read_runs([outputs])) == len(NAMES) - 1


def test_a_removal_takes_no_folder_that_is_none_of_a_run(outputs: Path) -> None:
    foreign = outputs / "foreign" / "config.yaml"
    started = outputs / "started" / ".hydra" / "hydra.yaml"
    for path in (foreign, started, outputs / "started" / "notes.txt"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a: 1\n")
    for name, told in (("foreign", r"whose config\.yaml has no format_version"), ("started", "ended before training")):
        with pytest.raises(ConfigurationError, match=told):
            run(RunsSettings(runs=("rm", f"outputs/{name}"), sure=True), CONTEXT)
    with pytest.raises(ConfigurationError, match="a pretrained model"):
        run(RunsSettings(runs=("rm", "digits_draw"), sure=True), CONTEXT)
    assert foreign.exists()
    assert started.exists()


@pytest.mark.parametrize("name", ["outputs/mine/0001-x", "mine/0001-x"])
def test_a_removal_takes_a_failed_start_by_the_name_in_the_list(outputs: Path, name: str) -> None:
    folder = outputs / "mine" / "0001-x"
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "hydra.yaml").write_text("hydra: {}\n")
    (folder / "train.log").touch()
    assert "mine/0001-x " in table(read_runs([outputs]))
    run(RunsSettings(runs=("rm", name), sure=True), CONTEXT)
    assert not folder.parent.exists()
