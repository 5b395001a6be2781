"""The end of a training run: its test measures as a ledger, its pictures, and the commands to try next."""

import logging
import shlex
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path

from genlab.measures import OF_REAL_IMAGES
from genlab.metrics.baselines import BASELINE_MEASURES, baseline_averages
from genlab.metrics.ledger import Entry, Weights, entries_from, format_table
from genlab.metrics.likelihoods import has_likelihood
from genlab.metrics.quality import LEAST_IMAGES
from genlab.models.base import GenerativeModel
from genlab.paths import from_here, program
from genlab.printing import printable
from genlab.run.folder import has_checkpoint
from genlab.run.names import RUNS_ROOT
from genlab.run.record import EVALUATION_NAME, save_evaluation
from genlab.storage import read_json_if_whole
from genlab.terminal import RESULTS
from genlab.training.trainer import Trainer

_log = logging.getLogger(__name__)


def ledger(trainer: Trainer) -> tuple[list[Entry], list[Entry]]:
    """Return the test measures of a run, and those of baselines without a model; both empty without a test."""
    averages, dataset, seed = trainer.test_averages, trainer.dataset, trainer.seed
    weights: Weights = "trained" if trainer.settings.ema_decay is None else "averaged"
    enter = partial(entries_from, dataset=dataset, split="test", seed=seed)
    measures = enter(averages, trainer.model.measures, weights=weights, protocol=trainer.batching.protocol)
    if not (averages and has_likelihood(trainer.model)):
        return measures, []
    found = baseline_averages(dataset, "test", seed=seed, device=trainer.device)
    return measures, enter(found, BASELINE_MEASURES, weights="none")


def conclude(trainer: Trainer, *, command: str, packages: Collection[str]) -> None:
    """Write evaluation.json where there was a test, and log the last lines of a run.

    Args:
        trainer: The trainer of the run that has ended.
        command: The command line that repeats the run.
        packages: Packages of the user's that are needed to read the run.
    """
    measures, baselines = ledger(trainer)
    if measures:
        _save_ledger(trainer, measures, baselines, command=command, packages=packages)
    folder = from_here(trainer.run_folder)
    newest = sorted((folder / "samples").glob("step_*.png"))[-1:]
    details = [format_table(measures, baselines)] if measures else []
    details += [f"pictures: {printable(str(path))}" for path in [*newest, *sorted((folder / "samples").glob("*.gif"))]]
    if details:
        _log.info("%s", "\n".join(details))
    logging.getLogger(RESULTS).info("%s", "\n".join(_results(trainer, folder)))
    _log.info("%s", "\n".join(("next:", *(f"  {line}" for line in _next_commands(trainer, folder, packages)))))


def _save_ledger(
    trainer: Trainer, measures: list[Entry], baselines: list[Entry], *, command: str, packages: Collection[str]
) -> None:
    """Write evaluation.json, unless `genlab evaluate` has written all of these measures for the same weights."""
    checkpoint, step = trainer.tested
    previous = read_json_if_whole(trainer.run_folder, EVALUATION_NAME)
    entries = [entry for entry in previous.get("measures", []) if isinstance(entry, Mapping)]
    names, measured = {entry.name for entry in measures}, {str(entry.get("name")) for entry in entries}
    fingerprints = (trainer.dataset.fingerprint, trainer.dataset.unreduced.fingerprint)
    is_same = (previous.get("checkpoint"), previous.get("step")) == (checkpoint, step) and all(
        entry.get("dataset_fingerprint") in fingerprints for entry in entries
    )
    if is_same and names <= measured:
        if others := measured - names:
            _log.info("evaluation.json keeps %d further measures of step %d", len(others), step)
        return
    save_evaluation(
        trainer.run_folder,
        command=command,
        checkpoint=checkpoint,
        step=step,
        provenance=trainer.dataset.provenance,
        measures=measures,
        baselines=baselines,
    )
    if others := measured - names:
        again = f"{program(packages)}{str(previous.get('command')).removeprefix('genlab')}"
        _log.warning(
            "evaluation.json is of step %d now, without %d further measures of step %s; to measure them again: %s",
            *(step, len(others), previous.get("step"), printable(again)),
        )


def _results(trainer: Trainer, folder: Path) -> Iterator[str]:
    """Yield the measure of the best checkpoint, the run folder, and remarks."""
    tag, best = trainer.selection.tag, trainer.summary.best
    if tag is not None and best:
        real = best.get(tag.replace("/", f"/{OF_REAL_IMAGES}"))
        beside = "" if real is None else f" (of real images {real:.4g})"
        yield f"best checkpoint: step {best['step']:.0f}, {tag} {best[tag]:.4g}{beside}"
    yield f"{trainer.summary.status} in {trainer.summary.seconds:.0f} s: {folder}"
    if trainer.summary.reason is not None:
        yield trainer.summary.reason
    if trainer.settings.dry_run:
        yield f"a dry run saves no checkpoint; to train: {trainer.resume_command} trainer.dry_run=false"


def _next_commands(trainer: Trainer, folder: Path, packages: Collection[str]) -> Iterator[str]:
    """Yield the commands that can be run on the finished run."""
    model, place, called = trainer.model, shlex.quote(str(folder)), program(packages)
    if has_checkpoint(folder):
        if trainer.summary.status == "interrupted":
            yield f"{called} train resume={place}"
        if model.draws_pictures:
            yield f"{called} sample run={place}"
        # A model without a likelihood is evaluated by its samples, so its next command compares them.
        least = LEAST_IMAGES if isinstance(model, GenerativeModel) and not has_likelihood(model) else 1
        if trainer.dataset.num_images("test") >= least:
            yield f"{called} evaluate run={place}"
    board = f"{program()} board"  # reads no configuration, and needs no trust
    yield board if folder.is_relative_to(RUNS_ROOT) else f"{board} {place}"
