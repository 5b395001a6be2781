"""genlab: train, sample, measure and compare the classic image generative models.

``genlab.load(RUN)`` gives a trained model back; everything else is the command line or the modules themselves.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genlab.run.loading import load

__all__ = ["__version__", "load"]
__version__ = "0.2.0.dev0"


def __getattr__(name: str) -> Any:
    """Import torch only when a model is asked for: ``genlab --help`` must answer at once."""
    if name == "load":
        from genlab.run.loading import load

        return load
    raise AttributeError(f"module 'genlab' has no attribute {name!r}")
