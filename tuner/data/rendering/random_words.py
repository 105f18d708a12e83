"""Random choices from a bit stream that never changes.

NumPy keeps the raw words of a seeded PCG64 the same for ever, but not what its `Generator` makes of them.
So words are turned into choices here, by integer arithmetic only: the same key gives the same choices on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from numpy.random import PCG64, SeedSequence

T = TypeVar("T")

_WORDS_AT_ONCE = 64


class RandomWords:
    """A stream of choices that depends on its key alone."""

    def __init__(self, *key: int) -> None:
        """Start the stream of `key`: non-negative integers, such as seed, split and image number."""
        self._bits = PCG64(SeedSequence(key))
        self._words: list[int] = []

    def below(self, count: int) -> int:
        """Return one of `0 .. count - 1`; `count` is at most 2**32, and the bias below count / 2**32."""
        if not self._words:
            self._words = self._bits.random_raw(_WORDS_AT_ONCE).tolist()
        return ((self._words.pop() >> 32) * count) >> 32

    def between(self, low: int, high: int) -> int:
        """Return one of `low .. high`, both included."""
        return low + self.below(high - low + 1)

    def chance(self, percent: int) -> bool:
        """Return True in `percent` of a hundred calls."""
        return self.below(100) < percent

    def pick(self, choices: Sequence[T]) -> T:
        """Return one of `choices`."""
        return choices[self.below(len(choices))]

    def block(self, *shape: int) -> npt.NDArray[np.uint8]:
        """Return an array of uniform bytes."""
        count = math.prod(shape)
        words = self._bits.random_raw((count + 7) // 8)
        return words.astype("<u8", copy=False).view(np.uint8)[:count].reshape(shape)
