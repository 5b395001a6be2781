"""A sweep from its command to its table: planned before it starts, run by Hydra, and reported however it ends."""

import itertools
import re
import shlex
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from genlab.config.build import TARGET
from genlab.config.compose import SWEEP_NODE, Composed, parse_overrides, quoted
from genlab.config.fields import check_fields
from genlab.config.targets import find_target
from genlab.errors import ConfigurationError, GenlabError, SweepError
from genlab.launch.search import Search, SearchSettings, SearchSpace, search_space
from genlab.launch.sweep_folder import PLAN_NAME, TABLE_NAME, SweepFolder, SweepPlan
from genlab.launch.sweep_job import QUIET, await_free, tell
from genlab.launch.sweep_report import Row, report, rows_of, write_tables
from genlab.launch.sweep_settings import SweepSettings, settings_of
from genlab.launch.sweep_shares import num_parallel
from genlab.measures import QUALITY_MEASURES, WATCH_MEASURES
from genlab.paths import expanded, from_here, program
from genlab.printing import one_line
from genlab.run.folder import locked, make_new
from genlab.signals import handling
from genlab.storage import require_contained

BASIC_SWEEPER = f"{BasicSweeper.__module__}.{BasicSweeper.__name__}"
TPE_SWEEPER = "hydra_plugins.genlab_tpe.sweeper.TPESweeper"
_RESUME = f"{SWEEP_NODE}.resume"
# Overrides in a sweep's folder that run no code, read no environment variable and name no path to write to.
_HARMLESS_OF_HYDRA = re.compile(
    r"\+{0,2}(hydra/(launcher|sweeper)=\w+|hydra\.(launcher|sweeper)\.[a-z]\w*=(\d+|true|false|null)"
    r"|hydra\.(mode|verbose)=\w+|hydra\.sweep\.dir=[^$]*)",
    re.ASCII,
)
_NEEDS_TRUST = re.compile(r"\$\{|_target_|hydra|cache|download")
_OF_SWEEP = ("hydra.sweep.", "hydra.sweeper", "hydra/sweeper", "hydra.launcher", "hydra/launcher")
# Packages of the extra that a choice needs, by a part of the target that it names.
_NEEDED = {
    "genlab_tpe": "optuna",
    "hydra_joblib_launcher": "hydra_plugins.hydra_joblib_launcher",
    **dict.fromkeys(("hydra_submitit_launcher", "genlab_slurm"), "hydra_plugins.hydra_submitit_launcher"),
}


def resumed_plan(arguments: Sequence[str], *, config_dir: str | None) -> SweepPlan | None:
    """Return the plan of the sweep that ``sweep.resume`` names, with the changes of this command line.

    Args:
        arguments: Overrides of ``genlab train -m``: all of the sweep or an empty list, any of ``hydra`` and ``sweep``.
        config_dir: Of this command line.

    Returns:
        None when no sweep is named.

    Raises:
        ConfigurationError: There is no such sweep, it is refused, or the overrides are of another one.
    """
    named = [override.value() for override in parse_overrides(arguments) if override.key_or_group == _RESUME]
    if not named or named[-1] is None:
        return None
    sweep = SweepFolder(Path(expanded(str(named[-1]), _RESUME)))
    plan = sweep.read_plan()
    require_contained(sweep.path)
    given, typed = _divided(arguments)
    jobs, about = _divided(plan.overrides)
    if given and given != jobs:
        raise ConfigurationError(
            f"{_RESUME} resumes the same sweep: give all overrides or leave them out; they are {shlex.join(jobs)}"
        )
    kept = [argument for key, argument in about.items() if key not in typed]
    missing = _to_trust(() if given else jobs, kept, plan.config_dir if config_dir is None else None)
    if missing:
        raise ConfigurationError(
            "this sweep used code, settings of Hydra or configurations of your own; if you trust them, add: "
            + shlex.join(missing)
        )
    about |= typed
    return replace(plan, overrides=(*jobs, *about.values()), config_dir=config_dir)


def _to_trust(jobs: Sequence[str], about: Sequence[str], config_dir: str | None) -> list[str]:
    """Return the arguments of a sweep that need the user's trust, since its folder is untrusted.

    Args:
        jobs: Overrides of its jobs.
        about: Overrides of the nodes ``hydra`` and ``sweep``.
        config_dir: The user's configuration tree.
    """
    arguments = list(jobs) if any(map(_NEEDS_TRUST.search, jobs)) else []
    arguments += [
        argument for argument in about if _NEEDS_TRUST.search(argument) and not _HARMLESS_OF_HYDRA.fullmatch(argument)
    ]
    if config_dir is not None:
        arguments += ["--config-dir", config_dir]
    return arguments


def parameters_of(whole: Composed) -> list[str]:
    """Return the search space in the sweeper's own node, as overrides; empty for a sweeper of the user's.

    Args:
        whole: The composed configuration of the sweep.
    """
    if whole.hydra.sweeper.get(TARGET) not in (BASIC_SWEEPER, TPE_SWEEPER):
        return []
    return [f"{key}={value}" for key, value in (whole.hydra.sweeper.get("params") or {}).items()]


def refuse_without_sweep(overrides: Sequence[str]) -> None:
    """Refuse settings of the sweep for a single run, on which they have no effect.

    Raises:
        ConfigurationError: There is one.
    """
    for override in parse_overrides(overrides):
        key = override.key_or_group
        if key.startswith((f"{SWEEP_NODE}.", *_OF_SWEEP)) and not override.is_sweep_override():
            raise ConfigurationError(f"{key} is a setting of sweeps; add -m")


def refuse_with_sweep(overrides: Sequence[str]) -> None:
    """Refuse settings that have no effect on a sweep.

    Args:
        overrides: Of the command line alone.

    Raises:
        ConfigurationError: There is one.
    """
    keys = [override.key_or_group for override in parse_overrides(overrides)]
    if "hydra.run.dir" in keys:
        raise ConfigurationError("hydra.run.dir is for a single run; hydra.sweep.dir places a sweep")
    if _RESUME in keys and "hydra.sweep.dir" in keys:
        raise ConfigurationError(f"hydra.sweep.dir must be left out with {_RESUME}, which names the folder")


def planned_jobs(
    overrides: Sequence[str], whole: Composed, settings: SweepSettings
) -> tuple[tuple[str, ...], ...] | None:
    """Return the overrides of every job, in the order of their numbers; None if a search makes them.

    Raises:
        ConfigurationError: A package is missing, or a setting has no effect.
    """
    _require_packages(whole)
    target = str(whole.hydra.sweeper.get(TARGET))
    if target == TPE_SWEEPER:
        _search_of(whole, overrides)
        _with_direction(whole, settings)
    if target != BASIC_SWEEPER:
        return None
    job_overrides = _job_overrides(whole, overrides)
    for override in job_overrides:
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise ConfigurationError(
                f"{override.input_line}: only a search can choose from an interval; add hydra/sweeper=tpe"
            )
    (jobs,) = BasicSweeper.split_arguments(job_overrides, None)
    return tuple(tuple(job) for job in jobs)


def require_same_jobs(folder: Path, jobs: Sequence[tuple[str, ...]] | None) -> None:
    """Refuse a resumption whose jobs are others than those of the sweep, as after a change of what a glob finds.

    Args:
        folder: Of the sweep.
        jobs: Of :func:`planned_jobs`.

    Raises:
        ConfigurationError: They differ.
    """
    before = SweepFolder(folder).read_plan().jobs
    if before is None or jobs is None:
        return
    for number, (was, would_be) in enumerate(itertools.zip_longest(before, jobs)):
        if was != would_be:
            was, would_be = (shlex.join(job) if job is not None else "no job" for job in (was, would_be))
            raise ConfigurationError(
                f"the jobs of this sweep have changed: job {number} was {was}, and would be {would_be}; what glob(...) "
                "finds must stay as it was, or start a new sweep"
            )


def planned_search(whole: Composed, overrides: Sequence[str], folder: Path) -> Search:
    """Return the search that a composed configuration describes.

    Args:
        whole: With its ``hydra`` and ``sweep`` nodes.
        overrides: Of the command line.
        folder: Of the sweep.

    Raises:
        ConfigurationError: A setting does not fit, or there is nothing to search.
    """
    comparison = settings_of(whole)
    if comparison is None:
        raise ConfigurationError("hydra/sweeper=tpe searches settings of genlab train only")
    settings, space = _search_of(whole, overrides)
    comparison = _with_direction(whole, comparison)
    return Search(SweepFolder(folder), comparison=comparison, settings=settings, space=space)


def _search_of(whole: Composed, overrides: Sequence[str]) -> tuple[SearchSettings, SearchSpace]:
    node: Any = OmegaConf.to_container(whole.hydra.sweeper, resolve=True)
    del node[TARGET]
    if node["n_jobs"] is None:
        node["n_jobs"] = num_parallel(whole, None) or 1
    return check_fields(SearchSettings, node, "hydra.sweeper"), search_space(_job_overrides(whole, overrides))


def _job_overrides(whole: Composed, overrides: Sequence[str]) -> list[Override]:
    """Return the overrides that make the jobs: the sweeper's own parameters, then the command line."""
    arguments = [*parameters_of(whole), *overrides]
    return [override for override in parse_overrides(arguments) if not _is_about_sweep(override)]


def run_sweep(folder: Path, settings: SweepSettings, plan: SweepPlan, *, run: Callable[[Path], None]) -> None:
    """Lock the sweep's folder, let Hydra run the jobs, and print the table.

    Args:
        folder: Of the sweep, new or to be resumed; a new one may still lack its number.
        settings: Of the comparison of its runs.
        plan: To be stored for a resumption.
        run: Runs Hydra with the sweep's folder.

    Raises:
        ConfigurationError: The folder contains another sweep.
        FolderInUseError: Another process runs this sweep.
        SweepError: At least one job failed, or the launcher did.
    """
    folder = make_new(folder)[0]
    sweep = SweepFolder(folder)
    is_replaced = settings.resume is None and (sweep.path / PLAN_NAME).exists()
    if is_replaced and not sweep.is_dry_run():
        way_on = _way_on(sweep, plan, rows_of(sweep, settings))
        raise ConfigurationError(f"name or hydra.sweep.dir must be new, got {sweep.path}; to resume: {way_on}")
    failure: Exception | None = None
    with locked(sweep.path, is_resumed=True):
        if is_replaced:
            sweep.clear()
        arguments = [text for text in plan.overrides if text != QUIET and not text.startswith(f"{_RESUME}=")]
        command = shlex.join(["genlab", "train", "-m", *arguments])
        sweep.write_plan(replace(plan, overrides=tuple(arguments)), command=command)
        sweep.forget_stop()
        tell(f"sweep folder: {from_here(sweep.path)}", is_progress=True)
        with _signals_stop(sweep):
            try:
                run(folder)
            except Exception as error:
                failure = error
            except BaseException:
                rows = _conclude(sweep, settings, plan.config_dir)
                tell(f"stopped; to resume:\n  {_way_on(sweep, plan, rows)}")
                raise
            rows = _conclude(sweep, settings, plan.config_dir)
        way_on = _way_on(sweep, plan, rows)
        number = sweep.stop_signal()
        if number is not None:
            tell(f"stopped; to resume:\n  {way_on}")
            raise SystemExit(128 + number)
    _raise_for(rows, failure, way_on=way_on, is_search=plan.jobs is None)


def _conclude(sweep: SweepFolder, settings: SweepSettings, config_dir: str | None) -> list[Row]:
    for record in sweep.records():
        if record.status == "running" and await_free(sweep.run_folder(record)) is None:
            sweep.finalise(record)
    rows = write_tables(sweep, settings)
    tell(f"\n{report(rows, settings, config_dir=config_dir)}\n\ntable: {from_here(sweep.path / TABLE_NAME)}")
    return rows


def _raise_for(rows: Sequence[Row], failure: Exception | None, *, way_on: str, is_search: bool) -> None:
    if isinstance(failure, GenlabError) and not isinstance(failure, SweepError):
        raise failure
    if failure is not None:
        text = str(failure) if isinstance(failure, SweepError) else one_line(f"{type(failure).__name__}: {failure}")
        raise SweepError(f"the sweep ended early: {text}; to resume: {way_on}") from failure
    if failed := [row.record for row in rows if row.record.has_failed]:
        named = ", ".join(f"job {record.number} {record.status}" for record in failed)
        repeated = [record for record in failed if record.was_cut_short or not is_search]
        if repeated:
            which = "them" if repeated == failed else " and ".join(f"job {record.number}" for record in repeated)
            advice = f"to run {which} again: {way_on}"
            if limited := [str(row.record.number) for row in rows if row.record.is_at_its_limit]:
                advice += f"; those that reached trainer.max_minutes get this time again: job {', '.join(limited)}"
        else:
            advice = f"a search keeps them as failed trials; for further ones: {way_on} hydra.sweeper.n_trials=N"
        raise SweepError(f"{len(failed)} of {len(rows)} jobs did not finish ({named}); {advice}")


def _with_direction(whole: Composed, settings: SweepSettings) -> SweepSettings:
    """Return the settings with the direction of the measure that a search optimises.

    Raises:
        ConfigurationError: The model has no measure to select by, or no direction is declared.
    """
    model = find_target(whole.model.get(TARGET), "model")
    selected = selection_measure(whole.model)
    tag = settings.measure or (None if selected is None else f"validation/{selected}")
    from genlab.models.base import GenerativeModel  # it brings torch, which commands that list do without

    draws = isinstance(model, type) and issubclass(model, GenerativeModel)
    if tag is None and draws and whole.get("quality") is not None:
        # Of the measure that chooses the best checkpoint of each job.
        return replace(settings, minimize=settings.minimize is not False)
    if tag is None:
        raise ConfigurationError(
            "sweep.measure must be given: this model has no measure of its own, and quality=off measures no samples"
            if draws
            else "sweep.measure must be given: this model has no selection measure"
        )
    if settings.minimize is not None:
        return settings
    # Of an instance alone where the parts of a model make them.
    of_model = getattr(model, "measures", None)
    declarations = {**WATCH_MEASURES, **QUALITY_MEASURES, **(of_model if isinstance(of_model, Mapping) else {})}
    declared = declarations.get(tag) or declarations.get(tag.partition("/")[2])
    if declared is not None and declared.direction != "neither":
        return replace(settings, minimize=declared.direction == "lower")
    if tag == f"validation/{selected}":
        return replace(settings, minimize=True)
    ranked = sorted(name for name, each in declarations.items() if each.direction != "neither" and "/" not in name)
    raise ConfigurationError(
        f"sweep.minimize must be true or false for {tag}, whose direction the model does not declare; it declares "
        f"that of {', '.join(ranked)}"
    )


def selection_measure(node: Mapping[str, Any]) -> str | None:
    """Return what the model of this node is selected by; a part may decide it, as a GAN's conditioning does."""
    parts = [part for part in node.values() if isinstance(part, Mapping) and TARGET in part]
    found = (getattr(find_target(part[TARGET], "model"), "selection_measure", None) for part in (node, *parts))
    return next((measure for measure in found if isinstance(measure, str)), None)


def _require_packages(whole: Composed) -> None:
    for kind in ("sweeper", "launcher"):
        target = str(whole.hydra[kind].get(TARGET))
        for part, module in _NEEDED.items():
            if part in target.split(".") and find_spec(module) is None:
                choice = whole.hydra.runtime.choices[f"hydra/{kind}"]
                raise ConfigurationError(
                    f"hydra/{kind}={choice} needs packages that are not installed: pip install 'genlab[sweep]'"
                )


@contextmanager
def _signals_stop(sweep: SweepFolder) -> Iterator[None]:
    """Ask all jobs to save and stop at the first signal; a second SIGINT or SIGTERM ends this process.

    An exception raised at once would make joblib kill its workers and all that they have started.
    """

    def ask(number: int, _frame: FrameType | None) -> None:
        if sweep.stop_signal() is not None:
            if number == signal.SIGHUP:  # a terminal that closes sends it twice
                return
            raise KeyboardInterrupt
        sweep.ask_to_stop(number)
        tell("stopping: running jobs save first; a second signal ends them at once")

    with handling({number: ask for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}):
        yield


def _divided(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the overrides of the jobs, and by key those of the nodes ``hydra`` and ``sweep``."""
    jobs, about = [], {}
    for argument, override in zip(arguments, parse_overrides(arguments), strict=True):
        if _is_about_sweep(override):
            about[str(override.key_or_group)] = argument
        else:
            jobs.append(argument)
    return jobs, about


def _is_about_sweep(override: Override) -> bool:
    return str(override.key_or_group).startswith((f"{SWEEP_NODE}.", "hydra.", "hydra/"))


def _way_on(sweep: SweepFolder, plan: SweepPlan, rows: Sequence[Row]) -> str:
    """Return the command that resumes a sweep."""
    path = str(from_here(sweep.path))
    folder = path if shlex.quote(path) == path else quoted(path)
    jobs, about = _divided(plan.overrides)
    trusted = _to_trust(jobs, [argument for key, argument in about.items() if key != _RESUME], plan.config_dir)
    packages = [name for row in rows for name in row.packages]
    return f"{program(packages)} {shlex.join(['train', '-m', f'{_RESUME}={folder}', *trusted])}"
