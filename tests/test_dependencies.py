"""Every package that an installation brings is pinned, so that two installations are one."""

import re
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"
EXTRAS = ("dev", "sweep", "browser")
# torch itself names the versions of these; the others are the installers.
NOT_PINNED = re.compile(r"nvidia-.*|cuda-.*|triton|pip|setuptools|genlab")


def needed(name: str, extras: tuple[str, ...], known: set[tuple[str, str]]) -> set[str]:
    """Names of all that a package needs here, itself included; what is not installed is not followed."""
    names = {canonicalize_name(name)}
    try:
        requirements = [Requirement(line) for line in requires(name) or ()]
    except PackageNotFoundError:
        return names
    for requirement in requirements:
        for extra in ("", *extras):
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
            if wanted and (requirement.name, extra) not in known:
                known.add((requirement.name, extra))
                names |= needed(requirement.name, tuple(requirement.extras), known)
    return names


def test_every_dependency_has_one_version() -> None:
    lines = [line.split("#")[0].strip() for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines()]
    pins = [Requirement(line) for line in lines if line]
    assert all(re.fullmatch(r"==[\w.+]+", str(pin.specifier)) for pin in pins)
    pinned = {canonicalize_name(pin.name) for pin in pins}
    assert len(pinned) == len(pins)
    found = {name for name in needed("genlab", EXTRAS, set()) if not NOT_PINNED.fullmatch(name)}
    assert len(found) > 50
    assert found - pinned == set()
