"""Run folder names are short, safe for shells and for Hydra's own grammar, and never two alike."""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genlab.composition.composer import parse_overrides
from genlab.composition.naming import MAX_SLUG_LENGTH, register_resolvers, slug


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], ""),
        (["hydra.run.dir=x", "hydra/launcher=local", "sweep.measure=a/b"], ""),
        (["model=draw", "model.num_units=16"], "model-draw_num_units-16"),
        (["trainer.num_steps=10", "++optimizer.default.lr=4e-4"], "num_steps-10_lr-4e-4"),
        (["dataset.root='/a b/ünï/c d'"], "root-c-d"),
        (["resume=outputs/x/y"], "resume-y"),
        (["~experiment"], "experiment"),
    ],
)
def test_a_slug_keeps_the_last_parts(overrides: list[str], expected: str) -> None:
    assert slug(overrides) == expected


@given(st.lists(st.text(max_size=400), max_size=5))
def test_any_overrides_give_a_short_name_that_hydra_reads_unquoted(overrides: list[str]) -> None:
    name = slug(overrides)
    assert len(name) <= MAX_SLUG_LENGTH
    assert all(character.isascii() and (character.isalnum() or character in "._-") for character in name)
    assert parse_overrides([f"resume=outputs/digits_draw/x_{name}"])[0].value() == f"outputs/digits_draw/x_{name}"


def test_long_overrides_that_differ_at_the_end_differ_in_their_hash() -> None:
    first, second = ([f"model.a={'x' * 300}{end}"] for end in "ab")
    assert slug(first) != slug(second)
    assert slug(first)[:60] == slug(second)[:60]


def test_the_resolvers_name_folders_and_keep_the_environment_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENLAB_DATA", "here")
    monkeypatch.setenv("SECRET", "canary")
    register_resolvers(datetime(2026, 1, 2, 3, 4, 5, 678))
    node = OmegaConf.create(
        {
            "resume": None,
            "overrides": ["model=draw", "seed=1"],
            "new": "${genlab.run_folder:${resume},digits,draw,${overrides}}",
            "old": "${genlab.run_folder:outputs/x,digits,draw,${overrides}}",
            "job": "${genlab.job_folder:3,${overrides}}",
            "data": "${oc.env:GENLAB_DATA}",
            "fallback": "${oc.env:GENLAB_NOT_SET,x}",
            "secret": "${oc.env:SECRET}",
        }
    )
    assert node.new == "outputs/digits_draw/2026-01-02_03-04-05-000678_seed-1"
    assert (node.old, node.job, node.data, node.fallback) == ("outputs/x", "3_model-draw_seed-1", "here", "x")
    with pytest.raises(OmegaConfBaseException, match="GENLAB_"):
        _ = node.secret


def test_nobody_can_prepare_the_folder_whose_pickles_a_launcher_reads() -> None:
    folders = set()
    for _ in range(2):
        register_resolvers(datetime(2026, 1, 1))
        node = OmegaConf.create({"a": "${genlab.nonce:}", "b": "${genlab.nonce:}"})
        assert node.a == node.b
        folders.add(node.a)
    assert len(folders) == 2
    assert all(len(folder) == 16 for folder in folders)
