"""Which classes and functions a configuration may name in ``_target_``.

A configuration may come from somebody else, so a name alone proves nothing: ``logging.os.system`` is a name in
logging. A target is imported only if its name lies in an allowed package, and accepted only if the object that the
name leads to is a public class or function that was defined there. The list grows through the environment variable
``GENLAB_ALLOW=package1,package2`` and never through a configuration.
"""

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from genlab.composition.suggestions import nearest
from genlab.errors import ConfigurationError

ALLOW_VARIABLE = "GENLAB_ALLOW"
OWN_PACKAGES = ("genlab.models", "genlab.nn", "genlab.data", "genlab.training.schedules")
ACTIVATIONS = (
    *("CELU", "ELU", "GELU", "Hardswish", "Identity", "LeakyReLU", "Mish", "PReLU", "ReLU", "ReLU6", "SELU"),
    *("Sigmoid", "SiLU", "Softplus", "Softsign", "Tanh"),
)
_TORCH_MODULES = ("torch.optim", "torch.optim.lr_scheduler")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)+")


def find_target(target: Any, key: str) -> Callable[..., Any]:
    """The class or function that a ``_target_`` names.

    Args:
        target: Value of the node's ``_target_``.
        key: Key of the node, for the message.

    Raises:
        ConfigurationError: The name is not allowed, or leads to nothing or to something that is not allowed.
    """
    where = f"{key}._target_"
    if not isinstance(target, str) or not _NAME.fullmatch(target):
        raise ConfigurationError(f"{where} must be the dotted public name of a class or function, got {target!r}")
    module_name, _, name = target.rpartition(".")
    if module_name == "torch.nn":
        return _activation(name, where)
    if module_name in _TORCH_MODULES:
        return _torch_class(module_name, name, where)
    packages = [package for package in _allowed_packages() if _is_inside(module_name, package)]
    if not packages:
        raise _refusal(target, where)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not _is_inside(module_name, error.name):
            raise
        raise ConfigurationError(f"{where}: there is no module {module_name}") from error
    found = getattr(module, name, None)
    if found is None:
        raise ConfigurationError(f"{where}: {module_name} has no {name}{_did_you_mean(name, _public_names(module))}")
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        raise ConfigurationError(f"{where} must name a class or function, got {target}, a {type(found).__name__}")
    if not any(_is_inside(found.__module__, package) for package in packages) or found.__qualname__ != name:
        raise _refusal(f"{target} (which is {found.__module__}.{found.__qualname__})", where)
    return found


def _activation(name: str, where: str) -> Callable[..., Any]:
    import torch.nn

    if name not in ACTIVATIONS:
        guess = _did_you_mean(name, ACTIVATIONS)
        raise ConfigurationError(f"{where}: of torch.nn only activations can be named{guess}, got torch.nn.{name}")
    return getattr(torch.nn, name)  # type: ignore[no-any-return]


def _torch_class(module_name: str, name: str, where: str) -> Callable[..., Any]:
    import torch.optim

    base = torch.optim.Optimizer if module_name == "torch.optim" else torch.optim.lr_scheduler.LRScheduler
    module = sys.modules[module_name]
    valid = [n for n, value in vars(module).items() if inspect.isclass(value) and issubclass(value, base)]
    if name not in valid or name in ("Optimizer", "LRScheduler"):
        raise ConfigurationError(f"{where}: {module_name} has no {base.__name__} {name}{_did_you_mean(name, valid)}")
    return getattr(module, name)  # type: ignore[no-any-return]


def allows_own_code() -> bool:
    """Whether the user trusts code that is not ours, of which we know nothing."""
    return bool(os.environ.get(ALLOW_VARIABLE))


def _allowed_packages() -> tuple[str, ...]:
    own = os.environ.get(ALLOW_VARIABLE, "")
    return OWN_PACKAGES + tuple(package.strip() for package in own.split(",") if package.strip())


def _is_inside(module_name: str, package: str) -> bool:
    return module_name == package or module_name.startswith(f"{package}.")


def _public_names(module: Any) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def _did_you_mean(name: str, valid: Any) -> str:
    guess = nearest(name, valid)
    return f", did you mean {guess}?" if guess else ""


def _refusal(target: str, where: str) -> ConfigurationError:
    return ConfigurationError(
        f"{where} must name something of {', '.join(OWN_PACKAGES)}, an optimizer or scheduler of torch or an "
        f"activation of torch.nn, got {target}; for code of your own that you trust, set {ALLOW_VARIABLE}=its_package"
    )
