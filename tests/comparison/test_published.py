"""Headers of experiments."""

import re
from pathlib import Path

import pytest

from genlab.comparison.published import Experiment, read_experiment, read_experiments
from genlab.config.location import config_directory
from genlab.errors import ConfigurationError
from tests.comparison.conftest import HEADER, written


def test_every_experiment_has_a_complete_header() -> None:
    experiments = read_experiments([config_directory()])
    assert len(experiments) == len(list((config_directory() / "experiment").glob("*.yaml"))) >= 16
    explained = (Path(__file__).parents[2] / "docs" / "measures.md").read_text()
    for experiment in experiments:
        assert f"experiment={experiment.name}" in experiment.command
        assert experiment.title
        assert experiment.cost
        assert experiment.ours
        assert experiment.differs
        assert experiment.result.startswith(("DRAW: ", "PixelCNN: ", "GANs: ")), experiment.name
        assert bool(experiment.published) != experiment.remark.startswith("none")
        for measure in experiment.measures:
            stem = re.sub("_(classifier|inception)$", "_<features>", measure)
            assert f"`{stem}`" in explained or f"`{measure}`" in explained, f"{experiment.name}: {measure}"
        for published in experiment.published.values():
            assert re.search(r"arXiv:\d{4}\.\d{4,5}|https://github\.com/", published.text), experiment.name
        for expected in experiment.expected.values():
            assert "docs/results.md" in expected.text, experiment.name


def test_every_published_experiment_has_a_quick_twin() -> None:
    experiments = {experiment.name: experiment for experiment in read_experiments([config_directory()])}
    for experiment in experiments.values():
        if experiment.name.endswith("_quick"):
            assert experiment.twin is None, experiment.name
            assert "expected" in (config_directory() / "experiment" / f"{experiment.name}.yaml").read_text()
        elif experiment.twin is not None:
            assert experiment.twin.endswith("_quick"), experiment.name
            assert experiment.twin in experiments, experiment.name
        else:
            assert not experiment.published, f"{experiment.name}: no '# twin:'"


def page_row(experiment: Experiment) -> str:
    """Return the row of docs/experiments.md for an experiment."""
    published = "; ".join(f"`{name}` {value.text}" for name, value in experiment.published.items())
    expected = ", ".join(
        f"`{name}` {value.value:g} ± {value.deviation:g}" for name, value in experiment.expected.items()
    )
    cells = (
        f"`{experiment.name}`",
        experiment.title,
        (published or experiment.remark).replace("+-", "±"),
        expected or experiment.ours,
        "" if experiment.twin is None else f"`{experiment.twin}`",
    )
    return f"| {' | '.join(cells)} |"


def test_the_page_of_experiments_says_what_their_headers_say() -> None:
    page = (config_directory().parent / "docs" / "experiments.md").read_text(encoding="utf-8")
    told = [line for line in page.splitlines() if line.startswith("| `")]
    wanted = [page_row(experiment) for experiment in read_experiments([config_directory()])]
    assert told == wanted, "the table must be:\n" + "\n".join(wanted)


def test_a_header_is_read_with_its_continuations(tmp_path: Path) -> None:
    experiment = read_experiment(written(tmp_path, HEADER))
    assert experiment.command == "genlab train experiment=x num_threads=1, then genlab evaluate run=RUN"
    assert experiment.measures == ("nll_upper_bound_nats", "parzen_log_likelihood_nats", "error")
    assert experiment.published["nll_upper_bound_nats"].value == 80.0
    assert experiment.published["nll_upper_bound_nats"].text == ("80.0 (arXiv:1502.04623, table 2, of another network)")
    assert experiment.published["parzen_log_likelihood_nats"].value == -132.0
    assert (experiment.cost, experiment.remark) == ("20 minutes", "")
    assert experiment.title == "A model (Somebody 2015, arXiv:1502.04623)."
    assert (experiment.published["parzen_log_likelihood_nats"].deviation, experiment.differs) == (1.8, "in its size")
    (expected,) = experiment.expected.items()
    assert (expected[0], expected[1].value, expected[1].deviation) == ("nll_upper_bound_nats", 82.5, 0.6)
    assert (experiment.twin, experiment.result) == ("x_quick", "DRAW: digits")


def test_expectation_and_twin_may_be_missing(tmp_path: Path) -> None:
    text = re.sub(r"# expected:.*?(?=defaults)", "", HEADER, flags=re.S)
    experiment = read_experiment(written(tmp_path, text))
    assert (experiment.expected, experiment.twin, experiment.differs) == ({}, None, "in its size")
    assert experiment.result == "draw: x"


def test_nothing_published_keeps_its_remark(tmp_path: Path) -> None:
    text = re.sub(
        r"# published:.*?# ours", "# published:  none; but much\n#             expected\n# ours", HEADER, flags=re.S
    )
    experiment = read_experiment(written(tmp_path, text))
    assert (experiment.published, experiment.remark) == ({}, "none; but much expected")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("# cost:       20 minutes\n", ""), "lacks '# cost:'"),
        (("nll_upper_bound_nats = 80.0 (", "about 80 ("), "published must be 'none'"),
        (("80.0 (arXiv:1502.04623, table 2,\n#             of another network)", "80.0"), "published must be"),
        (("parzen_log_likelihood_nats, error", "error"), "parzen_log_likelihood_nats is published and not among"),
        (("# differs:    in its size\n", ""), "lacks '# differs:'"),
        (("82.5 +- 0.6 (one run)", "82.5 (one run)"), "nll_upper_bound_nats is expected without a tolerance"),
        (("nll_upper_bound_nats = 82.5", "nll_nats = 82.5"), "nll_nats is expected and not among"),
        (("nll_upper_bound_nats = 82.5 ", "soon "), "expected must be 'none'"),
    ],
)
def test_an_incomplete_header_is_refused(tmp_path: Path, change: tuple[str, str], told: str) -> None:
    assert change[0] in HEADER
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        read_experiment(written(tmp_path, HEADER.replace(*change)))


def test_a_users_experiment_gives_way_to_ours(tmp_path: Path) -> None:
    for folder, cost in (("ours", "1 minute"), ("theirs", "2 minutes")):
        (tmp_path / folder / "experiment").mkdir(parents=True)
        written(tmp_path / folder / "experiment", HEADER.replace("20 minutes", cost))
    found: list[Experiment] = read_experiments([tmp_path / "ours", tmp_path / "theirs"])
    assert [(experiment.name, experiment.cost) for experiment in found] == [("x", "1 minute")]
