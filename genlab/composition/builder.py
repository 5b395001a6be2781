"""Objects from nodes of a configuration, in place of ``hydra.utils.instantiate``, for the same YAML.

A node is a mapping with ``_target_``; its other keys are keyword arguments, in which further nodes may stand.
:func:`check` binds all of them to the signatures of what they name before anything is loaded; :func:`build` makes the
plain objects. ``_partial_: true`` leaves arguments open and gives a ``functools.partial``. Arguments that exist only at
run time (a measured ImageSpec, the parameters of a model) are named by the caller.
"""

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from types import UnionType
from typing import Any, get_args, get_origin

from genlab.composition.fields import fit, join
from genlab.composition.suggestions import way_out
from genlab.composition.targets import find_target
from genlab.errors import ConfigurationError, GenlabError

TARGET = "_target_"
PARTIAL = "_partial_"
_HYDRA_ONLY = ("_args_", "_convert_", "_recursive_")


def check(node: Any, key: str, *, run_time: Collection[str] = (), expects: type | None = None) -> int:
    """Bind a node and every node inside it to the signatures of their targets; nothing is called.

    Args:
        node: Plain data with ``_target_``.
        key: Key of the node, for messages.
        run_time: Arguments of the outermost target that the caller will supply.
        expects: What the outermost target must be a subclass of, or be annotated to return.

    Returns:
        How many nodes were bound.

    Raises:
        ConfigurationError: A target is refused, or an argument is unknown, missing or of the wrong type.
    """
    _require_node(node, key)
    target = find_target(node[TARGET], key)
    if expects is not None:
        _require_kind(target, expects, key)
    arguments = _arguments(node, key)
    parameters = _parameters(target)
    _require_known_names(target, parameters, arguments, key, run_time)
    if run_time or not _is_partial(node, key):
        _require_complete(target, parameters, {*arguments, *run_time}, key)
    num_bound = 1
    for name, value in arguments.items():
        full_key = join(key, name)
        if _holds_nodes(value):
            num_bound += _check_inside(value, full_key, _hint(parameters.get(name)))
        else:
            fit(value, _hint(parameters.get(name)), full_key)
    return num_bound


def build(node: Mapping[str, Any], key: str, *, expects: type | None = None, **run_time: Any) -> Any:
    """What a node describes: its target called with the node's values and the run-time arguments.

    Raises:
        ConfigurationError: The node does not bind, or its target refused a value.
    """
    check(node, key, run_time=tuple(run_time), expects=expects)
    return _call(key, bind(node, key), **run_time)


def bind(node: Mapping[str, Any], key: str) -> Callable[..., Any]:
    """The target of a checked node with the node's values filled in: a plain ``functools.partial``."""
    target = find_target(node[TARGET], key)
    parameters = _parameters(target)
    filled = {}
    for name, value in _arguments(node, key).items():
        full_key = join(key, name)
        is_nested = _holds_nodes(value)
        built = _build_inside(value, full_key) if is_nested else value
        filled[name] = fit(built, _hint(parameters.get(name)), full_key)
    return functools.partial(target, **filled)


def accepted(node: Mapping[str, Any], key: str, names: Collection[str]) -> list[str]:
    """Those of the given run-time arguments that the node's target takes."""
    parameters = _parameters(find_target(node[TARGET], key))
    return [name for name in names if name in parameters]


def _build_inside(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        if TARGET not in value:
            return {name: _build_inside(item, join(key, str(name))) for name, item in value.items()}
        factory = bind(value, key)
        return factory if _is_partial(value, key) else _call(key, factory)
    if isinstance(value, list):
        return [_build_inside(item, f"{key}[{index}]") for index, item in enumerate(value)]
    return value


def _check_inside(value: Any, key: str, hint: Any = Any) -> int:
    if isinstance(value, Mapping):
        if TARGET in value:
            expects = _expected_class(hint)
            if expects is None:
                _require_class(find_target(value[TARGET], key), key)
            elif _is_partial(value, key):
                raise ConfigurationError(f"{key}.{PARTIAL} must be false: a finished {expects.__name__} stands here")
            return check(value, key, expects=expects)
        of_values = get_args(hint)[1] if len(get_args(hint)) == 2 and get_origin(hint) is Mapping else Any
        return sum(_check_inside(item, join(key, str(name)), of_values) for name, item in value.items())
    if isinstance(value, list):
        return sum(_check_inside(item, f"{key}[{index}]") for index, item in enumerate(value))
    fit(value, hint, key)
    return 0


def _expected_class(hint: Any) -> type | None:
    """The one class that an annotation asks for, None beside it allowed; None where it asks for none in particular."""
    parts = [part for part in get_args(hint) if part is not type(None)] if get_origin(hint) is UnionType else [hint]
    (only,) = parts if len(parts) == 1 else (Any,)
    return only if isinstance(only, type) and only not in (object, Any) else None


def _require_kind(target: Callable[..., Any], expects: type, key: str) -> None:
    """Not every function of an allowed package is a part: one that downloads a file is none."""
    made = target if inspect.isclass(target) else inspect.signature(target).return_annotation
    if not (inspect.isclass(made) and issubclass(made, expects)):
        raise ConfigurationError(
            f"{key}.{TARGET} must name a {expects.__name__}, or a function annotated to return one, "
            f"got {target.__module__}.{target.__qualname__}"
        )


def _require_class(target: Callable[..., Any], key: str) -> None:
    if not inspect.isclass(target):
        raise ConfigurationError(
            f"{key}.{TARGET} must name a class here, got the function {target.__module__}.{target.__qualname__}"
        )


def _call(key: str, factory: Callable[..., Any], **run_time: Any) -> Any:
    try:
        return factory(**run_time)
    except GenlabError:
        raise
    except ValueError as error:
        # Our own constructors name the full key; torch's do not.
        message = str(error)
        raise ConfigurationError(message if message.startswith(key.split(".")[0]) else f"{key}: {message}") from error


def _require_node(node: Any, key: str) -> None:
    if not isinstance(node, Mapping) or TARGET not in node:
        raise ConfigurationError(f"{key} must be a node with {TARGET}, got {node!r}")


def _arguments(node: Mapping[str, Any], key: str) -> dict[str, Any]:
    for name in _HYDRA_ONLY:
        if name in node:
            raise ConfigurationError(f"{key}.{name} has no effect here; write every argument as a key of {key}")
    return {str(name): value for name, value in node.items() if name not in (TARGET, PARTIAL)}


def _is_partial(node: Mapping[str, Any], key: str) -> bool:
    value = node.get(PARTIAL, False)
    if not isinstance(value, bool):
        raise ConfigurationError(f"{key}.{PARTIAL} must be true or false, got {value!r}")
    return value


def _parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        signature = inspect.signature(target, eval_str=True)
    except (NameError, TypeError):
        # An annotation that cannot be evaluated is not checked; its name still is.
        signature = inspect.signature(target)
    return dict(signature.parameters)


def _require_known_names(
    target: Callable[..., Any],
    parameters: Mapping[str, inspect.Parameter],
    arguments: Mapping[str, Any],
    key: str,
    run_time: Collection[str],
) -> None:
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    named = {name for name, parameter in parameters.items() if _is_keyword(parameter)}
    from_configuration = sorted(named - set(run_time))
    for name in arguments:
        if name in run_time:
            raise ConfigurationError(f"{join(key, name)} is supplied by the program; remove it from the configuration")
        if name not in named:
            tail = way_out(name, from_configuration, kind="arguments")
            raise ConfigurationError(f"{join(key, name)} is not an argument of {target.__name__}; {tail}")
    for name in run_time:
        if name not in named:
            raise ConfigurationError(f"{key}: {target.__name__} cannot stand here, for it takes no argument '{name}'")


def _require_complete(
    target: Callable[..., Any],
    parameters: Mapping[str, inspect.Parameter],
    supplied: Collection[str],
    key: str,
) -> None:
    for name, parameter in parameters.items():
        if _is_keyword(parameter) and parameter.default is parameter.empty and name not in supplied:
            raise ConfigurationError(f"{join(key, name)} is missing: {target.__name__} needs it")


def _is_keyword(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)


def _hint(parameter: inspect.Parameter | None) -> Any:
    unchecked = parameter is None or parameter.annotation is parameter.empty or isinstance(parameter.annotation, str)
    return Any if unchecked else parameter.annotation  # type: ignore[union-attr]


def _holds_nodes(value: Any) -> bool:
    if isinstance(value, Mapping):
        return TARGET in value or any(_holds_nodes(item) for item in value.values())
    return isinstance(value, list) and any(_holds_nodes(item) for item in value)
