"""Location of the shipped configuration tree."""

from pathlib import Path

import genlab


def config_directory() -> Path:
    """Return ``genlab/configs`` of a wheel, or ``configs`` beside the package in a clone or an editable install.

    Raises:
        RuntimeError: The installation carries no configuration.
    """
    package = Path(genlab.__file__).resolve().parent
    candidates = (package / "configs", package.parent / "configs")
    for candidate in candidates:
        if (candidate / "train.yaml").is_file():
            return candidate
    raise RuntimeError(f"the installation is incomplete: no train.yaml in {' or '.join(map(str, candidates))}")
