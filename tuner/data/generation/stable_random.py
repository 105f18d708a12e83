"""Random numbers that are the same on every machine and with every version of NumPy.

NumPy guarantees the raw words of a seeded PCG64, but not the numbers that its `Generator` derives from them. So this
module derives them, by integer arithmetic only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from numpy.random import PCG64, SeedSequence

T = TypeVar("T")

_WORDS_PER_CALL = 64


class StableRandom:
    """A random number generator whose numbers only depend on its key."""

    def __init__(self, *key: int) -> None:
        """Seed the generator with `key`: non-negative integers, such as seed, split and image number."""
        self._bits = PCG64(SeedSequence(key))
        self._words: list[int] = []

    def below(self, count: int) -> int:
        """Return a random number from 0 to `count` - 1; `count` is at most 2**32, the bias below `count` / 2**32."""
        if not self._words:
            self._words = self._bits.random_raw(_WORDS_PER_CALL).tolist()
        return ((self._words.pop() >> 32) * count) >> 32

    def between(self, low: int, high: int) -> int:
        """Return a random number from `low` to `high`, both included."""
        return low + self.below(high - low + 1)

    def chance(self, percent: int) -> bool:
        """Return True with a probability of `percent` %."""
        return self.below(100) < percent

    def choice(self, choices: Sequence[T]) -> T:
        """Return a random element of `choices`."""
        return choices[self.below(len(choices))]

    def byte_array(self, *shape: int) -> npt.NDArray[np.uint8]:
        """Return an array of uniformly distributed bytes."""
        count = math.prod(shape)
        words = self._bits.random_raw((count + 7) // 8)
        return words.astype("<u8", copy=False).view(np.uint8)[:count].reshape(shape)
