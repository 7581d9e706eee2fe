"""Granularity: whether weights, blocks or channels are pruned, or N of each M inputs are kept.

Kernels are [..., inputs, outputs]: a block is of neighbouring inputs and outputs, at each position
of a convolution's window by itself; the M of N:M are neighbouring inputs of one output, as sparse
tensor cores have them. A kernel that does not divide evenly is left whole. Which channels a
network has is found in its trace (`pruning.channels`).

JAX is not imported: configs are checked without it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

ACCEPTED = "weight, channel, blocks of inputs × outputs such as block:4x4, or N:M such as 2:4"


class Granularity(NamedTuple):
    """What is kept or pruned together.

    Attributes:
      rows, columns: inputs and outputs of a block; rows is the M of N:M, whose columns are 1.
      of_each: the N of N:M; 0 for blocks and weights.
    """

    rows: int = 1
    columns: int = 1
    of_each: int = 0

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Returns whether a kernel of that shape divides evenly."""
        whole = len(shape) > 1 and not shape[-2] % self.rows and not shape[-1] % self.columns
        return whole or self == WEIGHT

    def whole(self, count: int) -> int:
        """Returns the smallest number of weights from `count` on that whole blocks make."""
        block = 1 if self.of_each else self.rows * self.columns
        return -(-count // block) * block

    def kept_at(self, level: int) -> int:
        """Returns how many of each M a level keeps: one less than the level before, N at last."""
        return max(self.of_each, self.rows - level)


WEIGHT = Granularity()
CHANNEL = Granularity(0, 0)  # no block of one size


def granularity_of(text: str) -> Granularity:
    """Returns the granularity that a text names.

    Raises:
      ValueError: it names none.
    """
    if text == "weight":
        return WEIGHT
    if text == "channel":
        return CHANNEL
    if found := re.fullmatch(r"block:(\d{1,4})x(\d{1,4})", text):
        rows, columns = map(int, found.groups())
        if rows * columns > 1:
            return Granularity(rows, columns)
    if found := re.fullmatch(r"(\d{1,4}):(\d{1,4})", text):
        kept, of = map(int, found.groups())
        if 0 < kept < of:
            return Granularity(of, 1, kept)
    raise ValueError(f"accepted: {ACCEPTED}")


def is_granularity(text: str) -> bool:
    """Returns whether a text names a granularity."""
    try:
        granularity_of(text)
    except ValueError:
        return False
    return True


def nm_targets(
    granularity: Granularity, shapes: Mapping[str, tuple[int, ...]], levels: int
) -> list[dict[tuple[str, ...], int]]:
    """Returns what each kernel keeps at levels 0 to `levels` on the way to N of each M."""
    return [
        {
            (name,): math.prod(shape) // granularity.rows * granularity.kept_at(level)
            for name, shape in shapes.items()
        }
        for level in range(levels + 1)
    ]
