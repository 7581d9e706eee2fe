"""What fields of several groups accept, in numbers and in words."""

from __future__ import annotations

from typing import Any

MOST = 10**9  # examples; more than any dataset has
LEAST, LARGEST = 1e-30, 1e30  # what float32 can compute with
# The layer ratios that are no ranking, as `pruning.schedules` has them, which imports JAX.
RATIOS = ("erdos_renyi", "smart", "uniform")

DURATIONS = "steps or epochs, such as 5000 or 40ep"
SOME_DURATION = f"at least one step, in {DURATIONS}"
NAMES = "a name of the package, or of a custom row"


def negative(value: float) -> bool:
    """Whether a number means None, as it did before None could be given (-1)."""
    return -LARGEST < value < 0


def empty(value: Any) -> bool:
    """Whether 0 or '' means None, as it did before None could be given."""
    return not value
