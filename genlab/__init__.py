"""genlab: train, sample, measure and compare the classic image generative models.

Public here: ``train`` returns a ``Run``, ``load`` a trained model; ``list_models``, ``list_datasets`` and
``list_experiments`` tell what there is. Nothing heavy is imported before one of them is used.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genlab.api import Run, list_datasets, list_experiments, list_models, train
    from genlab.run.loading import load
else:

    def __getattr__(name: str) -> Any:
        """Import torch only when it is needed: ``genlab --help`` must answer at once."""
        if name in ("errors", "train"):
            return import_module(f"genlab.{name}")
        if name in _MODULES:
            return getattr(import_module(_MODULES[name]), name)
        hint = f"; genlab.list_{name}() lists them" if f"list_{name}" in __all__ else ""
        raise AttributeError(f"module 'genlab' has no attribute {name!r}{hint}")


__all__ = ["Run", "__version__", "list_datasets", "list_experiments", "list_models", "load", "train"]
__version__ = "0.2.0.dev0"
_MODULES = {name: "genlab.api" for name in ("Run", "list_datasets", "list_experiments", "list_models")}
_MODULES["load"] = "genlab.run.loading"


def __dir__() -> list[str]:
    return sorted(__all__)


class _Train(ModuleType):
    # The module ``genlab.train``, which can be called as the function :func:`genlab.api.train`, and has its help.

    @property
    def __doc__(self) -> Any:  # type: ignore[override]
        return import_module("genlab.api").train.__doc__

    def __reduce__(self) -> Any:
        """Let the function be sent to other processes, as functions are."""
        return import_module, (self.__name__,)

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        """Call the function."""
        return import_module("genlab.api").train(*arguments, **settings)

    @property
    def __signature__(self) -> Any:
        """The signature of the function, for help in editors and notebooks."""
        return import_module("inspect").signature(import_module("genlab.api").train)


class _Package(ModuleType):
    """This package, which makes its module ``train`` callable when it is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "train" and type(value) is ModuleType:
            value.__class__ = _Train
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
