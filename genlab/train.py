"""`genlab train`: from a configuration to a trained model. This is the only module that combines all parts."""

import logging
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from genlab.config.consequences import require_effect
from genlab.config.devices import choose_device
from genlab.config.parts import with_replaced_parts
from genlab.config.schema import RunConfiguration, read_run_configuration, require_phases
from genlab.config.targets import to_trust
from genlab.data.dataset import Dataset
from genlab.errors import ConfigurationError, StoppedBySignal
from genlab.launch.contract import JobContext
from genlab.launch.devices import processes_on
from genlab.launch.outcome import finalise_after_rank_0
from genlab.launch.processes import Processes
from genlab.launch.resumption import from_checkpoint, interruption, origin_of
from genlab.launch.worker import this_worker
from genlab.parallel.collectives import is_first
from genlab.parallel.processes import first_before_others, gathered, joined, own_device
from genlab.reference_classifier import class_predictor
from genlab.reference_features import QUALITY, quality_observers, with_features
from genlab.run.banner import announce
from genlab.run.changes import resumed, with_one_length
from genlab.run.checkpoint import CheckpointFolder
from genlab.run.conclusion import conclude
from genlab.run.environment import save_environment, saved_init_from
from genlab.run.folder import clear, is_dry_run, locked, read_summary, resume_command
from genlab.run.hyperparameters import UNKNOWN, Origin, hyperparameters
from genlab.run.loading import initial_weights
from genlab.run.names import CONFIG_NAME
from genlab.run.record import build_model, load_run, save_configuration, with_absolute_paths
from genlab.training.compilation import choose
from genlab.training.phases import phases_of
from genlab.training.precision import precision_of_all_ranks, threads_for
from genlab.training.randomness import seed_everything
from genlab.training.summary import Summary
from genlab.training.trainer import Trainer

_log = logging.getLogger(__name__)


def read(values: Mapping[str, Any], overrides: Sequence[str]) -> RunConfiguration:
    """Return the checked configuration of a new run, or of the run that ``resume`` names.

    Raises:
        ConfigurationError: Something in it does not fit.
    """
    if values.get("resume") is not None:
        configuration = resumed(load_run(str(values["resume"])), overrides)
    elif values.get("allow_other_data"):
        raise ConfigurationError("allow_other_data must be false without resume: a new run may have any data")
    else:
        values = with_one_length(with_replaced_parts(values, overrides), overrides)
        configuration = read_run_configuration(values)
    if (worker := this_worker()) is None or worker.is_first:
        for logger in configuration.loggers.values():
            logger.require()
    require_effect(configuration.as_dict(), overrides)
    return with_absolute_paths(configuration)


def processes(configuration: RunConfiguration) -> Processes:
    """Return the processes of the run on this machine.

    Raises:
        ConfigurationError: The machine has fewer devices.
    """
    settings = configuration.settings
    return processes_on(
        configuration.device, num=settings.devices, key="trainer.devices", max_restarts=settings.max_restarts
    )


def run(configuration: RunConfiguration, context: JobContext) -> None:
    """Train in the run folder, which is locked meanwhile, together with the other processes of the run."""
    worker = this_worker()
    previous: Mapping[str, Any] = {}
    try:
        with joined(own_device(choose_device(configuration.device))), ExitStack() as locks:
            # Several processes share one run folder; rank 0 names it, and locks it for all.
            is_resumed = configuration.resume is not None or context.is_restarted
            if is_first():
                locks.enter_context(locked(context.run_folder, is_resumed=is_resumed))
                if is_resumed:
                    configuration = from_checkpoint(configuration, context)
            origin = origin_of(context)
            folder, resume = gathered((str(context.run_folder), configuration.resume))[0]
            if worker is not None:
                worker.remember(Path(folder))
            previous = {} if context.is_restarted else read_summary(Path(folder))
            train(
                configuration.changed(resume=resume),
                Path(folder),
                command=context.command,
                origin=origin,
                is_restarted=context.is_restarted,
                begins_anew=resume is None and (is_resumed or is_dry_run(Path(folder))),
            )
    except BaseException as error:
        if worker is not None and not worker.is_first and (run_folder := worker.remembered()) is not None:
            finalise_after_rank_0(run_folder, previous=previous)
        if isinstance(error, KeyboardInterrupt):  # outside of the steps, which end with a save
            raise StoppedBySignal(interruption(context.run_folder), signal.SIGINT) from error
        raise


def train(
    configuration: RunConfiguration,
    run_folder: Path,
    *,
    command: str,
    origin: Origin = UNKNOWN,
    is_restarted: bool = False,
    begins_anew: bool = False,
) -> Summary:
    """Build a run and train it.

    Args:
        configuration: Checked.
        run_folder: An existing folder that this process has locked.
        command: The command line that repeats the run, for environment.json.
        origin: The choices and overrides of the configuration.
        is_restarted: True if its processes died before and were restarted by the launcher.
        begins_anew: True if this run replaces one in the same folder that never saved, such as a dry run.

    Raises:
        GenlabError: The run failed in an expected way.
    """
    device = own_device(choose_device(configuration.device))
    precision = precision_of_all_ranks(configuration.settings.precision, device)
    configuration = configuration.changed(trainer={**configuration.trainer, "precision": precision})
    if configuration.num_threads == "auto":
        configuration = configuration.changed(num_threads=threads_for(precision, device))
    if configuration.threads is not None:
        torch.set_num_threads(configuration.threads)
    seed_everything(configuration.seed)
    trainer = build_trainer(configuration, run_folder, device, origin)
    configuration = configuration.changed(trainer=asdict(trainer.settings))
    dataset = trainer.dataset
    beginning: Mapping[str, Any] | None = None
    if configuration.resume is None and configuration.init_from is not None:
        source = Path(configuration.init_from)
        trainer.state.initial_weights, beginning = initial_weights(source, trainer.model, device=device)
        step = saved_init_from(run_folder).get("step") if begins_anew else None
        if isinstance(step, int) and step != beginning["step"]:
            _log.warning(
                "init_from was at step %d when the run in this folder began, and is at step %d", step, beginning["step"]
            )

    def begin() -> None:
        if begins_anew:
            clear(run_folder, keep=CONFIG_NAME)
        kept = with_features(configuration, trainer.observers.get(QUALITY))
        save_configuration(run_folder, kept, dataset.spec, dataset_fingerprint=dataset.fingerprint)
        save_environment(
            run_folder,
            command=command,
            device=device,
            precision=precision,
            seed=configuration.seed,
            class_names=dataset.class_names,
            init_from=beginning,
        )

    announce(configuration, origin, trainer)
    summary = trainer.fit(resume=configuration.resume is not None, is_restarted=is_restarted, begin=begin)
    if is_first():
        conclude(trainer, command=command, packages=[*to_trust(configuration.as_dict())])
    return summary


def build_trainer(
    configuration: RunConfiguration, run_folder: Path, device: torch.device, origin: Origin = UNKNOWN
) -> Trainer:
    """Return the trainer of a configuration with its data, model and optimisers; the run folder is not changed.

    Raises:
        GenlabError: The parts are not compatible, or the data are missing.
    """
    with first_before_others():  # a download, or images decoded once
        dataset: Dataset = configuration.bound_dataset.build()
    if configuration.resume is not None:
        run = configuration.saved_run or load_run(configuration.resume)
        run.require_same_data(dataset, allows_other=configuration.allow_other_data)
    model = build_model(configuration, dataset.spec)
    repeats = {phase.name: phase.repeats for phase in phases_of(model)}
    require_phases(configuration.optimizer, tuple(repeats))
    num_images, most = dataset.num_images("train"), max(repeats.values())
    seen_at = (0, 0) if configuration.resume is None else CheckpointFolder(run_folder / "checkpoints").seen_at
    settings = configuration.settings.with_both_lengths(num_images=num_images, repeats=most, seen_at=seen_at)
    settings.require_reach(seen_at[0])
    compiles, why = choose(model, settings, device)
    settings = replace(settings, compile=compiles)
    configuration = configuration.changed(trainer=asdict(settings))
    with first_before_others():  # a classifier trained once
        predictor = class_predictor(configuration, dataset, device=device, train=train)
    measured = (configuration, model, dataset)
    quality = quality_observers(*measured, run_folder=run_folder, device=device, typed=origin.overrides, train=train)
    trainer = Trainer(
        model=model,
        dataset=dataset,
        optimizers={phase: configuration.bound_optimizer(phase).factory() for phase in repeats},
        schedule=configuration.bound_schedule,
        settings=settings,
        run_folder=run_folder,
        device=device,
        seed=configuration.seed,
        hyperparameters=hyperparameters(configuration.as_dict(), origin),
        loggers=configuration.loggers if is_first() else {},
        class_predictor=predictor,
        observers={**quality, **{key: bound.factory() for key, bound in configuration.bound_observers.items()}},
        resume_command=resume_command(run_folder, to_trust(configuration.as_dict())),
    )
    trainer.why_compiled = why
    return trainer
