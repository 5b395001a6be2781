"""JSON schemas of all YAML files, with which editors complete keys and mark mistakes.

They are made from the annotations and adapters that validate a configuration (:mod:`genlab.config.fields`,
:mod:`genlab.config.build`). A file of ``GLOBAL_GROUPS``, and the primary configuration of `genlab train`, set keys
of all groups. The primary configuration of another command sets the fields of its settings.
"""

import inspect
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from pydantic.json_schema import GenerateJsonSchema

from genlab.config.build import PARTIAL, TARGET, is_keyword, of_instances, parameters_of, takes_any_name
from genlab.config.catalogue import keys_of
from genlab.config.compose import GLOBAL_GROUPS
from genlab.config.fields import adapter
from genlab.config.schema import RunConfiguration
from genlab.config.targets import find_target
from genlab.metrics.quality_settings import QualitySettings
from genlab.training.settings import TrainerSettings

Schema = dict[str, Any]
FOLDER = "schema"
TRAIN = "train"
_GLOBAL = "global.json"
_MERGED = {"recipe": "optimizer"}
_FIELDS = {"trainer": TrainerSettings, "quality": QualitySettings}
# Supplied by the program, and so not keys.
_RUN_TIME = {"model": ("spec",), "optimizer": ("params",), "schedule": ("optimizer", "num_steps")}
_NODE: Schema = {"type": "object"}
_LATER: Schema = {"type": "string", "pattern": r"\$\{|^\?\?\?$"}  # an interpolation, or a mandatory value
# Its lines after the first are indented further.
_ARGUMENT = re.compile(r"^ {4}(\w+)(?: \([^)]*\))?: (.+(?:\n {5,}\S.*)*)$", re.MULTILINE)


def schemas(configs: Path, commands: Mapping[str, type]) -> dict[str, Schema]:
    """Return the schema of every config group of genlab's tree, and of every command, by the name of its file.

    Args:
        configs: The tree.
        commands: The class of the settings of each command but `genlab train`.
    """
    groups = sorted({path.parent.relative_to(configs).as_posix() for path in configs.glob("*/**/*.yaml")})
    groups = [group for group in groups if group.partition("/")[0] not in ("hydra", FOLDER)]
    owners = [group for group in groups if _owns_schema(group, configs)]
    made = {_name(group): _of_group(group, configs, groups) for group in owners}
    for command, settings in commands.items():
        comments = _comments([configs / f"{command}.yaml"])
        made[_of_command(command)] = _described(_of_settings(settings, owners, "hydra"), comments)
    return {**made, _GLOBAL: _of_settings(RunConfiguration, owners, "hydra", "name", "sweep")}


def file_name(path: Path, configs: Path) -> str:
    """Return the name of the file with the schema of a primary configuration, or of an option of a config group."""
    if path.parent == configs:
        return _GLOBAL if path.stem == TRAIN else _of_command(path.stem)
    group = path.parent.relative_to(configs).as_posix()
    if path.read_text(encoding="utf-8").startswith("# @package _global_"):
        return _GLOBAL
    above = _MERGED.get(group.partition("/")[0], group.rpartition("/")[0])
    return _name(group if _owns_schema(group, configs) else above)


def modeline(path: Path, configs: Path) -> str:
    """Return the comment in which a YAML file names its schema for editors."""
    up = "../" * len(path.parent.relative_to(configs).parts)
    return f"# yaml-language-server: $schema={up}{FOLDER}/{file_name(path, configs)}"


def _name(group: str) -> str:
    return f"{group.replace('/', '.')}.json"


def _of_command(command: str) -> str:
    return f"command.{command}.json"


def _owns_schema(group: str, configs: Path) -> bool:
    """Return False for a group whose options are merged into those of another group, and for global ones."""
    return group not in GLOBAL_GROUPS and (group in _FIELDS or bool(_targets(group, configs)))


def _of_group(group: str, configs: Path, groups: Collection[str]) -> Schema:
    comments = _comments(_files(group, configs))
    if group in _FIELDS:
        return _described(_of_settings(_FIELDS[group], ()), comments)
    node = _of_node(group, configs, groups, comments)
    if any(TARGET in values for values in _values(group, configs)):
        return node
    targets = node.pop("$defs")
    return {**_object({"defaults": {}}), "additionalProperties": {"anyOf": [node, {"type": "null"}]}, "$defs": targets}


def _of_node(group: str, configs: Path, groups: Collection[str], comments: Mapping[str, str]) -> Schema:
    targets = {name: _described(_of_target(name, group, groups), comments) for name in sorted(_targets(group, configs))}
    named = [
        {
            "if": {"properties": {TARGET: {"const": name}}, "required": [TARGET]},
            "then": {"$ref": f"#/$defs/{name}"},
        }
        for name in targets
    ]
    # An option that inherits its target, or changes some keys of it.
    without = {
        "if": {"not": {"required": [TARGET]}},
        "then": {"anyOf": [{"$ref": f"#/$defs/{name}"} for name in targets]},
    }
    properties = {TARGET: {"examples": list(targets)}}
    return {"type": "object", "properties": properties, "allOf": [*named, without], "$defs": targets}


def _of_target(name: str, group: str, groups: Collection[str]) -> Schema:
    target = find_target(name, group)
    parameters = parameters_of(target)
    texts = [inspect.getdoc(target), inspect.getdoc(target.__init__) if inspect.isclass(target) else None]
    descriptions = {
        name: " ".join(told.replace("``", "`").split())
        for text in texts
        for name, told in _ARGUMENT.findall(text or "")
    }
    properties: dict[str, Schema] = {TARGET: {"type": "string"}, PARTIAL: {"type": "boolean"}, "defaults": {}}
    for key, parameter in parameters.items():
        if is_keyword(parameter) and key not in _RUN_TIME.get(group.partition("/")[0], ()):
            part = f"{group}/{key}"
            properties[key] = _reference(part) if part in groups else _of_value(parameter.annotation)
    return _described({**_object(properties), "additionalProperties": takes_any_name(parameters)}, descriptions)


def _of_settings(settings: type, groups: Collection[str], *others: str) -> Schema:
    """Return the schema whose keys are fields of some settings, of which some are groups, and others."""
    keys = {field.name: field.type for field in fields(settings) if field.compare}
    properties: dict[str, Schema] = {key: _of_value(hint) for key, hint in keys.items()}
    properties |= {group: _reference(group) for group in groups if group in keys}
    return _object({**properties, "defaults": {}, **{key: {} for key in others}})


def _reference(group: str) -> Schema:
    return {"anyOf": [{"$ref": _name(group)}, {"type": "null"}]}


def _object(properties: Mapping[str, Schema]) -> Schema:
    return {"type": "object", "properties": dict(properties), "additionalProperties": False}


def _of_value(hint: Any) -> Schema:
    if hint is inspect.Parameter.empty or isinstance(hint, str):
        return {}
    found: Schema = adapter(of_instances(hint)).json_schema(schema_generator=_Generator)
    inner = found.pop("$defs", None)
    return {"anyOf": [*found.get("anyOf", [found]), _LATER]} if found and inner is None else {}


class _Generator(GenerateJsonSchema):
    """Generator that turns a class in an annotation into a node."""

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Schema:
        del schema, error_info
        return dict(_NODE)

    def json_or_python_schema(self, schema: Any) -> Schema:
        python = schema["python_schema"]
        return dict(_NODE) if python["type"] == "is-instance" else super().json_or_python_schema(schema)


def _described(schema: Schema, descriptions: Mapping[str, str]) -> Schema:
    for key, text in descriptions.items():
        if key in schema["properties"]:
            schema["properties"][key] = {"description": text, **schema["properties"][key]}
    return schema


def _comments(paths: Iterable[Path]) -> dict[str, str]:
    return {key: comment for path in paths for key, _, comment in keys_of(path) if comment}


def _files(group: str, configs: Path) -> list[Path]:
    return sorted((configs / group).glob("*.yaml"))


@cache
def _values(group: str, configs: Path) -> tuple[Mapping[str, Any], ...]:
    loaded: Any = (OmegaConf.to_container(OmegaConf.load(path), resolve=False) for path in _files(group, configs))
    return tuple(values or {} for values in loaded)


def _targets(group: str, configs: Path) -> set[str]:
    """Return the targets of a group's options, or of the named nodes inside them."""
    values = _values(group, configs)
    own = {str(node[TARGET]) for node in values if TARGET in node}
    inner = (node for mapping in values for node in mapping.values() if isinstance(node, dict))
    return own or {str(node[TARGET]) for node in inner if TARGET in node}
