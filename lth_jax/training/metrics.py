"""What networks are measured by: how a metric is called, written and compared.

Nothing here imports JAX: what reads a run directory knows its metric by what is recorded of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Metric(NamedTuple):
    """One number that says how good a network is on a split: higher or lower is better.

    Attributes:
      name: such as `accuracy`, in lower case; with `_` for blanks it names columns of tables.
      measure: (outputs, targets) -> an array [batch], or a pytree of arrays [batch, …], of bools,
        integers or floats: what each example contributes. None where the metric is only read.
      value: (sums, count) -> float []: the metric, from the sums of what `count` examples
        contribute. None is their mean.
      higher_is_better: whether it is.
      unit: such as `%`; empty for none.
      scale: what a value, as tables hold it, is multiplied by to be in that unit.
      decimals: how many are shown.
      share: whether a value is a share, in [0, 1].
      counted: whether it is the share of the examples that are right, and so a multiple of 1 / n.
      margin: by how much a network may stay behind the dense one and still match it where
        `analysis.margin` is None, in the unit; None where that depends on the data.
    """

    name: str
    measure: Callable[[Any, Any], Any] | None = None
    value: Callable[[Any, Any], Any] | None = None
    higher_is_better: bool = True
    unit: str = ""
    scale: float = 1.0
    decimals: int = 3
    share: bool = False
    counted: bool = False
    margin: float | None = None

    @property
    def column(self) -> str:
        """What columns call it: `cross_entropy` in `early_stop_test_cross_entropy`."""
        return self.name.replace(" ", "_")

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is: what makes a gain of a difference."""
        return 1 if self.higher_is_better else -1

    @property
    def gap(self) -> str:
        """What stands between a number and its unit."""
        return "" if self.unit in ("", "%", "×") else " "

    def number(self, value: float, sign: str = "") -> str:
        """Writes a value without its unit: `97.64`, or `4,000`; nothing is `0`, and never `-0`."""
        return f"{self.scale * value:{sign}z,.{self.decimals}f}"

    def text(self, value: float) -> str:
        """Writes a value with its unit: `97.64%`, `2.31 bits`."""
        return self.number(value) + self.gap + self.unit

    def title(self, before: str = "", after: str = "") -> str:
        """Names the metric with its unit, for an axis or a table: `test accuracy, %`."""
        name = " ".join(filter(None, (before, self.name, after)))
        return f"{name}, {self.unit}" if self.unit else name

    @property
    def unit_of_differences(self) -> str:
        """What a difference of values is counted in: `points` of a percentage."""
        return "points" if self.unit == "%" else self.unit

    def difference(self, value: float) -> str:
        """Writes the size of a difference in words: `0.2 points`, `1 point`, `0.02 bits`."""
        shown, unit = f"{self.scale * value:g}", self.unit_of_differences
        return f"{shown} {unit.removesuffix('s') if shown == '1' else unit}".strip()

    def described(self) -> Metric:
        """Returns the metric without its functions, as whoever reads a run knows it."""
        return self._replace(measure=None, value=None)

    def record(self) -> dict[str, Any]:
        """Returns what a run directory keeps of it, as plain data: all but the functions."""
        return {k: v for k, v in self._asdict().items() if k not in ("measure", "value")}


ACCURACY = Metric("accuracy", unit="%", scale=100, decimals=2, share=True, counted=True, margin=0.2)


def wrong_metric(metric: Any) -> str:
    """Returns what is wrong with a metric, or an empty string."""
    if not isinstance(metric, Metric):
        return f"{metric!r} is no lth_jax.Metric"
    if not isinstance(metric.name, str) or not re.fullmatch(r"[a-z][a-z0-9 ]{0,39}", metric.name):
        return f"name={metric.name!r}: accepted: lower-case letters, digits and blanks"
    if not isinstance(metric.unit, str) or not re.fullmatch(r"\S{0,20}", metric.unit):
        return f"unit={metric.unit!r}: accepted: a short word, or ''"
    numbers = isinstance(metric.scale, int | float) and isinstance(metric.decimals, int)
    if not numbers or not 0 < metric.scale < 1e9 or not 0 <= metric.decimals <= 9:
        what = f"scale={metric.scale!r}, decimals={metric.decimals!r}"
        return f"{what}: accepted: a number above 0, and 0 to 9"
    if metric.margin is not None and not (
        isinstance(metric.margin, int | float) and metric.margin > 0
    ):
        return f"margin={metric.margin!r}: accepted: a number above 0, or None"
    return ""


def recorded_metric(record: Mapping[str, Any]) -> Metric:
    """Returns the metric that a run directory was made with: older ones know accuracy alone.

    Args:
      record: the content of its `spec.json`.

    Raises:
      ValueError: it is no metric; says why.
    """
    if "metric" not in record:
        return ACCURACY
    known = {name: record["metric"][name] for name in Metric._fields if name in record["metric"]}
    metric = Metric(**known)
    if wrong := wrong_metric(metric):
        raise ValueError(f"its metric: {wrong}")
    return metric
