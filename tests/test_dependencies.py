"""Every package that an installation brings is pinned, torch's libraries for CUDA too, so that two are one."""

import re
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
# The installer is that of the environment, and an extra of ours names ourselves.
NOT_PINNED = {"pip", "genlab"}


def needed(lines: Iterable[str], extras: tuple[str, ...], known: set[tuple[str, str]]) -> set[str]:
    """Return the names of all packages that some requirements need here; those that are not installed are skipped.

    Args:
        lines: The requirements of one package.
        extras: Those of its extras that are wanted.
        known: Packages, each with an extra, that were followed already; grows.
    """
    names = set()
    for requirement in map(Requirement, lines):
        marker = requirement.marker
        if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            continue
        name = canonicalize_name(requirement.name)
        names.add(name)
        for extra in ("", *requirement.extras):
            if (name, extra) not in known:
                known.add((name, extra))
                try:
                    names |= needed(requires(name) or (), (extra,), known)
                except PackageNotFoundError:
                    continue
    return names


def test_every_dependency_has_one_version() -> None:
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()]
    pins = [Requirement(line) for line in lines if line]
    assert all(re.fullmatch(r"==[\w.+]+", str(pin.specifier)) for pin in pins)
    pinned = {canonicalize_name(pin.name) for pin in pins}
    assert len(pinned) == len(pins)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    found = needed(declared, (), set()) - NOT_PINNED
    assert len(found) > 50
    assert found - pinned == set()


def test_the_image_is_given_what_its_instructions_copy_and_a_compiler() -> None:
    instructions = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[0] == "!"}
    copied = {word for line in re.findall(r"^COPY (.*) \S+$", instructions, re.MULTILINE) for word in line.split()}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert {project["project"]["readme"], *project["project"]["license-files"], "constraints.txt"} < copied
    installed = re.findall(r"apt-get install (.*?)&&", instructions)
    assert any("g++" in packages.split() for packages in installed), "trainer.compile=true needs it"
