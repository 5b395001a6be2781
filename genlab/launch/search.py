"""Hyper-parameter search: a tree-structured Parzen estimator proposes settings, and jobs of the sweep evaluate them.

Optuna is used through its ask-and-tell interface; trial n is job n. Its storage is one SQLite file in the sweep's
folder that only this process opens, so that a search that was stopped can be resumed.

Estimator: Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011, section 4. Pruning: a run whose
best measure so far is worse than the median of the finished ones' at the same step stops (Golovin et al., "Google
Vizier", KDD 2017, section 3.2).
"""

import math
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from genlab.errors import ConfigurationError
from genlab.launch.metrics_follower import MetricsFollower
from genlab.launch.sweep_folder import DONE, STORAGE_NAME, JobRecord, SweepFolder
from genlab.launch.sweep_job import tell
from genlab.launch.sweep_report import measured, rows_of, why_not_ranked
from genlab.launch.sweep_settings import SweepSettings
from genlab.run.folder import read_summary

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution

_STUDY_NAME = "sweep"
_POLL_SECONDS = 0.5
_LOG = "log"

Launch = Callable[[Sequence[Sequence[str]], int], object]
"""Function that runs jobs of the given overrides, numbered from the given number, and returns when all have ended."""


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """The keys of configs/hydra/sweeper/tpe.yaml.

    Raises:
        ValueError: A number is out of its range.
    """

    n_trials: int
    """Total number of trials, including failed and pruned ones and those before a resumption."""
    n_jobs: int
    """Trials proposed at once, for a launcher that runs jobs in parallel."""
    seed: int
    n_startup_trials: int
    """Trials that must have finished or been pruned before the estimator is used; until then they are random."""
    prune: bool
    n_finished_before_pruning: int
    """Trials that must have finished before one is pruned."""
    n_warmup_steps: int
    """Training steps before which no trial is pruned."""
    params: dict[str, Any]
    """The search space as overrides, for a configuration file; overrides of the command line take precedence."""

    def __post_init__(self) -> None:
        for name in ("n_trials", "n_jobs", "n_startup_trials", "n_finished_before_pruning"):
            if getattr(self, name) < 1:
                raise ValueError(f"hydra.sweeper.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("seed", "n_warmup_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"hydra.sweeper.{name} must be 0 or more, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """The parameters that are searched, and the overrides that all trials share."""

    fixed: tuple[str, ...]
    distributions: "dict[str, BaseDistribution]"
    """Of the searched parameters, by key."""


def search_space(overrides: Sequence[Override]) -> SearchSpace:
    """Split the overrides of a command line into searched and fixed ones.

    Raises:
        ConfigurationError: There is nothing to search, or an interval is empty.
    """
    last = {str(override.get_key_element()): override for override in overrides}
    searched = {key: override for key, override in last.items() if override.is_sweep_override()}
    fixed = [f"{key}={override.get_value_element_as_str()}" for key, override in last.items() if key not in searched]
    if not searched:
        example = "'optimizer.default.lr=tag(log, interval(1e-4, 1e-2))'"
        raise ConfigurationError(f"hydra/sweeper=tpe needs something to search, such as {example}")
    try:
        distributions = {key: _distribution(override) for key, override in searched.items()}
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    return SearchSpace(fixed=tuple(fixed), distributions=distributions)


def interval_ends(override: Override) -> tuple[int | float, int | float]:
    """Return the two ends of an ``interval(a, b)``."""
    interval = override.value()
    assert isinstance(interval, IntervalSweep)
    assert interval.start is not None
    assert interval.end is not None
    return interval.start, interval.end


def _distribution(override: Override) -> "BaseDistribution":
    """Return the distribution of a sweep; choices are kept as Hydra writes them, so that any value can be one.

    Raises:
        ValueError: The interval is empty, or not positive where a logarithm is asked for.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if isinstance(value, IntervalSweep):
        low, high = interval_ends(override)
        is_log = _LOG in value.tags
        if not low < high or (is_log and not low > 0):
            rule = (
                "must go from a positive number to a larger one" if is_log else "must go from a number to a larger one"
            )
            raise ValueError(f"{override.get_key_element()}: an interval {rule}, got {low} to {high}")
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=is_log)
        return FloatDistribution(low, high, log=is_log)
    if isinstance(value, RangeSweep) and all(isinstance(end, int) for end in (value.start, value.stop, value.step)):
        members: Any = value.range()
        ends = members[0], members[-1]
        return IntDistribution(min(ends), max(ends), step=abs(int(value.step)))
    return CategoricalDistribution(tuple(override.sweep_string_iterator()))


def _num_values(distribution: "BaseDistribution") -> int | float:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return (distribution.high - distribution.low) // distribution.step + 1
    return math.inf


class Search:
    """A search, from the first trial of its storage to the last.

    Args:
        sweep: The folder.
        comparison: The measure and its direction.
        settings: Of the search.
        space: The search space.
    """

    def __init__(
        self, sweep: SweepFolder, *, comparison: SweepSettings, settings: SearchSettings, space: SearchSpace
    ) -> None:
        self._sweep = sweep
        self._comparison = comparison
        self._settings = settings
        self._space = space
        self._is_warned = False

    def run(self, launch: Launch) -> None:
        """Propose and launch trials, and report their results, until ``n_trials`` have been made."""
        with self._opened_study() as study:
            for trials in self._unfinished(study):
                self._try(trials, launch)
                if self._is_stopped():
                    return
            n_trials, n_jobs = self._settings.n_trials, self._settings.n_jobs
            if (num := math.prod(map(_num_values, self._space.distributions.values()))) <= n_trials:
                tell(
                    f"warning: hydra.sweeper.n_trials={n_trials} for {num} settings trains some of them again, with "
                    "the same result; without hydra/sweeper=tpe a sweep trains each once"
                )
            while not self._is_stopped() and (num_left := n_trials - len(study.get_trials(deepcopy=False))) > 0:
                self._try([study.ask(self._space.distributions) for _ in range(min(num_left, n_jobs))], launch)

    def _is_stopped(self) -> bool:
        return self._sweep.stop_signal() is not None

    @contextmanager
    def _opened_study(self) -> "Iterator[Study]":
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        settings = self._settings
        storage = optuna.storages.RDBStorage(f"sqlite:///{self._sweep.path / STORAGE_NAME}")
        try:
            study = optuna.create_study(
                storage=storage,
                study_name=_STUDY_NAME,
                direction="minimize" if self._comparison.minimize else "maximize",
                load_if_exists=True,
            )
            self._require_same_measure(study)
            # A resumed search must not draw the numbers of its first start again.
            seed = settings.seed + len(study.get_trials(deepcopy=False))
            study.sampler = optuna.samplers.TPESampler(seed=seed % 2**32, n_startup_trials=settings.n_startup_trials)
            study.pruner = optuna.pruners.MedianPruner(
                n_startup_trials=settings.n_finished_before_pruning, n_warmup_steps=settings.n_warmup_steps
            )
            yield study
        finally:
            storage.remove_session()
            storage.engine.dispose()

    def _require_same_measure(self, study: "Study") -> None:
        """Refuse a resumption whose values and those of the earlier trials are not comparable."""
        now = {"measure": self._comparison.measure, "minimize": self._comparison.minimize}
        known = study.user_attrs.get("comparison", now)
        if known != now:
            given = "sweep.measure={measure} sweep.minimize={minimize}"
            raise ConfigurationError(
                f"a search keeps its measure and direction ({given.format(**known)}), got {given.format(**now)}"
            )
        study.set_user_attr("comparison", now)

    def _unfinished(self, study: "Study") -> "Iterator[list[Trial]]":
        """Yield the trials that were cut short, as many at once as are launched together."""
        from optuna.trial import Trial, TrialState

        group: list[Trial] = []
        for frozen in study.get_trials(states=(TrialState.RUNNING,)):
            # The stop came while it was proposed, or another space was searched.
            if frozen.distributions != self._space.distributions:
                study.tell(frozen.number, state=TrialState.FAIL)
                continue
            if group and (group[-1].number + 1 != frozen.number or len(group) == self._settings.n_jobs):
                yield group
                group = []
            group.append(Trial(study, frozen._trial_id))
        if group:
            yield group

    def _try(self, trials: "Sequence[Trial]", launch: Launch) -> None:
        jobs = [
            [*self._space.fixed, *(f"{key}={_written(trial.params[key])}" for key in self._space.distributions)]
            for trial in trials
        ]
        with self._watched(trials):
            launch(jobs, trials[0].number)
        for trial in trials:
            record = self._sweep.record(trial.number)
            is_stopped = self._is_stopped() and (record is None or record.status not in DONE)
            if not is_stopped and not (record is not None and record.was_cut_short):
                self._tell(trial, record)  # the others are left open, for a resumption
        self._warn_unless_ranked()

    def _tell(self, trial: "Trial", record: JobRecord | None) -> None:
        from optuna.trial import TrialState

        if record is None:
            trial.set_user_attr("status", "failed")
            trial.study.tell(trial, state=TrialState.FAIL)
            return
        trial.set_user_attr("status", record.status)
        if record.reason is not None:
            trial.set_user_attr("reason", record.reason)
        _, value = measured(self._sweep.run_summary(record), self._comparison.measure)
        if record.status == "pruned" and trial.study.trials[trial.number].intermediate_values:
            trial.study.tell(trial, state=TrialState.PRUNED)
        elif record.exit_code == 0 and value is not None:
            trial.study.tell(trial, value)
        else:
            trial.study.tell(trial, state=TrialState.FAIL)

    def _warn_unless_ranked(self) -> None:
        """Say once that the search compares values which the table does not, such as those of different data."""
        why = None if self._is_warned else why_not_ranked(rows_of(self._sweep, self._comparison))
        if why is not None:
            tell(f"warning: the search compares values that are not ranked: {why}")
            self._is_warned = True

    @contextmanager
    def _watched(self, trials: "Sequence[Trial]") -> Iterator[None]:
        """Report the curves of running trials, and prune those that are worse than the others."""
        watches = [_Watch(trial, self._sweep, self._comparison) for trial in trials]
        ended = threading.Event()

        def look_now_and_then() -> None:
            while not ended.wait(_POLL_SECONDS):
                for watch in watches:
                    watch.look(prune=self._settings.prune)

        with ThreadPoolExecutor(max_workers=1) as executor:
            looking = executor.submit(look_now_and_then)
            try:
                yield
            finally:
                ended.set()
        looking.result()
        for watch in watches:
            watch.look(prune=False)  # values that the jobs wrote at their end count for later medians


class _Watch:
    """The curve of a running trial."""

    def __init__(self, trial: "Trial", sweep: SweepFolder, comparison: SweepSettings) -> None:
        self._trial = trial
        self._sweep = sweep
        # Test data are used once, at the end; before, validation data stand for them.
        self._tag = None if comparison.measure is None else re.sub("^test/", "validation/", comparison.measure)
        self._follower: MetricsFollower | None = None
        self._reported = set(trial.study.trials[trial.number].intermediate_values)
        self._is_asked = False

    def look(self, *, prune: bool) -> None:
        if self._follower is None:
            record = self._sweep.record(self._trial.number)
            if record is None or record.folder is None:
                return
            self._folder = self._sweep.run_folder(record)
            self._follower = MetricsFollower(self._folder)
        tag = self._tag or read_summary(self._folder).get("selected_by")
        if tag is None:  # the summary is written when training starts
            return
        for values in self._follower.new_records():
            value = values.get(tag)
            if isinstance(value, int | float) and math.isfinite(value) and values["step"] not in self._reported:
                self._reported.add(values["step"])
                self._trial.report(value, values["step"])
                if prune and not self._is_asked and self._trial.should_prune():
                    self._is_asked = True
                    self._sweep.ask_to_prune(self._trial.number)


def _written(value: object) -> str:
    """Return a value as text; six digits of a number are enough to read and to type again."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
