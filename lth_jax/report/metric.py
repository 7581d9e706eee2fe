"""What results are numbers of: how each is called and written, for figures, tables and terminal."""

from __future__ import annotations

from typing import NamedTuple


class Metric(NamedTuple):
    """How a number of `results.csv` is called and written.

    Attributes:
      name: such as `accuracy`.
      unit: such as `%`, or nothing.
      scale: what its values are multiplied by to be in that unit.
      decimals: how many of them are shown.
    """

    name: str
    unit: str
    scale: float
    decimals: int

    def number(self, value: float, sign: str = "") -> str:
        """Writes a value without its unit: `97.64`, or `4,000`."""
        return f"{self.scale * value:{sign},.{self.decimals}f}"

    def text(self, value: float) -> str:
        """Writes a value with its unit: `97.64%`."""
        return self.number(value) + self.unit

    def title(self, before: str = "", after: str = "") -> str:
        """Names the metric with its unit, for an axis or a table: `test accuracy, %`."""
        name = " ".join(filter(None, (before, self.name, after)))
        return f"{name}, {self.unit}" if self.unit else name


ACCURACY = Metric("accuracy", "%", 100, 2)
STEP = Metric("early-stop step", "", 1, 0)
