"""``~`` in paths: its expansion wherever a path can be given, and the error without a home folder."""

from pathlib import Path

import pytest

import genlab as package
from genlab.data.location import existing_root, resolve_root
from genlab.errors import ConfigurationError, DataError
from genlab.launch.arguments import parse_command_line
from genlab.paths import expanded, expanded_inside, user_cache


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("GENLAB_DATA", raising=False)
    return folder


def test_only_a_home_folder_at_the_head_is_expanded(home):
    assert expanded("~/a~b/~", "key") == f"{home}/a~b/~"
    assert expanded("~", "key") == str(home)
    assert expanded("~root/x", "key") == str(Path("~root/x").expanduser())
    for other in ("a/~", "./~/x", "", "outputs"):
        assert expanded(other, "key") == other
    nested = {"a": ["~/b", 3, None], "c": {"d": "~"}}
    assert expanded_inside(nested, "key") == {"a": [f"{home}/b", 3, None], "c": {"d": str(home)}}


def test_a_home_folder_that_is_none_is_reported_with_its_key(monkeypatch):
    with pytest.raises(
        ConfigurationError, match=r"dataset\.root must name the home of an existing user, got ~no_body/x"
    ):
        expanded_inside({"root": "~no_body/x"}, "dataset")
    monkeypatch.setenv("HOME", "")  # which Python takes for the root of the file system
    with pytest.raises(ConfigurationError, match="set HOME"):
        expanded("~/x", "key")
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("GENLAB_DATA", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda number: (_ for _ in ()).throw(KeyError(number)))  # as in a container
    for call in (lambda: expanded("~/x", "key"), user_cache, lambda: resolve_root(None)):
        with pytest.raises(ConfigurationError, match="set HOME"):
            call()


def test_the_cache_lies_where_the_desktop_standard_says(home, monkeypatch):
    assert user_cache() == home / ".cache" / "genlab"
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert user_cache() == Path("/elsewhere/genlab")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # is ignored, as the standard says
    assert user_cache() == home / ".cache" / "genlab"


@pytest.mark.parametrize("by_variable", [False, True])
def test_a_misspelt_root_is_reported_and_not_made(home, monkeypatch, by_variable):
    (home / "pictures").mkdir()
    if by_variable:
        monkeypatch.setenv("GENLAB_DATA", "~/pictures")
    assert existing_root(None if by_variable else "~/pictures") == home / "pictures"
    if by_variable:
        monkeypatch.setenv("GENLAB_DATA", "~/picturse/mnist")
    key = "GENLAB_DATA" if by_variable else r"dataset\.root"
    with pytest.raises(
        DataError, match=rf"{key} must be an existing folder, .*did you mean {home}/pictures\?; .*mkdir"
    ):
        existing_root(None if by_variable else "~/picturse/mnist")
    assert [path.name for path in home.iterdir()] == ["pictures"]


@pytest.mark.parametrize(
    ("word", "read"),
    [
        ("dataset.root=~/x", "dataset.root='{}/x'"),
        ("+own.key=~", "+own.key={}"),
        ("dataset.root=~/a,~/b c", "dataset.root='{0}/a','{0}/b c'"),
        ("dataset.root=choice(~/a, ./~/b)", "dataset.root=choice('{}/a', ./~/b)"),
        ("runs=[~/a,b]", "runs=['{}/a',b]"),
        ("~/run", "run='{}/run'"),
        ("run=~/odd, name", "run='{}/odd, name'"),
        ("~trainer.num_steps", "~trainer.num_steps"),
        ("x='~/left to the checks'", "x='~/left to the checks'"),
    ],
)
def test_a_home_folder_on_the_line_is_read_as_hydra_could_not(home, word, read):
    (home / "odd, name").mkdir()
    positional = "run" if "=" not in word and word.startswith("~/") else None
    assert parse_command_line([word], positional=positional).overrides == [read.format(home)]
    assert parse_command_line(["--config-dir=~/own"], positional=None).flags == [f"--config-dir={home}/own"]


def test_a_node_of_a_phase_needs_no_plus():
    words = ["optimizer.discriminator={lr:1e-3}", "optimizer.generator.lr=1e-3", "optimizer.default.lr=1e-3"]
    found = parse_command_line(words, positional=None).overrides
    assert found == [f"++{words[0]}", f"++{words[1]}", words[2]]


@pytest.mark.parametrize("key", ["images", "samples", "reference", "against", "fill"])
def test_a_path_that_exists_needs_no_quotes(key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p (1)").mkdir()
    assert parse_command_line([f"{key}=p (1)"], positional=None).overrides == [f"{key}='p (1)'"]


@pytest.mark.parametrize("name", ["5", "0007", "2024_05", "1e3", "-1.5"])
def test_a_path_that_is_a_number_stays_a_text(name):
    for word in (f"run={name}", name, f"out={name}", f"dataset.root={name}", f"device={name}"):
        key = word.partition("=")[0] if "=" in word else "run"
        assert parse_command_line([word], positional="run").overrides == [f"{key}='{name}'"]
    for word in (f"label={name}", f"num_samples={name}", "out=null", "samples=true", "run=."):
        assert parse_command_line([word], positional="run").overrides == [word]


def test_a_home_folder_is_taken_in_quotes_and_in_a_file(genlab, home, monkeypatch):
    """Every key of a training run, and the folders that Hydra makes."""
    own = home / "own" / "experiment" / "mine.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(
        "# @package _global_\ndefaults:\n  - override /dataset: folder\n"
        "dataset: {root: ~/pictures}\ntrainer: {watch_classifier: ~/watch}\nhydra: {run: {dir: ~/mine}}\n"
    )
    runs = []
    monkeypatch.setattr("genlab.train.run", lambda *given: runs.append(given))
    line = ("--config-dir=~/own", "experiment=mine", "dataset.cache='~/decoded'")
    assert genlab("train", "model=gan", *line).code == 0
    configuration, context = runs.pop()
    assert configuration.dataset["root"] == str(home / "pictures")
    assert configuration.dataset["cache"] == str(home / "decoded")
    assert configuration.settings.watch_classifier == str(home / "watch")
    assert context.run_folder == home / "mine"
    assert (home / "mine" / ".hydra").is_dir()
    assert not list(Path.cwd().glob("*~*"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "resume={}"),
        ("train", "-m", "sweep.resume={}"),
        ("sample", "{}"),
        ("evaluate", "{}"),
        ("export", "run={}"),
        ("compare", "{}"),
        ("report", "{}"),
        ("board", "{}"),
        ("datasets", "folder", "dataset.root={}"),
        ("datasets", "mnist", "dataset.root={}"),
    ],
)
def test_every_command_takes_a_home_folder(genlab, home, arguments):
    outcome = genlab(*(word.format("~/nothing") for word in arguments))
    assert (outcome.code in (2, 3), outcome.errors.count("\n")) == (True, 1)
    assert f"{home}/nothing" in outcome.errors


def test_a_run_in_a_home_folder_is_found_from_python(home):
    with pytest.raises(ConfigurationError, match=f"there is no run in {home}/nothing"):
        package.load("~/nothing")


def test_a_sweep_has_paths_that_mean_the_same_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "a b"):
        (tmp_path / name).mkdir()
    arguments = [
        "dataset.root=a",
        "dataset.root=a,b",
        "dataset.root=a b",
        "dataset.cache=none",
        "trainer.watch_classifier=auto",
    ]
    swept = parse_command_line(["-m", *arguments], positional=None).overrides
    by_key = parse_command_line(["hydra.mode=MULTIRUN", *arguments], positional=None).overrides
    assert by_key == ["hydra.mode=MULTIRUN", *swept]
    assert swept == [f"dataset.root={tmp_path}/a", f"dataset.root={tmp_path}/a,{tmp_path}/b", *swept[2:]]
    assert swept[2] == f"dataset.root='{tmp_path}/a b'"
    assert swept[3:] == arguments[3:]
    assert parse_command_line(arguments[:2], positional=None).overrides == arguments[:2], "a run makes its own absolute"
