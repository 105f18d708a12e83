from __future__ import annotations

import numpy as np

from tuner.data.rendering.random_words import RandomWords


def test_choices_are_pinned() -> None:
    words = RandomWords(0, 0, 0)
    drawn = ([words.below(1000) for _ in range(6)], words.block(2, 4).tolist())
    assert drawn == ([580, 90, 198, 404, 52, 230], [[34, 66, 33, 230], [137, 89, 119, 76]])


def test_streams_of_different_keys_differ() -> None:
    first_words = {RandomWords(*key).below(2**32) for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]}
    assert len(first_words) == 4


def test_choices_cover_their_range_evenly() -> None:
    words = RandomWords(7)
    counts = np.bincount([words.between(3, 7) for _ in range(5000)], minlength=8)
    assert counts[:3].sum() == 0
    assert counts[3:].min() > 900
    assert 2350 < sum(words.chance(50) for _ in range(5000)) < 2650
    assert {words.pick("abc") for _ in range(50)} == set("abc")


def test_blocks_are_uniform_bytes_of_any_shape() -> None:
    block = RandomWords(3).block(5, 1001)
    assert block.shape == (5, 1001)
    assert 120 < block.mean() < 135
    assert len(np.unique(block)) == 256
