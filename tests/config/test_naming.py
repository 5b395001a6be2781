"""Names of run folders are short, and safe for shells and for Hydra's own grammar."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from genlab.config.compose import parse_overrides
from genlab.config.naming import MAX_SLUG_LENGTH, register_resolvers, require_name, slug
from genlab.errors import ConfigurationError


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], ""),
        (["hydra.run.dir=x", "hydra/launcher=local", "sweep.measure=a/b"], ""),
        (["model=draw", "model.num_units=16"], "model-draw-num_units-16"),
        (["trainer.num_steps=10", "++optimizer.default.lr=4e-4"], "num_steps-10-lr-4e-4"),
        (["model.write_bias.log_gamma=-2.5", "optimizer.default.lr=1e+30"], "log_gamma--2.5-lr-1e30"),
        (["dataset.root='/a b/ünï/c d'"], "root-c-d"),
        (["resume=outputs/x/y"], "resume-y"),
        (["~experiment"], "experiment"),
        (["seed=0", "experiment=packed_dcgan_stacked_mnist_quick"], "seed-0-packed_dcgan_stacked_mnist_quick"),
        (["optimizer.default.lr=1e-3", f"model.a={'x' * 50}", "seed=1"], "lr-1e-3"),
        ([f"model.a={'x' * 50}"], "a-" + "x" * 38),
    ],
)
def test_a_slug_keeps_the_last_parts(overrides: list[str], expected: str) -> None:
    assert slug(overrides) == expected


@given(st.lists(st.text(max_size=100), max_size=4))
def test_any_overrides_give_a_short_name_that_hydra_reads_unquoted(overrides: list[str]) -> None:
    name = slug(overrides)
    assert len(name) <= MAX_SLUG_LENGTH
    assert all(character.isascii() and (character.isalnum() or character in "._-") for character in name)
    folder = f"outputs/digits-draw/0007-{name}"
    assert parse_overrides([f"resume={folder}"])[0].value() == folder


def test_the_resolvers_name_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_DATA", "here")
    register_resolvers()
    node = OmegaConf.create(
        {
            "resume": None,
            "overrides": ["model=draw", "seed=1"],
            "swept": ["model=draw", "optimizer.default.lr=1e-3,1e-4", "seed=range(3)"],
            "new": "${genlab.run_folder:${resume},null,digits,draw,${overrides}}",
            "named": "${genlab.run_folder:${resume},mine,digits,draw,${overrides}}",
            "old": "${genlab.run_folder:outputs/x,null,digits,draw,${overrides}}",
            "sweep": "${genlab.sweep_folder:null,${swept}}",
            "job": "${genlab.job_folder:3,${overrides},[model]}",
            "data": "${oc.env:MY_DATA}",
        }
    )
    assert node.new == "outputs/digits-draw/NNNN-seed-1"
    assert node.named == "outputs/digits-draw/mine"
    assert node.sweep == "outputs/sweeps/NNNN-lr-1e-3-1e-4-seed-range-3-model-draw"
    assert (node.old, node.job, node.data) == ("outputs/x", "003-seed-1", "here")


def test_nobody_can_prepare_the_folder_whose_pickles_a_launcher_reads() -> None:
    folders = set()
    for _ in range(2):
        register_resolvers()
        node = OmegaConf.create({"a": "${genlab.nonce:}", "b": "${genlab.nonce:}"})
        assert node.a == node.b
        folders.add(node.a)
    assert len(folders) == 2
    assert all(len(folder) == 16 for folder in folders)


@pytest.mark.parametrize("name", ["a/b", "..", "7", "-m", "", "a b", 7, "ünï"])
def test_a_name_of_ones_own_is_that_of_one_folder(name: object) -> None:
    require_name("mine-2.b_c")
    with pytest.raises(ConfigurationError, match="name must be an ASCII letter followed by"):
        require_name(name)
