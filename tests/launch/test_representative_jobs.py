"""The values of a sweep are checked before its first job: there are some, not too many, and in one order."""

from collections.abc import Iterator

import pytest

from genlab.config.compose import Composer, open_composer, parse_overrides
from genlab.errors import ConfigurationError
from genlab.launch.representative_jobs import in_fixed_order


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    with open_composer("train", config_dir=None) as opened:
        yield opened


EMPTY = [
    ("seed=range(3,3)", "got 0"),
    ("seed=range(3,5,-1)", "got 0"),
    ("seed=range(3,5,0)", "got 0"),
    ("seed=range(0.5,5,0)", "got 0"),
    ("seed=range(5.5,0.5)", "got 0"),
    ("seed=range(nan,5)", "got 0"),
    ("seed=shuffle(range(3,3))", "got 0"),
    ("seed=glob(*)", "got 0; it chooses options of a group"),
    ("model=glob(nothing*)", "got 0; options: "),
    ("model=glob(drwa)", "got 0; did you mean 'draw'?"),
    ("model=glob(*,exclude=*)", "got 0; options: "),
]


@pytest.mark.parametrize(("word", "message"), EMPTY)
def test_a_sweep_over_nothing_is_refused(composer: Composer, word: str, message: str) -> None:
    for is_search in (False, True):
        with pytest.raises(ConfigurationError) as refused:
            in_fixed_order(composer, ["trainer=smoke", word], is_search=is_search)
        assert str(refused.value).startswith(f"{word} must sweep over at least one value, {message}")


ENDLESS = [
    ["seed=range(1000000000)"],
    ["seed=range(200)", "trainer.num_steps=range(1,200)"],
    ["optimizer.default.lr=range(0.0,1.0,1e-30)"],
    ["optimizer.default.lr=range(0.0,inf)"],
]


@pytest.mark.parametrize("arguments", ENDLESS)
def test_more_jobs_than_anybody_runs_are_refused_and_can_be_searched(composer: Composer, arguments: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="must leave at most 10,000 jobs"):
        in_fixed_order(composer, arguments, is_search=False)
    assert in_fixed_order(composer, arguments, is_search=True) == arguments


def test_of_two_values_for_a_key_the_last_counts(composer: Composer) -> None:
    arguments = ["seed=range(9000)", "seed=0,1", "model=draw,gan", "optimizer.default.lr=interval(0,1)"]
    assert in_fixed_order(composer, arguments, is_search=False) == arguments


def test_a_shuffled_sweep_has_one_order(composer: Composer) -> None:
    """Job n is known by its number on resumption, so no launcher may draw another order."""
    (word,) = in_fixed_order(composer, ["+seed=shuffle(range(40))"], is_search=False)
    (override,) = parse_overrides([word])
    values = list(override.sweep_iterator())
    assert override.get_key_element() == "+seed"
    assert sorted(values) == list(range(40)) != values
    assert in_fixed_order(composer, [word], is_search=False) == [word]
