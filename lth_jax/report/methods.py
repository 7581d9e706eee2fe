"""Methods ranked at each level, as tables for the terminal and the page."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

from lth_jax.analysis.methods import Comparison, Method, compare_methods
from lth_jax.analysis.summary import percent
from lth_jax.analysis.verdicts import Standard
from lth_jax.config import Spec
from lth_jax.report.table import Cell, Table
from lth_jax.store.tables import ResultRow
from lth_jax.training.metrics import ACCURACY, Metric

UNKNOWN = "–"


def methods_of(
    rows: Iterable[ResultRow], spec: Spec, metric: Metric = ACCURACY
) -> list[Comparison]:
    """Returns the comparisons of methods that a spec asks for, by level."""
    if not spec.report.methods:
        return []
    return compare_methods(rows, spec, Standard.of(spec, metric))


def methods_tables(rows: Iterable[ResultRow], spec: Spec, metric: Metric = ACCURACY) -> list[Table]:
    """Returns a table of the ranked methods of each level; none unless the spec asks for them.

    Args:
      rows: the experiment's results.
      spec: the experiment.
      metric: what its networks are measured by.
    """
    found = methods_of(rows, spec, metric)
    return [_table(one, metric) for one in found]


def methods_said(rows: Iterable[ResultRow], spec: Spec, metric: Metric = ACCURACY) -> str:
    """Says what the tables of methods mean; '' without any."""
    found = methods_of(rows, spec, metric)
    if not found:
        return ""
    confidence = 100 * spec.analysis.confidence
    said = (
        f"Methods are ranked by test {metric.name} at early stop, mean ± 95% t-interval over "
        "replicates. Behind: how far a method is from the first, paired by replicate. Differs "
        "from: the ranks of those that it differs from, by paired t-tests with Holm's correction "
        f"over all pairs of the level ({confidence:g}% sure). Steps, seconds and operations count "
        "the networks that its mask and its weights are made of; operations are those of the "
        "weights that are kept."
    )
    for one in found:
        if one.left_out:
            where = f" at {percent(one.density)}" if len(found) > 1 else ""
            said += f" Left out{where}, not every replicate is there: {', '.join(one.left_out)}."
    return said


def _table(one: Comparison, metric: Metric) -> Table:
    unit = metric.unit_of_differences
    behind = f"behind, {unit}" if unit else "behind"
    header = ["rank", "method", metric.title("test"), "at the end", behind, "differs from"]
    header += ["steps", "seconds", "10¹² operations"]
    lines = [_line(one, rank, method, metric) for rank, method in enumerate(one.methods)]
    title = f"Methods at {percent(one.density)} of the weights, level {one.level}"
    return Table(title, header, lines)


def _line(one: Comparison, rank: int, method: Method, metric: Metric) -> list[Cell]:
    behind = Cell()
    if rank:
        pair = one.pairs[0, rank].difference
        behind = Cell(metric.number(pair.mean), _half(pair.low, pair.high, metric))
    steps, seconds, operations = method.cost
    return [
        Cell(str(rank + 1)),
        Cell(method.branch),
        Cell(metric.number(method.mean), _half(method.low, method.high, metric)),
        Cell(metric.number(method.final)),
        behind,
        Cell(spans_of([other + 1 for other in one.differing(rank)])),
        Cell(_number(steps, 0)),
        Cell(_number(seconds, 1 if seconds < 100 else 0)),
        Cell(_number(operations / 1e12, 2)),
    ]


def _half(low: float, high: float, metric: Metric) -> str:
    return f"± {metric.number((high - low) / 2)}" if math.isfinite(low) else ""


def _number(value: float, decimals: int) -> str:
    return f"{value:,.{decimals}f}" if math.isfinite(value) else UNKNOWN


def spans_of(ranks: Sequence[int]) -> str:
    """Writes rising numbers, those in a row by their ends: `1, 4–7`; `–` for none."""
    parts = []
    for _, run in itertools.groupby(enumerate(ranks), key=lambda item: item[1] - item[0]):
        numbers = [number for _, number in run]
        ends = dict.fromkeys((numbers[0], numbers[-1]))
        parts.append("–".join(map(str, ends)))
    return ", ".join(parts) or UNKNOWN
