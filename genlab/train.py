"""`genlab train`: from a configuration to a trained model. Everything is put together here, and nowhere else."""

import logging
import random
import shlex
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml  # type: ignore[import-untyped]

from genlab.config.schema import (
    RunConfiguration,
    read_run_configuration,
    require_phases,
)
from genlab.config.targets import to_trust
from genlab.data.dataset import Dataset
from genlab.errors import CheckpointError, ConfigurationError, StoppedBySignal
from genlab.launch.contract import JobContext
from genlab.launch.outcome import settle_after_first
from genlab.launch.processes import Processes
from genlab.launch.worker import this_worker
from genlab.metrics.baselines import BASELINE_MEASURES, baseline_averages
from genlab.metrics.ledger import Entry, Weights, entries_from, format_table
from genlab.metrics.likelihoods import has_likelihood
from genlab.metrics.quality import LEAST_IMAGES
from genlab.models.base import GenerativeModel
from genlab.parallel.collectives import is_first
from genlab.parallel.processes import first_before_others, gathered, joined, own_device
from genlab.paths import from_here, program, resume_command
from genlab.printing import printable
from genlab.reference_classifier import load_classifier, reference_classifier, why_no_classifier
from genlab.run.banner import banner
from genlab.run.checkpoint import CheckpointFolder
from genlab.run.environment import choose_device, processes_on, save_environment
from genlab.run.folder import claimed, clear, has_checkpoint, never_saved, read_summary
from genlab.run.hyperparameters import UNKNOWN, Origin, hyperparameters, read_origin
from genlab.run.record import (
    CONFIG_NAME,
    RUNS_ROOT,
    build_model,
    load_run,
    resumed,
    save_configuration,
    save_evaluation,
    with_absolute_paths,
)
from genlab.training.collapse import ClassPredictor
from genlab.training.precision import resolved, slowness
from genlab.training.summary import Summary
from genlab.training.trainer import Trainer

_log = logging.getLogger(__name__)


def read(values: Mapping[str, Any], overrides: Sequence[str]) -> RunConfiguration:
    """The checked configuration of a new run, or of the run that ``resume`` names.

    Raises:
        ConfigurationError: Something in it does not fit.
    """
    if values.get("resume") is not None:
        return with_absolute_paths(resumed(load_run(str(values["resume"])), overrides))
    if values.get("allow_other_data"):
        raise ConfigurationError("allow_other_data must be false without resume: a new run may have any data")
    return with_absolute_paths(read_run_configuration(values))


def processes(configuration: RunConfiguration) -> Processes:
    """How many processes the run shall have on this machine.

    Raises:
        ConfigurationError: It has not so many devices.
    """
    settings = configuration.settings
    return processes_on(
        configuration.device, num=settings.devices, key="trainer.devices", max_restarts=settings.max_restarts
    )


def run(configuration: RunConfiguration, context: JobContext) -> None:
    """Train in the run folder, which this process holds until it ends, together with those started beside it."""
    worker = this_worker()
    former: Mapping[str, Any] = {}
    try:
        with joined(own_device(choose_device(configuration.device))), ExitStack() as held:
            # Several processes have one run folder; the first of them names it, and holds it for all.
            begins_anew = False
            if is_first():
                is_resumed = configuration.resume is not None or context.is_restarted
                held.enter_context(claimed(context.run_folder, is_resumed=is_resumed))
                if is_resumed:
                    configuration = going_on(configuration, context)
                    begins_anew = configuration.resume is None
                    if worker is not None and context.is_restarted:
                        _log.warning("started again, %s: %s", _from_where(configuration), worker.former_failure())
            origin = origin_of(context)
            folder, resume = gathered((str(context.run_folder), configuration.resume))[0]
            if worker is not None:
                worker.remember(Path(folder))
            former = {} if context.is_restarted else read_summary(Path(folder))
            train(
                replace(configuration, resume=resume),
                Path(folder),
                command=context.command,
                origin=origin,
                is_restarted=context.is_restarted,
                begins_anew=begins_anew,
            )
    except BaseException as error:
        if worker is not None and not worker.is_first and (run_folder := worker.remembered()) is not None:
            settle_after_first(run_folder, former=former)
        if isinstance(error, KeyboardInterrupt):  # outside of the steps, which end with a save
            raise StoppedBySignal(_interruption(context.run_folder, configuration), signal.SIGINT) from error
        raise


def _interruption(run_folder: Path, configuration: RunConfiguration) -> str:
    """What is left of a run that was interrupted before or after its steps."""
    if read_summary(run_folder).get("status") == "finished":
        return f"interrupted after the run had finished: {from_here(run_folder)}"
    if has_checkpoint(run_folder):
        return f"interrupted; to go on: {resume_command(run_folder, to_trust(configuration.as_dict()))}"
    return "interrupted before anything was saved"


def origin_of(context: JobContext) -> Origin:
    """Return what the run was composed of: at its first start, and what a resumption has added."""
    here = Origin(choices=context.choices, overrides=context.overrides)
    if not any(word.startswith("resume=") for word in context.overrides) and not context.is_restarted:
        return here
    try:
        first = read_origin(context.run_folder)
    except (OSError, ValueError):  # no run shall end for that
        return replace(here, choices={})
    newest = {word.partition("=")[0]: word for word in (*first.overrides, *here.overrides)}
    return replace(first, overrides=tuple(newest.values()))


def _from_where(configuration: RunConfiguration) -> str:
    return "from the beginning" if configuration.resume is None else "from the last checkpoint"


def going_on(configuration: RunConfiguration, context: JobContext) -> RunConfiguration:
    """The configuration of a run that died: from its checkpoint, or from nothing where it never had one.

    Raises:
        ConfigurationError: It is told to go on from one folder in another.
        CheckpointError: It had a checkpoint.
    """
    folder, resume = context.run_folder, configuration.resume
    if resume is not None and not folder.samefile(resume):
        raise ConfigurationError(f"hydra.run.dir must be left out with resume={resume}, got {folder}")
    if has_checkpoint(folder):
        return replace(configuration, resume=str(folder))
    if not context.is_restarted:  # else those that died here have looked
        if not never_saved(folder):
            raise CheckpointError(
                f"no usable checkpoint: neither last.pt nor previous.pt is in {folder / 'checkpoints'}, and nothing "
                "shows that there never was one; start a new run"
            )
        _log.warning("%s has no checkpoint yet: it begins anew, all but its logs replaced", from_here(folder))
    return replace(configuration, resume=None)


def train(
    configuration: RunConfiguration,
    run_folder: Path,
    *,
    command: str,
    origin: Origin = UNKNOWN,
    is_restarted: bool = False,
    begins_anew: bool = False,
) -> Summary:
    """Put a run together and carry it out.

    Args:
        configuration: Checked.
        run_folder: An existing folder that this process holds.
        command: The line that repeats the run, for environment.json.
        origin: What the configuration was composed of.
        is_restarted: Whether its processes died before, and were started again by the launcher.
        begins_anew: Whether a run was here that never saved, which this one takes the place of.

    Raises:
        GenlabError: The run failed in a foreseen way.
    """
    device = own_device(choose_device(configuration.device))
    configuration = with_resolved_precision(configuration, device)
    if configuration.num_threads is not None:
        torch.set_num_threads(configuration.num_threads)
    seed_everything(configuration.seed)

    trainer = assembled(configuration, run_folder, device, origin)
    dataset, model = trainer.dataset, trainer.model

    def begin() -> None:
        if begins_anew:
            clear(run_folder, keep=CONFIG_NAME)
        save_configuration(run_folder, configuration, dataset.spec, dataset_fingerprint=dataset.fingerprint)
        save_environment(
            run_folder,
            command=command,
            device=device,
            precision=configuration.settings.precision,
            seed=configuration.seed,
            class_names=dataset.class_names,
        )

    about = banner(configuration, origin, model=model, dataset=dataset, device=device, run_folder=from_here(run_folder))
    _log.info("%s", about)
    _log.debug("%s", yaml.safe_dump(configuration.as_dict(), sort_keys=False, allow_unicode=True).rstrip())
    for warning in model.warnings():
        _log.warning("%s", warning)
    summary = trainer.fit(resume=configuration.resume is not None, is_restarted=is_restarted, begin=begin)
    if not is_first():
        return summary
    measures, baselines = _ledger(trainer)
    if measures:
        checkpoint, step = trainer.tested
        save_evaluation(
            run_folder,
            command=command,
            checkpoint=checkpoint,
            step=step,
            dataset=dataset,
            measures=measures,
            baselines=baselines,
        )
    called = program(to_trust(configuration.as_dict()))
    _log.info("%s", _conclusion(trainer, run_folder, measures, baselines, called=called))
    return summary


def with_resolved_precision(configuration: RunConfiguration, device: torch.device) -> RunConfiguration:
    """Return the configuration with the type that ``trainer.precision=auto`` stands for on the devices of all ranks.

    The run folder keeps the type and not ``auto``, so that a run goes on as it began on any machine.
    """
    precision = configuration.settings.precision
    found = gathered(resolved(precision, device))
    chosen = found[0] if len(set(found)) == 1 else "float32"
    if precision != "auto" and (warning := slowness(precision, device)) is not None:
        _log.warning(warning)
    return replace(configuration, trainer={**configuration.trainer, "precision": chosen})


def assembled(
    configuration: RunConfiguration, run_folder: Path, device: torch.device, origin: Origin = UNKNOWN
) -> Trainer:
    """The trainer of a configuration with its data, model and optimisers; the run folder stays as it is.

    Raises:
        GenlabError: They do not go together, or the data are not at hand.
    """
    with first_before_others():  # a download, or images decoded once
        dataset: Dataset = configuration.bound_dataset.build()
    if configuration.resume is not None:
        run = load_run(configuration.resume)
        run.require_same_data(dataset, allows_other=configuration.allow_other_data)
        run.draft_model(num_bytes=CheckpointFolder(run_folder / "checkpoints").num_bytes)
    model = build_model(configuration, dataset.spec)
    phases = tuple(phase.name for phase in model.phases())
    require_phases(configuration.optimizer, phases)
    with first_before_others():  # a classifier trained once
        class_predictor = class_predictor_for(configuration, dataset, device)

    return Trainer(
        model=model,
        dataset=dataset,
        optimizers={phase: configuration.bound_optimizer(phase).factory() for phase in phases},
        schedule=configuration.bound_schedule,
        settings=configuration.settings,
        run_folder=run_folder,
        device=device,
        seed=configuration.seed,
        hyperparameters=hyperparameters(configuration.as_dict(), origin),
        class_predictor=class_predictor,
        resume_command=resume_command(run_folder, to_trust(configuration.as_dict())),
    )


def class_predictor_for(
    configuration: RunConfiguration, dataset: Dataset, device: torch.device
) -> ClassPredictor | None:
    """The classifier that the watch for collapse counts modes with, if one is asked for.

    Raises:
        ConfigurationError: ``trainer.watch_classifier`` names no run of a classifier of such images, or is ``auto`` for
            data that teach no classes.
        CheckpointError: Its weights cannot be used.
    """
    settings = configuration.settings
    if settings.watch_interval == 0 or settings.watch_classifier is None:
        return None
    if settings.watch_classifier != "auto":
        folder = Path(settings.watch_classifier)
        found = load_classifier(folder, spec=dataset.spec, device=device, key="trainer.watch_classifier")
    elif (reason := why_no_classifier(dataset)) is not None:
        raise ConfigurationError(
            f"trainer.watch_classifier must be null or the run of a classifier, got auto: {reason}"
        )
    else:
        found = reference_classifier(
            dataset,
            configuration.dataset,
            device=device,
            num_threads=configuration.num_threads,
            tell=_log.info,
            train=train,
        )
    num_modes = found.classifier.spec.num_classes
    return ClassPredictor(name=str(found.run_folder), num_modes=num_modes, predict=found.classifier.predict)


def _ledger(trainer: Trainer) -> tuple[list[Entry], list[Entry]]:
    """The measures of the test that ended training, and those of what needs no model; empty without a test."""
    averages, dataset, seed = trainer.test_averages, trainer.dataset, trainer.seed
    weights: Weights = "trained" if trainer.settings.ema_decay is None else "averaged"
    enter = partial(entries_from, dataset=dataset, split="test", seed=seed)
    measures = enter(averages, trainer.model.measures, weights=weights, protocol=trainer.batching.protocol)
    if not (averages and has_likelihood(trainer.model)):
        return measures, []
    found = baseline_averages(dataset, "test", seed=seed, device=trainer.device)
    return measures, enter(found, BASELINE_MEASURES, weights="none")


def _conclusion(
    trainer: Trainer, run_folder: Path, measures: Sequence[Entry], baselines: Sequence[Entry], *, called: str
) -> str:
    """What a run ends with: its test measures beside what needs no model, its pictures, and what to do next."""
    lines = [format_table(measures, baselines)] if measures else []
    folder = from_here(run_folder)
    newest = sorted((folder / "samples").glob("step_*.png"))[-1:]
    lines += [f"pictures: {printable(str(path))}" for path in [*newest, *sorted((folder / "samples").glob("*.gif"))]]
    lines.append(f"{trainer.summary.status} in {trainer.summary.seconds:.0f} s: {folder}")
    if trainer.summary.reason is not None:
        lines.append(trainer.summary.reason)
    if trainer.settings.dry_run:
        lines.append("a dry run saves no checkpoint: leave trainer.dry_run out to train")
    lines += ["next:", *(f"  {called} {command}" for command in _next_commands(trainer, folder))]
    return "\n".join(lines)


def _next_commands(trainer: Trainer, folder: Path) -> Iterator[str]:
    """Yield the commands that work on a run as it has ended."""
    model, place = trainer.model, shlex.quote(str(folder))
    if has_checkpoint(folder):
        if trainer.summary.status == "interrupted":
            yield f"train resume={place}"
        if model.draws_pictures:
            yield f"sample run={place}"
        # Of samples, which a model without a likelihood is judged by, there is more to compare than of images alone.
        least = LEAST_IMAGES if isinstance(model, GenerativeModel) and not has_likelihood(model) else 1
        if trainer.dataset.num_images("test") >= least:
            yield f"evaluate run={place}"
    yield "board" if folder.is_relative_to(RUNS_ROOT) else f"board {place}"


def seed_everything(seed: int) -> None:
    """Seed the generators from which a model draws its initial weights."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
