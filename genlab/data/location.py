"""Where data sets are looked for."""

import os
from pathlib import Path

ROOT_VARIABLE = "GENLAB_DATA"


def user_cache() -> Path:
    """The folder of what can be downloaded or computed again."""
    return Path.home() / ".cache" / "genlab"


def resolve_root(root: str | None) -> Path:
    """The folder that holds the data sets: `root`, else the environment variable GENLAB_DATA, else the user's cache."""
    return Path(root or os.environ.get(ROOT_VARIABLE) or user_cache()).expanduser().absolute()


def describe_root(root: str | None) -> str:
    """The folder and the setting it came from, for error messages."""
    if root:
        setting = "dataset.root"
    elif os.environ.get(ROOT_VARIABLE):
        setting = ROOT_VARIABLE
    else:
        setting = f"the default; neither dataset.root nor {ROOT_VARIABLE} is set"
    return f"{resolve_root(root)} ({setting})"
