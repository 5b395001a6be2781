"""The nearest valid name for a mistyped one."""

import difflib
from collections.abc import Iterable


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name most like the given one, or None when nothing comes close."""
    by_folded = {candidate.casefold(): candidate for candidate in valid}
    matches = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[matches[0]] if matches else None


def nearest_key(key: str, valid: Iterable[str]) -> str | None:
    """The valid dotted key nearest to the given one.

    A word alone is most likely the whole last part of a key: ``devices`` is nearer to ``trainer.devices`` than to
    ``device``. Then a key is compared with those of its own parent, by its last part: ``model.red_size`` is nearer to
    ``model.read_size`` than to ``model.write_size`` of any length.
    """
    candidates = sorted(set(valid))
    parent, _, last = key.rpartition(".")
    same_last = [candidate for candidate in candidates if candidate.rpartition(".")[2] == last]
    if not parent and len(same_last) == 1:
        return same_last[0]
    siblings = {candidate[len(parent) + bool(parent) :] for candidate in candidates if _parent(candidate) == parent}
    sibling = nearest(last, siblings)
    if sibling is not None:
        return f"{parent}.{sibling}" if parent else sibling
    return nearest(key, same_last) or nearest(key, candidates) or (same_last[0] if len(same_last) == 1 else None)


def way_out(name: str, valid: Iterable[str], *, kind: str = "valid names") -> str:
    """``did you mean 'x'? (valid names: x, y)``: the end of an error line about an unknown name."""
    names = sorted(set(valid))
    guess = nearest(name, names)
    listed = f"{kind}: {', '.join(names)}" if names else f"{kind}: none"
    return f"did you mean '{guess}'? ({listed})" if guess else listed


def _parent(key: str) -> str:
    return key.rpartition(".")[0]
