"""Marks of values that are older than a change of numerics, and the list of these changes."""

import pytest

from genlab.comparison import numerics
from genlab.comparison.numerics import CHANGES, Change, marked
from genlab.comparison.published import read_experiments
from genlab.comparison.results import TABLE_MARKS, results_in
from genlab.config.location import config_directory
from genlab.run.environment import ancestors

HISTORY = ["1111111aaa", "2222222bbb", "3333333ccc"]
TABLE = f"""{TABLE_MARKS[0]}
| `a_quick` | `nats` | none |  | **1.0** ± 2 |  | of |  | 2 min | 1111111+, 0 | x |
|  | `error` | none |  | **3.0** |  | of |  |  |  |  |
| `a_quick` | `nats` | none |  | **1.5**† |  | of |  | 2 min | 3333333, 1 | x |
| `b` | `nats` | none |  | interrupted |  |  |  | 9 days | 1111111, 0 | x |
| `c` | `nats` | none |  | **4.0**† |  | of |  | 1 s | unknown, 0 | x |
| `d` | `nats` | none |  | **5.0** |  | of |  | 1 s | 1111111, 0 | x |
{TABLE_MARKS[1]}"""


def test_a_value_is_marked_if_a_later_change_concerns_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics, "CHANGES", (Change("it", "2222222", ("a_*", "b", "c"), ("nats",)),))

    def before(commit: str) -> list[str]:
        return next((HISTORY[: index + 1] for index, full in enumerate(HISTORY) if full.startswith(commit)), [])

    results = [rows for own in results_in(TABLE).values() for rows in own]
    found = marked(results, before)
    values = [row.ours for rows in found for row in rows]
    assert values == ["**1.0** ± 2†", "**3.0**", "**1.5**", "interrupted", "**4.0**†", "**5.0**"]
    assert marked(found, before) == found


def test_every_line_under_numerics_says_which_values_it_moves() -> None:
    log = (config_directory().parent / "CHANGELOG.md").read_text(encoding="utf-8")
    lines = log.partition("### Numerics")[2].partition("\n#")[0].splitlines()
    lines = [line.removeprefix("- ") for line in lines if line.startswith("- ")]
    assert len(lines) == len(CHANGES) > 20
    for line, change in zip(lines, CHANGES, strict=True):
        assert line.startswith(change.line)
    names = [experiment.name for experiment in read_experiments([config_directory()])]
    for change in CHANGES:
        assert (
            not change.experiments
            or any(change.concerns(name, "nll_upper_bound_nats") for name in names)
            or any(
                change.concerns(name, measure)
                for name in names
                for measure in ("inception_style_score_inception", "modes_covered_classifier", "score_real")
            )
        )


_FIRST_CHANGE = "29cb17a"


def test_the_changes_are_commits_of_the_history() -> None:
    known = {commit[:7] for commit in ancestors("HEAD")}
    if _FIRST_CHANGE not in known:
        pytest.skip("not a clone with its history")
    assert {change.commit for change in CHANGES} <= known
