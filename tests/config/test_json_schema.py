"""The JSON schemas accept every shipped YAML file, refuse mistakes, and are those in the tree."""

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from genlab.commands.schema import settings_of_commands
from genlab.config.json_schema import FOLDER, file_name, modeline, schemas
from genlab.config.location import config_directory

CONFIGS = config_directory()
FILES = [
    path for path in sorted(CONFIGS.rglob("*.yaml")) if path.relative_to(CONFIGS).parts[0] not in ("hydra", FOLDER)
]
KINDS: dict[str, Any] = {
    **{"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)},
    **{"integer": int, "number": int | float},
}


@cache
def loaded(name: str) -> Any:
    return json.loads((CONFIGS / FOLDER / name).read_text())


def accepts(schema: Mapping[str, Any], value: Any, root: Mapping[str, Any]) -> bool:
    """As much of JSON Schema as the files use."""
    if "$ref" in schema:
        name, _, place = schema["$ref"].partition("#/$defs/")
        if name:
            root = loaded(name)
        return accepts(root["$defs"][place] if place else root, value, root)
    if "if" in schema and accepts(schema["if"], value, root) and not accepts(schema["then"], value, root):
        return False
    if "not" in schema and accepts(schema["not"], value, root):
        return False
    kind = schema.get("type")
    if kind and (not isinstance(value, KINDS[kind]) or (isinstance(value, bool) and kind not in ("boolean",))):
        return False
    if "anyOf" in schema and not any(accepts(part, value, root) for part in schema["anyOf"]):
        return False
    if not all(accepts(part, value, root) for part in schema.get("allOf", ())):
        return False
    if value != schema.get("const", value) or value not in schema.get("enum", [value]):
        return False
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        return False
    if isinstance(value, dict):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        return all(key in value for key in schema.get("required", ())) and all(
            accepts(properties[key], item, root)
            if key in properties
            else others is not False and accepts({} if others is True else others, item, root)
            for key, item in value.items()
        )
    if isinstance(value, list):
        places = schema.get("prefixItems", [schema.get("items", {})] * len(value))
        return len(places) == len(value) and all(map(lambda *pair: accepts(*pair, root), places, value))
    return True


@cache
def parsed(path: Path) -> Any:
    return OmegaConf.to_container(OmegaConf.load(path), resolve=False)


def is_accepted(path: Path, **changes: Any) -> bool:
    values = parsed(path)
    return accepts({"$ref": file_name(path, CONFIGS)}, {**(values or {}), **changes}, {})


def test_every_shipped_file_names_its_schema_and_fits_it() -> None:
    assert len(FILES) > 100
    for path in FILES:
        # Hydra reads the line about the package only above all other comments.
        line = modeline(path, CONFIGS)
        assert line in path.read_text().splitlines()[:2], f"{path} must name its schema: {line}"
        assert (path.parent / line.partition("$schema=")[2]).is_file(), path
        assert is_accepted(path), path
        assert not is_accepted(path, no_such_key=1), path


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("model/draw.yaml", {"num_glimpses": "ten"}),
        ("model/draw.yaml", {"initial_canvas": "ones"}),
        ("optimizer/adam.yaml", {"default": {"_target_": "torch.optim.Adam", "betaz": [0.5, 0.9]}}),
        ("trainer/smoke.yaml", {"compile": "yes"}),
        ("recipe/draw.yaml", {"trainer": {"num_step": 3}}),
        ("train.yaml", {"seed": "zero"}),
        ("check.yaml", {"num_levels": None}),
        ("evaluate.yaml", {"split": "tests"}),
        ("runs.yaml", {"sure": "yes"}),
        ("experiment/draw_mnist.yaml", {"seed": 0.5}),
        ("experiment/draw_mnist.yaml", {"model": {"num_glimpse": 3}}),
    ],
)
def test_a_mistake_is_refused(file: str, changes: dict[str, Any]) -> None:
    assert not is_accepted(CONFIGS / file, **changes)


def test_a_description_is_the_whole_text_of_the_docstring() -> None:
    targets = schemas(CONFIGS, {})["technique.json"]["$defs"]
    (told,) = (target["properties"]["direction_std"] for target in targets.values() if "direction_std" in str(target))
    assert told["description"] == (
        "Standard deviation of the initial directions. A learning rate turns long ones less: 0.05 in the paper, 0.1 in "
        "the MNIST experiment of arXiv:1606.03498."
    )


def test_the_files_in_the_tree_are_those_that_genlab_schema_writes() -> None:
    made = schemas(CONFIGS, settings_of_commands(CONFIGS))
    assert {path.name for path in (CONFIGS / FOLDER).iterdir()} == set(made)
    for name, content in made.items():
        assert json.loads((CONFIGS / FOLDER / name).read_text()) == content, f"{name} is old: run genlab schema"
