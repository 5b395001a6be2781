"""Classes and functions that a configuration names in ``_target_``.

A trusted configuration may name any importable class or function. A run folder is untrusted: there a target is imported
only if its name lies in a listed package, and accepted only if the object that the name leads to was defined there,
since ``logging.os.system`` is a name in logging. The list grows through the environment variable
``GENLAB_ALLOW=package1,package2`` and never through a configuration.
"""

import importlib
import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from genlab.config.suggestions import nearest
from genlab.errors import ConfigurationError

ALLOW_VARIABLE = "GENLAB_ALLOW"
OWN_PACKAGES = ("genlab.models", "genlab.nn", "genlab.data", "genlab.training.schedules", "genlab.training.loggers")
TORCH_PACKAGES = ("torch.optim", "torch.nn")
OBSERVER_PACKAGES = ("genlab.metrics", "genlab.training")
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)


def find_target(target: Any, key: str, *, is_trusted: bool = True) -> Callable[..., Any]:
    """Return the class or function that a ``_target_`` names.

    Args:
        target: Value of the node's ``_target_``.
        key: Key of the node, for the message.
        is_trusted: False for a configuration that lies in a run folder.

    Raises:
        ConfigurationError: The name leads to nothing, to no class or function, or to something that is not trusted.
    """
    where = f"{key}._target_"
    if not isinstance(target, str) or not _NAME.fullmatch(target):
        raise ConfigurationError(f"{where} must be the dotted name of a class or function, got {target!r}")
    module_name, _, name = target.rpartition(".")
    if not is_trusted and not _is_listed(module_name):
        raise _refusal(target, where)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not _is_inside(module_name, error.name):
            raise
        package = error.name.partition(".")[0]
        is_here = Path(package).is_dir() or Path(f"{package}.py").is_file()
        hint = "; the working directory is not searched: set PYTHONPATH=$PWD" if is_here else ""
        raise ConfigurationError(f"{where}: there is no module {module_name}{hint}") from error
    found = getattr(module, name, None)
    if found is None:
        guess = nearest(name, [each for each, value in vars(module).items() if each[0] != "_" and callable(value)])
        raise ConfigurationError(f"{where}: {module_name} has no {name}{f', did you mean {guess}?' if guess else ''}")
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        raise ConfigurationError(f"{where} must name a class or function, got {target}, a {type(found).__name__}")
    if not is_trusted and not (_is_listed(found.__module__) and _is_of_its_place(found)):
        raise _refusal(f"{target} (which is {found.__module__}.{found.__qualname__})", where)
    return found


def to_trust(node: Any) -> Iterator[str]:
    """Yield the packages of the user's that GENLAB_ALLOW has to list to build these nodes from a run folder."""
    for target in targets_in(node):
        module = target.rpartition(".")[0]
        if not _is_in(module, (*OWN_PACKAGES, *OBSERVER_PACKAGES, *TORCH_PACKAGES)):
            yield next((package for package in _allowed() if _is_inside(module, package)), target.partition(".")[0])


def targets_in(node: Any) -> Iterator[str]:
    """Yield the targets that a configuration names, at any depth."""
    for name, value in node.items() if isinstance(node, Mapping) else ():
        if name == "_target_" and isinstance(value, str):
            yield value
        yield from targets_in(value)


def _is_of_its_place(found: Callable[..., Any]) -> bool:
    """Return True if an object is public and, in a partly trusted package, of a trusted class."""
    if found.__name__.startswith("_") or "." in found.__qualname__:
        return False
    if _is_in(found.__module__, OWN_PACKAGES):
        return True
    if _is_in(found.__module__, OBSERVER_PACKAGES) and not _is_in(found.__module__, _allowed()):
        from genlab.training.observer import Observer

        return inspect.isclass(found) and issubclass(found, Observer)
    if not _is_in(found.__module__, TORCH_PACKAGES):
        return True
    from torch.nn import Module
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    return inspect.isclass(found) and issubclass(found, Module | Optimizer | LRScheduler)


def _is_listed(module_name: str) -> bool:
    return _is_in(module_name, (*OWN_PACKAGES, *OBSERVER_PACKAGES, *TORCH_PACKAGES, *_allowed()))


def _allowed() -> list[str]:
    return [package.strip() for package in os.environ.get(ALLOW_VARIABLE, "").split(",") if package.strip()]


def _is_in(module_name: str, packages: Iterable[str]) -> bool:
    return any(_is_inside(module_name, package) for package in packages)


def _is_inside(module_name: str, package: str) -> bool:
    return module_name == package or module_name.startswith(f"{package}.")


def _refusal(target: str, where: str) -> ConfigurationError:
    return ConfigurationError(
        f"{where} in a run folder must name something of {', '.join(OWN_PACKAGES)}, an observer of genlab or a module, "
        f"optimizer or schedule of torch, got {target}; if you trust this code, set {ALLOW_VARIABLE}=its_package"
    )
