"""Derived seeds: each random sequence of a training has a seed of its own, derived from a seed and a purpose."""

from __future__ import annotations

import hashlib


def derived_seed(*parts: int | str) -> int:
    """Return a 63-bit seed that depends on every part and their order, for example ``(seed, "order", epoch)``.

    A hash, unlike a sum, gives neighbouring seeds and epochs unrelated values.
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
