"""Hydra's sweeps become Optuna's distributions, and a search reads the results from the folders of its jobs."""

import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any
from unittest.mock import Mock
from wsgiref.util import setup_testing_defaults

import pytest
import torch

from genlab.config.compose import open_composer, parse_overrides
from genlab.config.naming import register_resolvers
from genlab.errors import ConfigurationError, SweepError
from genlab.launch import search
from genlab.launch.search import Search, SearchSettings, search_space
from genlab.launch.sweep import _raise_for, planned_search
from genlab.launch.sweep_folder import JobRecord, SweepFolder, SweepPlan
from genlab.launch.sweep_report import rows_of
from genlab.launch.sweep_settings import SweepSettings
from genlab.run.folder import read_summary
from tests.metrics.test_quality_observer import TAG as QUALITY_TAG
from tests.metrics.test_quality_observer import Sampling
from tests.metrics.test_quality_observer import measured as measured_gan
from tests.thinning import slow

optuna = pytest.importorskip("optuna")
TAG = "validation/nll_nats"


def test_every_kind_of_sweep_has_its_distribution() -> None:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    arguments = [
        "a=interval(1, 8)",
        "b=int(interval(1, 8))",
        "c=tag(log, interval(1e-4, 1e-2))",
        "d=tag(log, int(interval(1, 64)))",
        "e=range(1, 10, 2)",
        "f=range(0, 1, 0.5)",
        "++g.h=choice(a, 'b c', [1,2])",
        "i=64,128",
    ]
    assert search_space(parse_overrides(arguments)).distributions == {
        "a": FloatDistribution(1, 8),
        "b": IntDistribution(1, 8),
        "c": FloatDistribution(1e-4, 1e-2, log=True),
        "d": IntDistribution(1, 64, log=True),
        "e": IntDistribution(1, 9, step=2),
        "f": CategoricalDistribution(("0.0", "0.5")),
        "++g.h": CategoricalDistribution(("a", "b\\ c", "[1,2]")),
        "i": CategoricalDistribution(("64", "128")),
    }


def test_of_a_key_that_is_given_twice_the_last_counts() -> None:
    space = search_space(parse_overrides(["a=1", "b=choice(1,2)", "a=choice(3,4)", "b=5"]))
    assert (list(space.distributions), space.fixed) == (["a"], ("b=5",))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a=1"], "needs something to search"),
        (["a=interval(2, 2)"], "a: an interval must go from a number to a larger one, got 2.0 to 2.0"),
        (["a=interval(3, 2)"], "got 3.0 to 2.0"),
        (["a=tag(log, interval(0, 2))"], "from a positive number"),
    ],
)
def test_an_impossible_space_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        search_space(parse_overrides(arguments))


def test_a_search_of_fewer_settings_than_trials_says_that_a_grid_trains_each_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Bench(tmp_path / "a", bowl).search("a=choice(1)", "b=range(0,2)", n_trials=2)
    assert "warning: hydra.sweeper.n_trials=2 for 2 settings trains some of them again" in capsys.readouterr().out
    Bench(tmp_path / "b", bowl).search("a=choice(1,2)", "b=range(0,2)", n_trials=2)
    Bench(tmp_path / "c", bowl).search("a=choice(1)", "b=interval(0,4)", n_trials=2)
    assert "warning" not in capsys.readouterr().out


_STORAGES: list[optuna.storages.RDBStorage] = []


def storage_of(sweep: SweepFolder) -> optuna.storages.RDBStorage:
    _STORAGES.append(optuna.storages.RDBStorage(f"sqlite:///{sweep.path / 'study.db'}"))
    return _STORAGES[-1]


@pytest.fixture(autouse=True)
def closed_storages() -> Iterator[None]:
    yield
    while _STORAGES:
        storage = _STORAGES.pop()
        storage.remove_session()
        storage.engine.dispose()


class Bench:
    """Jobs that are a formula: each writes the curve, the summary and the record of a run, at once."""

    def __init__(self, folder: Path, outcome: Callable[[dict[str, str]], dict[str, Any]]) -> None:
        self.sweep = SweepFolder(folder)
        folder.mkdir(exist_ok=True)
        self.sweep.write_plan(SweepPlan(overrides=(), config_dir=None, jobs=None), command="")
        self.outcome = outcome
        self.launched: list[int] = []

    def launch(self, jobs: Sequence[Sequence[str]], first_number: int) -> None:
        for number, overrides in enumerate(jobs, start=first_number):
            self.launched.append(number)
            values = dict(word.split("=", 1) for word in overrides)
            outcome = self.outcome(values)
            run = self.sweep.path / f"{number}_x"
            run.mkdir(exist_ok=True)
            curve = outcome.get("curve", [])
            lines = [json.dumps({"step": step, TAG: value}) for step, value in enumerate(curve, start=1)]
            (run / "metrics.jsonl").write_text("\n".join([*lines, ""]))
            best = {TAG: min(filter(None, curve))} if curve and outcome.get("exit_code", 0) == 0 else {}
            (run / "summary.json").write_text(json.dumps({"selected_by": TAG, "best": best}))
            (run / "config.yaml").write_text(json.dumps({"trainer": {}, "dataset": outcome.get("dataset", {})}))
            self.sweep.write_record(
                JobRecord(
                    number=number,
                    overrides=tuple(overrides),
                    folder=run.name,
                    status=outcome.get("status", "finished"),
                    reason=outcome.get("reason"),
                    exit_code=outcome.get("exit_code", 0),
                )
            )

    def made(self, *arguments: str, minimize: bool = True, **changes: Any) -> Search:
        values = {"n_trials": 12, "n_jobs": 1, "seed": 0, "n_startup_trials": 5, "prune": True}
        values |= {"n_finished_before_pruning": 2, "n_warmup_steps": 0, "params": {}}
        return Search(
            self.sweep,
            comparison=SweepSettings(measure=None, minimize=minimize, resume=None),
            settings=SearchSettings(**{**values, **changes}),
            space=search_space(parse_overrides(arguments)),
        )

    def search(self, *arguments: str, **changes: Any) -> Any:
        """Run a search and return Optuna's view of it, read anew from its file."""
        self.made(*arguments, **changes).run(self.launch)
        return self.study()

    def study(self) -> Any:
        return optuna.load_study(study_name="sweep", storage=storage_of(self.sweep))


def bowl(values: dict[str, str]) -> dict[str, Any]:
    """Lowest, 1, at a = 0.01 and b = x."""
    distance = math.log10(float(values["a"])) + 2
    return {"curve": [9.0, 1 + distance**2 + (values["b"] == "y")]}


SPACE = ("a=tag(log, interval(1e-4, 1))", "b=choice(x,y)", "c=3")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of the library
def test_optuna_dashboard_reads_the_study_of_a_search(tmp_path: Path) -> None:
    dashboard = pytest.importorskip("optuna_dashboard")
    bench = Bench(tmp_path / "s", bowl)
    bench.search(*SPACE, n_trials=3)
    page = dashboard.wsgi(f"sqlite:///{bench.sweep.path / 'study.db'}")
    answers: dict[str, Any] = {}
    for path in ("/api/studies", "/api/studies/1"):
        request: dict[str, Any] = {"PATH_INFO": path}
        setup_testing_defaults(request)
        answers[path] = json.loads(b"".join(page(request, lambda *_: None)))
    (study,) = answers["/api/studies"]["study_summaries"]
    assert study["study_name"] == "sweep"
    trials = answers["/api/studies/1"]["trials"]
    assert [trial["values"] for trial in trials] == [trial.values for trial in bench.study().trials]


@pytest.mark.slow
def test_the_estimator_gets_nearer_than_its_random_start(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "s", bowl)
    study = bench.search(*SPACE, n_trials=20, n_startup_trials=8, seed=1, prune=False)
    values = [trial.value for trial in study.trials]
    assert len(values) == 20
    assert study.best_params["b"] == "x"
    assert abs(math.log10(study.best_params["a"]) + 2) < 0.5
    assert statistics.fmean(values[-8:]) < statistics.fmean(values[:8]) - 0.5
    best = bench.sweep.record(study.best_trial.number)
    assert best is not None
    assert best.overrides == ("c=3", f"a={study.best_params['a']:.6g}", "b=x")


@pytest.fixture
def in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep studies in memory: a file takes longer than all their trials."""

    class InMemory:  # a class, for the library asks whether a storage is one
        def __new__(cls, _: str) -> Any:
            made = optuna.storages.InMemoryStorage()
            made.engine = Mock()
            return made

    monkeypatch.setattr(optuna.storages, "RDBStorage", InMemory)


@pytest.mark.usefixtures("in_memory")
def test_the_first_trials_are_of_the_seed_alone_and_the_next_ones_of_the_values_too(tmp_path: Path) -> None:
    """Where more is better, the estimator goes elsewhere."""

    def drawn(name: str, **changes: Any) -> list[dict[str, Any]]:
        search = Bench(tmp_path / name, bowl).made(*SPACE, n_startup_trials=2, **changes)
        with search._opened_study() as study:
            trials = [study.ask(search._space.distributions) for _ in range(2)]
            for trial, value in zip(trials, (1.0, 2.0), strict=True):
                study.tell(trial, value)
            return [trial.params for trial in (*trials, study.ask(search._space.distributions))]

    low, high = drawn("low"), drawn("high", minimize=False)
    assert low[:2] == high[:2]
    assert low[2] != high[2]
    assert drawn("other", seed=1)[0] != low[0]


@pytest.mark.usefixtures("in_memory")
def test_a_trial_is_pruned_from_the_warm_up_on_once_enough_have_finished(tmp_path: Path) -> None:
    changes = {"n_startup_trials": 1, "n_finished_before_pruning": 2, "n_warmup_steps": 2}
    with Bench(tmp_path / "s", bowl).made(*SPACE, **changes)._opened_study() as study:

        def pruned_at(value: float) -> list[int]:
            trial, steps = study.ask(), []
            for step in (1, 2, 3):
                trial.report(value, step)
                steps += [step] if trial.should_prune() else []
            study.tell(trial, value)
            return steps

        assert [pruned_at(value) for value in (1.0, 9.0, 9.0)] == [[], [], [2, 3]]


@pytest.mark.slow
def test_failed_jobs_are_recorded_and_end_nothing(tmp_path: Path) -> None:
    def outcome(values: dict[str, str]) -> dict[str, Any]:
        if values["b"] == "y":
            return {"status": "diverged", "reason": "loss nan", "exit_code": 5, "curve": [0.1]}
        return bowl(values)

    study = Bench(tmp_path / "s", outcome).search(*SPACE, n_trials=6)
    states = {trial.params["b"]: trial.state.name for trial in study.trials}
    assert states == {"x": "COMPLETE", "y": "FAIL"}
    failed = next(trial for trial in study.trials if trial.params["b"] == "y")
    assert failed.user_attrs == {"status": "diverged", "reason": "loss nan"}
    assert study.best_params["b"] == "x"


def test_a_job_without_the_measure_is_a_failed_trial(tmp_path: Path) -> None:
    study = Bench(tmp_path / "s", lambda values: {}).search(*SPACE, n_trials=2)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "FAIL"]


def test_values_of_other_data_are_warned_of_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def outcome(values: dict[str, str]) -> dict[str, Any]:
        return bowl(values) | {"dataset": {"size": 28 if values["b"] == "x" else 14}}

    study = Bench(tmp_path / "s", outcome).search(*SPACE, n_trials=6)
    assert {trial.params["b"] for trial in study.trials} == {"x", "y"}
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("warning: the search compares values that are not ranked: the jobs did not measure the same")
    Bench(tmp_path / "t", bowl).search(*SPACE, n_trials=6)
    assert capsys.readouterr().out == ""


def planned(folder: Path, *arguments: str) -> Search:
    register_resolvers()
    line = [*arguments, "hydra/sweeper=tpe", "optimizer.default.lr=interval(0.001,0.01)"]
    with open_composer("train", config_dir=None) as composer:
        whole = composer.compose(line, is_sweep=True)
    return planned_search(whole, line, folder)


def test_more_may_be_better(tmp_path: Path) -> None:
    study = Bench(tmp_path / "s", bowl).search(*SPACE, minimize=False, n_trials=3)
    assert study.best_value == max(trial.value for trial in study.trials)


@pytest.mark.parametrize(
    ("arguments", "minimize"),
    [
        slow((("model=dcgan", "sweep.measure=watch/diversity_ratio"), False)),
        (("model=dcgan", "sweep.measure=modes/covered"), False),
        (("model=dcgan",), True),  # by the distance of its samples
        (("model=draw", "sweep.measure=test/bits_per_dim"), True),
        slow((("model=draw",), True)),
        slow((("model=draw", "sweep.minimize=false"), False)),
        (("model=dcgan", "sweep.minimize=false"), False),
        slow((("model=dcgan", "sweep.measure=test/score_real", "sweep.minimize=true"), True)),
    ],
)
def test_the_direction_is_that_of_the_declaration_unless_it_is_given(
    tmp_path: Path, arguments: tuple[str, ...], minimize: bool
) -> None:
    assert planned(tmp_path, *arguments)._comparison.minimize is minimize


class Dark(Sampling):
    """A GAN that begins with dark images, from which it gets away only at a learning rate that is large enough."""

    def __init__(self) -> None:
        super().__init__()
        torch.nn.init.constant_(self.generator[3].bias, -3.0)


class GANBench(Bench):
    """Jobs that train a small GAN at the learning rate ``a``; one that is asked to stop counts as pruned."""

    looked = Event()
    """Set when the search has seen a whole curve."""

    def launch(self, jobs: Sequence[Sequence[str]], first_number: int) -> None:
        for number, overrides in enumerate(jobs, start=first_number):
            folder = self.sweep.path / f"{number}_x"
            folder.mkdir()
            record = JobRecord(number=number, overrides=tuple(overrides), folder=folder.name, status="running")
            self.sweep.write_record(record)
            self.looked.clear()
            lr = float(overrides[0].removeprefix("a="))
            measured_gan(folder, Dark(), lr=lr, test_at_end=False).fit(resume=False)
            assert self.looked.wait(30)
            status = "pruned" if self.sweep.is_asked_to_prune(number) else "finished"
            self.sweep.write_record(replace(record, status=status, exit_code=0))


@pytest.mark.slow
def test_a_search_improves_a_gan_by_the_quality_of_its_samples_and_prunes_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, look = GANBench(tmp_path / "s", bowl), search._Watch.look

    def look_and_tell(watch: Any, *, prune: bool) -> None:
        look(watch, prune=prune)
        if 20 in watch._reported:
            bench.looked.set()

    monkeypatch.setattr(search._Watch, "look", look_and_tell)
    monkeypatch.setattr(search, "_POLL_SECONDS", 0.1)
    study = bench.search("a=tag(log, interval(1e-6, 1e-1))", n_trials=12)
    assert {trial.state.name for trial in study.trials} == {"COMPLETE", "PRUNED"}
    for trial in study.trials:
        summary = read_summary(bench.sweep.path / f"{trial.number}_x")
        assert summary["selected_by"] == QUALITY_TAG
        assert list(trial.intermediate_values) == [5, 10, 15, 20]
        expected = summary["best"][QUALITY_TAG] if trial.state.name == "COMPLETE" else trial.intermediate_values[20]
        assert trial.value == expected
    lowest = [min(trial.intermediate_values.values()) for trial in study.trials]
    assert min(lowest[5:]) < min(lowest[:5])  # the random start
    assert statistics.median(lowest[5:]) < statistics.median(lowest[:5])


def test_a_trial_of_another_space_is_not_launched(tmp_path: Path) -> None:
    """study.db is untrusted too: it may contain a value that was never proposed."""
    bench = Bench(tmp_path / "s", bowl)
    study = optuna.create_study(study_name="sweep", storage=storage_of(bench.sweep))
    theirs = search_space(parse_overrides(["a=tag(log, interval(10, 100))", SPACE[1]]))
    study.ask(theirs.distributions)
    ended = bench.search(*SPACE, n_trials=3)
    assert bench.launched == [1, 2]
    assert [trial.state.name for trial in ended.trials] == ["FAIL", "COMPLETE", "COMPLETE"]


def test_curves_are_reported_step_by_step(tmp_path: Path) -> None:
    study = Bench(tmp_path / "s", lambda values: {"curve": [3.0, 2.0, None, 1.0]}).search(*SPACE, n_trials=1)
    assert study.trials[0].intermediate_values == {1: 3.0, 2: 2.0, 4: 1.0}


def test_a_search_keeps_its_direction(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "s", bowl)
    bench.search(*SPACE, n_trials=1)
    message = r"keeps its measure and direction \(sweep.measure=None sweep.minimize=True\), got .*sweep.minimize=False"
    with pytest.raises(ConfigurationError, match=message):
        bench.search(*SPACE, n_trials=2, minimize=False)
    assert len(bench.search(*SPACE, n_trials=2).trials) == 2


def test_a_stopped_search_resumes_with_what_was_left_open_and_then_with_new_trials(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "s", bowl)
    plain_launch = bench.launch

    def stopped_at_three(jobs: Sequence[Sequence[str]], first_number: int) -> None:
        if first_number == 2:
            raise KeyboardInterrupt
        plain_launch(jobs, first_number)

    bench.launch = stopped_at_three  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        bench.search(*SPACE, n_jobs=2, n_trials=6)
    left = {trial.number: dict(trial.params) for trial in bench.study().trials if trial.state.name == "RUNNING"}
    assert list(left) == [2, 3]

    bench.launch = plain_launch  # type: ignore[method-assign]
    study = bench.search(*SPACE, n_jobs=2, n_trials=7)
    assert bench.launched == [0, 1, 2, 3, 4, 5, 6]
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 7
    assert {number: study.trials[number].params for number in left} == left
    drawn = [trial.params["a"] for trial in study.trials]
    assert len(set(drawn)) == 7, "a resumed search drew the numbers of its first start again"


def test_a_resumed_search_repeats_jobs_that_were_cut_short_and_no_others(tmp_path: Path) -> None:
    ends = [("killed", -9), ("failed", 7), ("interrupted", 143), ("failed", 8), ("failed", 1), ("failed", 6)]

    def cut_short(values: dict[str, str]) -> dict[str, Any]:
        status, exit_code = ends[len(bench.launched) - 1]
        return {"status": status, "exit_code": exit_code, "curve": [0.1]}

    bench = Bench(tmp_path / "s", cut_short)
    study = bench.search(*SPACE, n_trials=6)
    assert [trial.state.name for trial in study.trials] == ["RUNNING"] * 4 + ["FAIL"] * 2
    bench.outcome, bench.launched = bowl, []
    study = bench.search(*SPACE, n_trials=6)
    assert bench.launched == [0, 1, 2, 3]
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 4 + ["FAIL"] * 2


@pytest.mark.parametrize(
    ("launcher", "num"),
    [((), 1), (("hydra/launcher=local", "hydra.launcher.n_jobs=3"), 3), (("hydra.sweeper.n_jobs=2",), 2)],
)
def test_as_many_trials_are_proposed_at_once_as_the_launcher_runs(
    tmp_path: Path, launcher: tuple[str, ...], num: int
) -> None:
    assert planned(tmp_path, "model=draw", *launcher)._settings.n_jobs == num


@pytest.mark.parametrize(
    ("is_search", "statuses", "advice"),
    [
        (False, {0: ("failed", 1), 1: ("killed", -9)}, "to run them again: RESUME"),
        (True, {0: ("failed", 1), 1: ("killed", -9)}, "to run job 1 again: RESUME"),
        (True, {0: ("killed", -9)}, "to run them again: RESUME"),
        (True, {0: ("diverged", 5)}, "a search keeps them as failed trials; for further ones: RESUME hydra.sweeper."),
    ],
)
def test_what_is_advised_of_failed_jobs_is_what_a_resumption_does(
    tmp_path: Path, is_search: bool, statuses: dict[int, tuple[Any, int]], advice: str
) -> None:
    sweep = Bench(tmp_path / "s", bowl).sweep
    for number, (status, exit_code) in statuses.items():
        record = JobRecord(number=number, overrides=(), folder=None, status=status, exit_code=exit_code)
        sweep.write_record(record)
    rows = rows_of(sweep, SweepSettings(measure=None, minimize=True, resume=None))
    with pytest.raises(SweepError, match=advice):
        _raise_for(rows, None, way_on="RESUME", is_search=is_search)
