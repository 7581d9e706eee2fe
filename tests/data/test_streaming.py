"""Blocks of examples that are read ahead."""

import numpy as np
import pytest

pytest.importorskip("grain")

from lth_jax.data import Split
from lth_jax.data.streaming import Blocks, Rows
from lth_jax.errors import DataError

IMAGES = np.arange(40, dtype=np.uint8).reshape(20, 2)
SPLIT = Split(IMAGES, np.arange(20, dtype=np.int32))


def numbers(first):
    """A list of up to 6 examples a block, counted from `first` on: 20 in all."""
    return lambda number: Rows((np.arange(6 * number, min(6 * number + 6, 20)) + first) % 20)


@pytest.mark.parametrize("piece", [0, 4, 1])
@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_hold_what_is_asked_for_from_any_one_on(piece, threads):
    blocks = Blocks(SPLIT, [numbers(0), numbers(5)], size=6, count=4, piece=piece)
    whole = list(blocks.read(threads=threads))
    for number, block in enumerate(whole):
        for inputs, targets, count, first in zip(*block, (0, 5), strict=True):
            chosen = numbers(first)(number).indices
            assert count == len(chosen)
            np.testing.assert_array_equal(targets[:count], chosen)
            np.testing.assert_array_equal(inputs[:count], IMAGES[chosen])
            assert not inputs[count:].any()
            assert not targets[count:].any()
    assert len(whole) == 4
    for first in (1, 3):
        for block, same in zip(blocks.read(first, threads=threads), whole[first:], strict=True):
            np.testing.assert_array_equal(block.inputs, same.inputs)


def test_what_is_read_ahead_ends_with_who_reads():
    read = []

    def list_of(number):
        read.append(number)
        return numbers(0)(number % 3)

    blocks = Blocks(SPLIT, [list_of], size=6, count=1000).read()
    next(blocks)
    blocks.close()
    assert len(read) < 10  # two are ready, one is on its way


def test_an_error_comes_where_the_block_would():
    def list_of(number):
        if number == 2:
            raise DataError("no such example")
        return numbers(0)(number)

    blocks = Blocks(SPLIT, [list_of], size=6, count=3).read(put=lambda block: block.counts)
    assert [next(blocks), next(blocks)] == [[6], [6]]
    with pytest.raises(DataError) as raised:
        next(blocks)
    assert str(raised.value) == "no such example"
