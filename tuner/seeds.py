"""Seeds derived from seeds: every random sequence of a training has its own, named by what it is for."""

from __future__ import annotations

import hashlib


def derived_seed(*parts: int | str) -> int:
    """Return a 63-bit seed that depends on every part and their order, for example ``(seed, "order", epoch)``.

    A hash rather than a sum keeps neighbouring seeds and epochs apart.
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
