"""Objects from nodes of a configuration, in place of ``hydra.utils.instantiate``, for the same YAML.

A node is a mapping with ``_target_``; its other keys are keyword arguments, in which further nodes may stand.
:func:`bind` validates a node, and every node inside it, against the signatures of their targets before anything is
loaded; :meth:`Bound.build` makes the objects. ``_partial_: true`` leaves arguments open and gives a
``functools.partial``. Arguments that exist only at run time (a measured ImageSpec, the parameters of a model) are
passed by the caller.
"""

import functools
import inspect
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import InstanceOf, ValidationError

from genlab.config.fields import adapter, describe, fit, join
from genlab.config.suggestions import suggestion
from genlab.config.targets import find_target
from genlab.errors import ConfigurationError, GenlabError
from genlab.printing import shown

TARGET = "_target_"
_GROUPS = {"model.techniques": " (technique=NAME, for GANs)"}
"""The keys that a group of another name sets, and how it is typed."""
PARTIAL = "_partial_"
_HYDRA_ONLY = ("_args_", "_convert_", "_recursive_")
_PLAIN = (int, float, str, bool, NoneType, object, Any)


@dataclass(frozen=True)
class Bound:
    """A target with validated arguments; nothing has been called yet."""

    target: Callable[..., Any]
    arguments: Mapping[str, Any]
    """Plain values, in which a :class:`Bound` stands for each node."""
    key: str
    is_partial: bool = False

    def build(self, **run_time: Any) -> Any:
        """Call the target with the node's values and the run-time arguments.

        Raises:
            ConfigurationError: The target refused a value.
        """
        try:
            return self.factory()(**run_time)
        except GenlabError:
            raise
        except ValueError as error:
            # Our own constructors name the full key; torch's do not.
            message = str(error)
            named = message if message.startswith(self.key.split(".")[0]) else f"{self.key}: {message}"
            raise ConfigurationError(named) from error

    def factory(self) -> Callable[..., Any]:
        """Return the target with the node's values filled in: a plain ``functools.partial``."""
        return functools.partial(self.target, **{name: _built(value) for name, value in self.arguments.items()})


def bind(
    node: Any, key: str, *, run_time: Collection[str] = (), expects: type | None = None, is_trusted: bool = True
) -> Bound:
    """Validate a node and every node inside it against the signatures of their targets; nothing is called.

    Args:
        node: Plain data with ``_target_``.
        key: Key of the node, for messages.
        run_time: Arguments of the outermost target that the caller will supply.
        expects: What the outermost target must be a subclass of, or be annotated to return.
        is_trusted: The user typed or named it; what a run folder says may only name what
            :func:`genlab.config.targets.find_target` lists.

    Raises:
        ConfigurationError: A target is refused, or an argument is unknown, missing or of the wrong type.
    """
    if not isinstance(node, Mapping) or TARGET not in node:
        raise ConfigurationError(f"{key} must be a node with {TARGET}, got {shown(node, in_quotes=True)}")
    target = find_target(node[TARGET], key, is_trusted=is_trusted)
    made = _made_by(target)
    if expects is not None and not (inspect.isclass(made) and issubclass(made, expects)):
        raise ConfigurationError(
            f"{key}.{TARGET} must name a {expects.__name__}, or a function annotated to return one, "
            f"got {target.__module__}.{target.__qualname__}"
        )
    if inspect.isclass(target) and inspect.isabstract(target):
        missing = ", ".join(sorted(getattr(target, "__abstractmethods__")))  # noqa: B009 - unknown to the type checker
        raise ConfigurationError(f"{key}.{TARGET} must name a whole class: {target.__qualname__} lacks {missing}")
    for name in _HYDRA_ONLY:
        if name in node:
            raise ConfigurationError(f"{key}.{name} has no effect here; write every argument as a key of {key}")
    is_partial = fit(node.get(PARTIAL, False), bool, f"{key}.{PARTIAL}")
    given = {str(name): value for name, value in node.items() if name not in (TARGET, PARTIAL)}
    parameters = parameters_of(target)
    _require_known_names(target, parameters, given, key, run_time)
    if run_time or not is_partial:
        _require_complete(target, parameters, {*given, *run_time}, key)
    arguments = {
        name: _bind_value(value, _hint(parameters.get(name)), join(key, name), is_trusted=is_trusted)
        for name, value in given.items()
    }
    return Bound(target, arguments, key, is_partial)


def build(node: Any, key: str, *, expects: type | None = None, **run_time: Any) -> Any:
    """Bind a node that the user named and build it.

    Raises:
        ConfigurationError: The node does not bind, or its target refused a value.
    """
    return bind(node, key, run_time=tuple(run_time), expects=expects).build(**run_time)


def parameters_of(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters of a target by name, their annotations evaluated where that is possible."""
    if getattr(getattr(target, "__init__", None), "__module__", "") == "torch.nn.modules.module":
        return {}  # nn.Module's own, which takes any name and refuses it with a TypeError
    try:
        signature = inspect.signature(target, eval_str=True)
    except (NameError, TypeError):
        # An annotation that cannot be evaluated is not checked; its name still is.
        signature = inspect.signature(target)
    return dict(signature.parameters)


def is_keyword(parameter: inspect.Parameter) -> bool:
    """Return True if an argument can be passed by the name of this parameter."""
    return parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)


def takes_any_name(parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Return True if arguments of any name can be passed."""
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())


def _bind_value(value: Any, hint: Any, key: str, *, is_trusted: bool) -> Any:
    if not _holds_nodes(value):
        return fit(value, hint, key)
    bound = _bind_inside(value, key, is_trusted=is_trusted)
    try:
        adapter(of_instances(hint)).validate_python(_stand_ins(bound), strict=False)
    except ValidationError as error:
        raise _misplaced(bound, hint, key, error) from None
    return bound


def _bind_inside(value: Any, key: str, *, is_trusted: bool) -> Any:
    if isinstance(value, Mapping):
        if TARGET in value:
            return bind(value, key, is_trusted=is_trusted)
        return {
            str(name): _bind_inside(item, join(key, str(name)), is_trusted=is_trusted) for name, item in value.items()
        }
    if isinstance(value, list):
        return [_bind_inside(item, f"{key}[{index}]", is_trusted=is_trusted) for index, item in enumerate(value)]
    return fit(value, Any, key)


def _misplaced(value: Any, hint: Any, key: str, error: ValidationError) -> ConfigurationError:
    """Return the error of the first value of the wrong type, named by its full key."""
    for part in error.errors()[0]["loc"]:
        if isinstance(value, Mapping) and part in value:
            value, hint, key = value[str(part)], _hint_inside(hint), join(key, str(part))
        elif isinstance(value, list) and isinstance(part, int):
            value, hint, key = value[part], _hint_inside(hint), f"{key}[{part}]"
    if not isinstance(value, Bound):
        return ConfigurationError(f"{key} must be {describe(hint)}, got {shown(value, in_quotes=True)}")
    wanted = " or ".join(part.__name__ for part in _classes_of(hint)) or describe(hint)
    if value.is_partial:
        return ConfigurationError(f"{key}.{PARTIAL} must be false: a finished {wanted} stands here")
    return ConfigurationError(
        f"{key}.{TARGET} must name a {wanted}, or a function annotated to return one, "
        f"got {value.target.__module__}.{value.target.__qualname__}"
    )


def _made_by(target: Callable[..., Any]) -> Any:
    """Return the class of the object that a target makes, or its return annotation."""
    return target if inspect.isclass(target) else inspect.signature(target).return_annotation


def _stand_ins(value: Any) -> Any:
    """Return uninitialised instances of the classes that will be built."""
    if isinstance(value, Bound):
        made = _made_by(value.target)
        if value.is_partial or not inspect.isclass(made):
            return value.target
        concrete: Any = type(made.__name__, (made,), {"__repr__": object.__repr__})
        concrete.__abstractmethods__ = frozenset()
        base = next(kind for kind in (tuple, list, dict, object) if issubclass(made, kind))
        return base.__new__(concrete)
    if isinstance(value, Mapping):
        return {name: _stand_ins(item) for name, item in value.items()}
    return [_stand_ins(item) for item in value] if isinstance(value, list) else value


def of_instances(hint: Any) -> Any:
    """Return an annotation in which every class of genlab accepts instances only."""
    arguments = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return functools.reduce(operator.or_, (of_instances(part) for part in arguments))
    if inspect.isclass(hint) and not arguments and hint not in _PLAIN:
        return Annotated[hint, InstanceOf()]  # type: ignore[type-arg]
    if get_origin(hint) in (tuple, list, dict) or getattr(get_origin(hint), "__module__", "") == "collections.abc":
        inner = tuple(part if part is Ellipsis else of_instances(part) for part in arguments)
        return hint if get_origin(hint) is Callable else get_origin(hint)[inner]
    return hint


def _classes_of(hint: Any) -> list[type]:
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return [part for part in parts if inspect.isclass(part) and part not in _PLAIN]


def _hint_inside(hint: Any) -> Any:
    """Return the annotation of a container's values."""
    arguments = [part for part in get_args(hint) if part is not Ellipsis]
    return arguments[-1] if arguments else Any


def _built(value: Any) -> Any:
    if isinstance(value, Bound):
        return value.factory() if value.is_partial else value.build()
    if isinstance(value, Mapping):
        return {name: _built(item) for name, item in value.items()}
    return [_built(item) for item in value] if isinstance(value, list) else value


def _require_known_names(
    target: Callable[..., Any],
    parameters: Mapping[str, inspect.Parameter],
    arguments: Mapping[str, Any],
    key: str,
    run_time: Collection[str],
) -> None:
    if takes_any_name(parameters):
        return
    named = {name for name, parameter in parameters.items() if is_keyword(parameter)}
    from_configuration = sorted(named - set(run_time))
    for name in arguments:
        if name in run_time:
            raise ConfigurationError(f"{join(key, name)} is supplied by the program; remove it from the configuration")
        if name not in named:
            tail = suggestion(name, from_configuration, kind="arguments")
            source = _GROUPS.get(join(key, name), "")
            raise ConfigurationError(f"{join(key, name)}{source} is not an argument of {target.__name__}; {tail}")
    for name in run_time:
        if name not in named:
            raise ConfigurationError(f"{key}: {target.__name__} cannot stand here, for it takes no argument '{name}'")


def _require_complete(
    target: Callable[..., Any], parameters: Mapping[str, inspect.Parameter], supplied: Collection[str], key: str
) -> None:
    for name, parameter in parameters.items():
        if is_keyword(parameter) and parameter.default is parameter.empty and name not in supplied:
            raise ConfigurationError(f"{join(key, name)} is missing: {target.__name__} needs it")


def _hint(parameter: inspect.Parameter | None) -> Any:
    unchecked = parameter is None or parameter.annotation is parameter.empty or isinstance(parameter.annotation, str)
    return Any if unchecked else parameter.annotation  # type: ignore[union-attr]


def _holds_nodes(value: Any) -> bool:
    if isinstance(value, Mapping):
        return TARGET in value or any(_holds_nodes(item) for item in value.values())
    return isinstance(value, list) and any(_holds_nodes(item) for item in value)
