"""`genlab export`: a trained model as a folder to hand on: safetensors weights, plain configuration, model card."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from genlab.comparison.card import as_card
from genlab.comparison.runs import read_run
from genlab.config.fields import reader_of
from genlab.config.schema import RunConfiguration
from genlab.config.targets import to_trust
from genlab.launch.contract import JobContext
from genlab.models.base import GenerativeModel, Model
from genlab.run.checkpoint import model_fingerprint
from genlab.run.environment import save_class_names, saved_class_names
from genlab.run.exported import Origin, save_weights
from genlab.run.loading import load_trained
from genlab.run.names import WEIGHTS_NAME, find_run, is_export
from genlab.run.record import save_configuration
from genlab.storage import replace_atomically, require_writable, whole_folder

CARD_NAME = "README.md"


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """The keys of configs/export.yaml.

    Raises:
        ValueError: There is no such run, or the folder is not empty.
    """

    run: str
    checkpoint: Literal["best", "last"]
    out: str | None

    @property
    def target(self) -> Path:
        """The folder to write."""
        return Path(self.run) / "export" if self.out is None else Path(self.out)

    def __post_init__(self) -> None:
        if is_export(find_run(self.run)):
            raise ValueError(f"run must be the folder of a training run, got {self.run}, which is an export")
        if self.target.exists() and not (self.target.is_dir() and not any(self.target.iterdir())):
            raise ValueError(f"out must be a new or empty folder, got {self.target}; name another")


read = reader_of(ExportSettings)


def run(settings: ExportSettings, context: JobContext) -> None:
    """Load the model, write the export and print its location.

    Raises:
        CheckpointError: No checkpoint can be used.
        StorageError: The folder cannot be written.
    """
    del context
    target = settings.target
    require_writable(target)
    trained = load_trained(Path(settings.run), checkpoint=settings.checkpoint, device=torch.device("cpu"))
    origin = Origin(
        step=str(trained.step),
        checkpoint=trained.checkpoint,
        weights=trained.weights,
        model_fingerprint=model_fingerprint(trained.model),
    )
    described = read_run(trained.run.folder, name=trained.run.folder.name)
    configuration = _without_own_views(trained.run.configuration)
    with whole_folder(target) as folder:
        digest = save_weights(folder, trained.model.state_dict(), origin)
        packages = sorted(set(to_trust(configuration.as_dict())))
        card = as_card(
            described,
            trained.run.spec,
            origin,
            python=_python(trained.model),
            commands=("sample", "evaluate") if trained.model.draws_pictures else ("evaluate",),
            digest=digest,
            packages=packages,
        )
        replace_atomically(folder / CARD_NAME, card.encode())
        save_configuration(
            folder,
            configuration,
            trained.run.spec,
            dataset_fingerprint=trained.run.dataset_fingerprint,
        )
        if getattr(trained.model, "num_classes", 0) and (class_names := saved_class_names(trained.run.folder)):
            save_class_names(folder, class_names)  # by which samples are asked for
    size = (target / WEIGHTS_NAME).stat().st_size
    print(f"{settings.run}: {trained}, {size:,} bytes")
    print(f"SHA-256 of {WEIGHTS_NAME}: {digest}")
    if packages:
        print(f"it needs {', '.join(packages)}, which the export does not contain; {CARD_NAME} says so")
    print(f"written to {target}; read {target / CARD_NAME}, and fill in its licence before you publish it")


def _without_own_views(configuration: RunConfiguration) -> RunConfiguration:
    """Return the configuration without loggers and observers of the user's, which its model does not need."""
    views = {
        group: {key: node for key, node in getattr(configuration, group).items() if not [*to_trust({key: node})]}
        for group in ("logger", "observer")
    }
    return configuration.changed(**views)


def _python(model: Model) -> str:
    """Return the lines that load a model and use it."""
    if isinstance(model, GenerativeModel):
        return 'import genlab\n\nmodel = genlab.load("THIS_FOLDER")\nimages = model.sample(16)'
    kind = type(model)
    lines = (
        "import genlab",
        f"from {kind.__module__} import {kind.__name__}",
        "",
        f'model = genlab.load("THIS_FOLDER", kind={kind.__name__})',
    )
    return "\n".join(lines)
