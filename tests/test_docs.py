"""Files, links and settings in the documentation exist, and its commands compose."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from genlab.cli import COMMANDS
from genlab.config.compose import open_composer
from genlab.config.naming import register_resolvers
from genlab.launch.arguments import parse_command_line
from genlab.launch.syntax import expanded
from tests.thinning import thinned

ROOT = Path(__file__).resolve().parents[1]
WRITTEN = sorted(
    {*(ROOT / "docs").rglob("*.md")} - {*(ROOT / "docs").glob("keys.md"), *(ROOT / "docs" / "_build").rglob("*")}
)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *WRITTEN]
TABLES = ("experiments.md", "results.md")
"""Pages that `genlab report` writes, from headers that tests/test_configs.py looks at."""
PLACEHOLDER = re.compile(r"[A-Z]{3}|\.\.\.|[<\[]\w+|\bmine\b")
EXAMPLES = ("configs/experiment/NAME.yaml",)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_and_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    rooms = "|".join(("genlab", "tests", "configs", "benchmarks", "docs", "hydra_plugins"))
    named = re.findall(rf"`((?:{rooms})/[\w./*-]+)`", text)
    assert [path for path in named if not list(ROOT.glob(path.rstrip("/"))) and path not in EXAMPLES] == []
    assert [file for file in re.findall(r"`(test_\w+\.py)`", text) if not list((ROOT / "tests").rglob(file))] == []
    linked = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    generated = ("keys.md",)  # by `make docs`
    assert [path for path in linked if path not in generated and not (page.parent / path).exists()] == []


_PARENTS = {"technique": "model.techniques", "experiment": "", "recipe": "", "dataset.preparation": "dataset"}


def keys_of(node: Any, parent: str) -> Iterator[str]:
    for key, value in node.items() if isinstance(node, dict) else ():
        yield f"{parent}.{key}" if parent else str(key)
        yield from keys_of(value, f"{parent}.{key}" if parent else str(key))


def settings() -> set[str]:
    """Return the keys of every file in configs/, wherever the file's group places them."""
    found = set()
    for path in (ROOT / "configs").rglob("*.yaml"):
        group = path.parent.relative_to(ROOT / "configs").as_posix().replace("/", ".").removeprefix(".")
        parent = _PARENTS.get(group, group)
        found |= set(keys_of(yaml.safe_load(path.read_text(encoding="utf-8")), parent))
    return found


def test_every_setting_that_a_page_names_exists() -> None:
    known = settings()
    assert {"trainer.num_steps", "model.generator.channels", "model.techniques.label_smoothing.real_target"} <= known
    groups = {key.partition(".")[0] for key in known} - {"hydra"}
    named = set()
    for page in PAGES:
        for key in re.findall(r"`\+?([a-z_]+(?:\.[a-z_]+)+)(?==|`)", page.read_text(encoding="utf-8")):
            if key.partition(".")[0] in groups and not key.endswith((".py", ".json", ".yaml", ".safetensors")):
                named.add(key)
    assert len(named) > 40
    # Of a phase's optimiser every key is that of the default one; a technique that is taken away is a key by itself.
    known |= {re.sub(r"default", phase, key) for key in known for phase in ("discriminator", "generator", "model")}
    known |= {key.rpartition(".")[0] for key in known}
    assert sorted(named - known) == []


def commands() -> list[str]:
    found: dict[str, None] = {}
    for page in PAGES:
        for line in () if page.name in TABLES else page.read_text(encoding="utf-8").splitlines():
            spans = re.findall(r"`(?:\w+=\S+ )*(genlab [^`]+)`", line)
            block = re.match(r"\s*(?:\$ )?(genlab [^`]+)$", line)
            for text in [*spans, *([re.split(r"\s{3,}|\s+#", block[1])[0]] if block else [])]:
                text = text.replace("run=last", "run=RUN")  # there may be no run
                if not PLACEHOLDER.search(re.sub(r"\b(RUN|FOLDER|FILE|PICTURES|OTHER)\b", "x", text)):
                    found[text] = None
    return [text for text in found if text.split()[1] in COMMANDS]


@pytest.mark.parametrize("text", thinned(commands(), 6))
def test_every_command_that_a_page_shows_composes(text: str) -> None:
    _, command, *arguments = shlex.split(text)
    syntax = COMMANDS[command][1]
    options, overrides, _ = parse_command_line(expanded(arguments, syntax), positional=syntax.positional)
    register_resolvers()
    with open_composer(command, config_dir=None) as composer:
        known = [word for word in overrides if "resume=" not in word]
        assert composer.compose(known, is_sweep=options.multirun)
