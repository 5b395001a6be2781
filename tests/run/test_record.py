"""An untrusted run folder is data: read within limits, checked, and rebuilt without its data set."""

import errno
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.composed import values_of
from genlab.config.build import build
from genlab.config.location import config_directory
from genlab.config.schema import RunConfiguration
from genlab.data.dataset import Dataset
from genlab.errors import ConfigurationError, DataError, StorageError
from genlab.run import record
from genlab.run.loading import build_dataset
from genlab.run.names import runs_under
from genlab.run.record import build_model, load_run, with_absolute_paths
from tests.conftest import Genlab
from tests.data.sources import dataset_node
from tests.run.conftest import SPEC, edit
from tests.thinning import thinned


def test_what_is_saved_is_what_is_loaded_and_it_builds_the_model(
    run_folder: Path, configuration: RunConfiguration
) -> None:
    run = load_run(run_folder)
    assert (run.configuration, run.spec) == (configuration, SPEC)
    assert build_model(run.configuration, run.spec).sample(2).shape == (2, 1, 8, 8)
    assert list(runs_under(Path("outputs"))) == [run_folder]


def test_a_configuration_that_may_not_be_read_is_a_question_of_permissions(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(record, "read_plain", refused)
    with pytest.raises(StorageError, match=r"config\.yaml cannot be read: Permission denied$"):
        load_run(run_folder)


def test_a_run_from_before_the_format_version_is_read(run_folder: Path, configuration: RunConfiguration) -> None:
    edit(run_folder, lambda values: values.pop("format_version"))
    assert load_run(run_folder).configuration == configuration


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values["model"].update(_target_="os.system"), "must name something of genlab"),
        (lambda values: values["model"].update(_target_="genlab.data.digits.digits"), "must name a Model"),
        (lambda values: values["model"].update(num_units="${oc.env:HOME}"), "num_units must be a whole number"),
        (lambda values: values["model"].update(num_unit=3), "did you mean 'num_units'"),
        (lambda values: values.update(hydra={}), "hydra is not a key"),
        (lambda values: values.pop("spec"), "holds no spec"),
        (lambda values: values.update(format_version=2), "has format version 2, and this version of genlab reads"),
        (lambda values: values["spec"].update(height="8"), "spec.height must be a whole number"),
        (lambda values: values["spec"].update(height=0), "spec.height must be at least 1"),
        (lambda values: values["spec"].update(num_levels=1), "spec.num_levels must be at least 2"),
        (lambda values: values["trainer"].pop("num_steps"), "trainer.num_steps is missing"),
    ],
)
def test_a_changed_configuration_is_refused(
    run_folder: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    edit(run_folder, change)
    with pytest.raises(ConfigurationError, match=message):
        load_run(run_folder)


@pytest.mark.parametrize(
    "content",
    [
        b"seed: !!python/object/apply:os.system ['touch MARKER']",
        b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
        b"\xff\xfe\x00",
        b"[1, 2]",
        b"a: {",
        b"",
        b"a: " + b"[" * 40_000 + b"]" * 40_000,
        b"? " * 40_000,
    ],
    ids=["tag", "aliases", "encoding", "list", "syntax", "empty", "deep brackets", "deep keys"],
)
def test_a_damaged_or_hostile_file_is_refused(run_folder: Path, content: bytes) -> None:
    (run_folder / "config.yaml").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"config\.yaml"):
        load_run(run_folder)
    assert not Path("MARKER").exists()


def dataset_of(choice: str, **values: Any) -> dict[str, Any]:
    node = values_of(f"dataset={choice}")["dataset"]
    return dict(node | values)


def test_a_run_names_no_folder_to_write_decoded_images_to(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "pictures").mkdir()
    for index in range(20):
        Image.new("L", (8, 8), 10 * index).save(tmp_path / "pictures" / f"{index}.png")
    outside = tmp_path / "outside"
    node = dataset_of("folder", root=str(tmp_path / "pictures"), size=8, channels=1, cache=str(outside), num_workers=1)
    spec = {"channels": 1, "height": 8, "width": 8, "num_levels": 256, "num_classes": 0}
    edit(run_folder, lambda values: values.update(dataset=node, spec=spec))
    read = build_dataset(load_run(run_folder))
    assert not outside.exists()
    assert (tmp_path / "home" / ".cache" / "genlab" / "folders").is_dir()
    assert build(node, "dataset", expects=Dataset).fingerprint == read.fingerprint
    assert outside.exists(), "the user's own configuration does write there"


@pytest.mark.parametrize("choice", thinned(["mnist", "binarized_mnist", "cifar10", "svhn", "stacked_mnist"], 5))
def test_a_run_names_no_folder_to_download_to(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: str
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    outside = tmp_path / "outside"
    outside.mkdir()
    edit(run_folder, lambda values: values.update(dataset=dataset_of(choice, root=str(outside))))
    run = load_run(run_folder)
    with pytest.raises(DataError, match=r"dataset\.download is false"):
        build_dataset(run)
    assert not list(outside.iterdir())
    edit(run_folder, lambda values: values.update(dataset=dataset_of(choice)))
    assert load_run(run_folder).configuration.dataset["download"]  # to the user's own place


def link_out(folder: Path, elsewhere: Path) -> None:
    (folder / "samples").symlink_to(elsewhere)


def pipe(folder: Path, elsewhere: Path) -> None:
    os.mkfifo(folder / "metrics.jsonl")


def circle(folder: Path, elsewhere: Path) -> None:
    (folder / "metrics.jsonl").symlink_to("metrics.jsonl")


def configuration_of_another(folder: Path, elsewhere: Path) -> None:
    (folder / "config.yaml").rename(elsewhere / "config.yaml")
    (folder / "config.yaml").symlink_to(elsewhere / "config.yaml")


@pytest.mark.parametrize("trap", [link_out, pipe, circle, configuration_of_another])
def test_a_folder_that_leads_out_of_itself_is_refused(
    run_folder: Path, tmp_path: Path, trap: Callable[[Path, Path], None]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    trap(run_folder, tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match=r"is refused: .* (leads out of it|is not an ordinary file)"):
        load_run(run_folder)


def test_a_link_to_a_run_and_links_inside_it_are_followed(run_folder: Path, tmp_path: Path) -> None:
    (run_folder / "newest.yaml").symlink_to("config.yaml")
    (tmp_path / "link").symlink_to(run_folder.absolute())
    assert load_run(tmp_path / "link").spec == SPEC


def test_a_mistyped_run_is_answered_with_the_nearest(run_folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"did you mean '{run_folder}'"):
        load_run(str(run_folder).replace("digits-draw", "digits-drw"))
    with pytest.raises(ConfigurationError, match=f"the newest runs: {run_folder}"):
        load_run("nothing-of-the-kind")
    for nothing in ("", ".", Path()):
        with pytest.raises(ConfigurationError, match="there is no run in this folder"):
            load_run(nothing)
    (run_folder / "config.yaml").rename(run_folder / "gone.yaml")
    (run_folder / ".hydra").mkdir()
    with pytest.raises(ConfigurationError, match="ended before training"):
        load_run(run_folder)


def own(*, place: Path, others: Sequence[Path], name: str) -> Dataset:
    raise AssertionError("its signature alone is read")


def with_dataset(configuration: RunConfiguration, node: dict[str, Any]) -> dict[str, Any]:
    return dict(with_absolute_paths(replace(configuration, dataset=node)).dataset)


def test_paths_are_kept_absolute(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configuration: RunConfiguration
) -> None:
    checked = set()
    for path in sorted((config_directory() / "dataset").glob("*.yaml")):
        node = dataset_node(path)
        if keys := [key for key in ("root", "cache") if key in node]:
            kept = with_dataset(configuration, node | dict.fromkeys(keys, "some/folder"))
            assert {key: kept[key] for key in keys} == dict.fromkeys(keys, str(tmp_path / "some" / "folder")), path
            assert with_dataset(configuration, node) == node, "null stays null"
            checked.add(path.stem)
    assert checked >= {"folder", "mnist", "binarized_mnist", "cifar10", "svhn", "stacked_mnist", "cluttered_mnist"}

    mine = {"_target_": f"{own.__module__}.own", "place": "a", "others": ["../b", "/c"], "name": "a"}
    beside = [str(tmp_path.parent / "b"), "/c"]
    assert with_dataset(configuration, mine) == mine | {"place": str(tmp_path / "a"), "others": beside}

    for watched, kept in (("auto", "auto"), (None, None), (str(run_folder), str(tmp_path / run_folder))):
        trainer = configuration.trainer | {"watch_interval": 1, "watch_classifier": watched}
        assert with_absolute_paths(replace(configuration, trainer=trainer)).trainer["watch_classifier"] == kept
    assert configuration.quality is not None
    for weights, kept in (("auto", "auto"), (None, None), ("w.pth", str(tmp_path / "w.pth"))):
        changed = with_absolute_paths(
            replace(configuration, quality={**configuration.quality, "inception_weights": weights})
        )
        assert changed.quality is not None
        assert changed.quality["inception_weights"] == kept


@pytest.mark.parametrize("command", ["models", "datasets", "doctor"])
def test_commands_that_only_tell_leave_no_file(genlab: Genlab, tmp_path: Path, command: str) -> None:
    outcome = genlab(command).checked()
    assert outcome.output
    assert list(tmp_path.iterdir()) == []


def test_an_untrusted_run_has_no_logger_of_its_own(run_folder: Path) -> None:
    edit(run_folder, lambda values: values.update(logger={"own": {"_target_": "os.system"}}))
    with pytest.raises(ConfigurationError, match="in a run folder must name something of"):
        _ = load_run(run_folder).configuration.loggers
