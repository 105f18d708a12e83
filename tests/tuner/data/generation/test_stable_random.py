import numpy as np

from tuner.data.generation.stable_random import StableRandom


def test_random_numbers_are_pinned():
    rng = StableRandom(0, 0, 0)
    numbers = ([rng.below(1000) for _ in range(6)], rng.byte_array(2, 4).tolist())
    assert numbers == ([580, 90, 198, 404, 52, 230], [[34, 66, 33, 230], [137, 89, 119, 76]])


def test_different_keys_give_different_numbers():
    first_numbers = {StableRandom(*key).below(2**32) for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]}
    assert len(first_numbers) == 4


def test_random_numbers_are_uniform_in_their_range():
    rng = StableRandom(7)
    counts = np.bincount([rng.between(3, 7) for _ in range(5000)], minlength=8)
    assert counts[:3].sum() == 0
    assert counts[3:].min() > 900
    assert 2350 < sum(rng.chance(50) for _ in range(5000)) < 2650
    assert {rng.choice("abc") for _ in range(50)} == set("abc")


def test_byte_array_is_uniform_and_of_the_requested_shape():
    values = StableRandom(3).byte_array(5, 1001)
    assert values.shape == (5, 1001)
    assert 120 < values.mean() < 135
    assert len(np.unique(values)) == 256
