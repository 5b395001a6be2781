"""Randomness as a pure function of a purpose: nothing to save, nothing to lose on resume."""

import hashlib


def derive_seed(seed: int, *purpose: int | str) -> int:
    """Return a 63-bit seed for one purpose, stable over versions and machines; purposes have independent seeds."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
