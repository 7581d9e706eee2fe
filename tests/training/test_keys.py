"""Keys are functions of their path alone."""

import itertools

import jax
import numpy as np

from lth_jax.training.keys import derive


def data(*path):
    return tuple(np.asarray(jax.random.key_data(derive(*path))).tolist())


def test_a_key_depends_on_its_path_alone():
    first = data(0, "reinit", 1, 2, 3)
    data(0, "other")
    assert data(0, "reinit", 1, 2, 3) == first


def test_every_part_of_the_path_counts():
    paths = [
        (seed, name, *numbers)
        for seed in (0, 1)
        for name in ("init", "data", "reinit")
        for length in (0, 1, 2)
        for numbers in itertools.product((0, 1, 2), repeat=length)
    ]
    assert len({data(*path) for path in paths}) == len(paths)


def test_keys_are_the_ones_that_old_runs_were_drawn_with():
    assert data(0, "init", 0) == (517294207, 118925294)
    assert data(2**32 - 1, "reinit", 1, 2, 3) == (4023833310, 1699973212)


def test_numbers_beyond_32_bits_wrap():
    assert data(0, 2**32 + 5) == data(0, 5)
    assert data(0, -1) == data(0, 2**32 - 1)
