"""Seeds of the random sequences of a training run, each derived from the trial's seed and a purpose."""

from __future__ import annotations

import hashlib


def derived_seed(*parts: int | str) -> int:
    """Return a 63-bit seed that depends on all parts and their order, for example ``(seed, "order", epoch)``.

    It is a hash because, unlike a sum, a hash derives unrelated seeds from neighbouring seeds and epochs.
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
