"""The test metric against the weights left, as in Frankle & Carbin (2019), figures 3 and 4."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lth_jax.analysis.summary import LevelSummary
from lth_jax.report.drawing import Figure
from lth_jax.report.figures.by_density import (
    Runs,
    branch_lines,
    draw_column,
    entries,
    metric_of,
    more,
    references,
    title_of,
    what_points_are,
)
from lth_jax.store.tables import TRUNK
from lth_jax.training.metrics import Metric

COLUMNS = {
    "At early stop": "early_stop_test_accuracy",
    "At the end of training": "final_test_accuracy",
}
CAPTION = (
    "Test {} at early stop (left), the evaluation of the smallest validation loss, and at the end "
    "of training (right), against the weights left. {}; hollow points lack replicates."
)
Range = tuple[float, float]


def draw(runs: Runs) -> Figure | None:
    """Draws the test metric at early stop and at the end by weights left; None without results.

    The tall axes show the range in which tickets and the dense network differ. What collapses
    leaves them downwards, and is then drawn whole in flat axes below.
    """
    lines = branch_lines(runs)
    if not lines:
        return None
    summaries = [summary for line in lines for summary in line.summaries]
    metric = metric_of(runs)
    tall, whole = ranges(summaries, list(COLUMNS.values()), metric)
    rows = 1 if tall == whole else 2
    reference = references(runs)
    caption = CAPTION.format(metric.name, what_points_are(runs)) + more(runs, reference)
    figure = Figure(title_of(runs), (7.6, 2.5 + 0.9 * rows), caption)
    axes = figure.subplots(
        rows, 2, squeeze=False, sharex=True, sharey="row", height_ratios=[3.0, 1.0][:rows]
    )
    for of_column, (name, column) in zip(axes.T, COLUMNS.items(), strict=True):
        for ax in of_column:
            draw_column(ax, lines, column, metric, reference)
        of_column[0].set_title(name)
        if rows == 2:
            of_column[0].tick_params(labelbottom=False)
            of_column[0].set_xlabel("")
    axes[-1, 0].set_ylim(*whole)
    axes[-1, 0].set_ylabel("whole range")
    axes[0, 0].set_ylim(*tall)
    axes[0, 0].set_ylabel(metric.title("test"))
    figure.add_legend(entries(axes[0, 0], lines))
    return figure


def ranges(
    summaries: Sequence[LevelSummary], columns: Sequence[str], metric: Metric
) -> tuple[Range, Range]:
    """Returns the range of values that is worth most of the figure, and the whole one.

    The first goes from the best value to three times its gain behind the dense network; of a share
    at least three quarters of the dense network's error (or 2.5 points) and one point behind, and
    of any metric four standard deviations. The two are the same where the whole range is not twice
    as large.
    """
    named = [(summary, getattr(summary, column)) for summary in summaries for column in columns]
    named = [(summary, stat) for summary, stat in named if math.isfinite(stat.mean)]
    dense = [stat for summary, stat in named if (summary.branch, summary.level) == (TRUNK, 0)]
    # Of the runs, not of intervals: those of two replicates reach far beyond what was measured.
    # Reckoned as goodness, of which more is better.
    sign = metric.sign
    ends = [sign * value for _, stat in named for value in (stat.minimum, stat.maximum)]
    top, bottom = max(ends, default=1.0), min(ends, default=0.0)
    whole = _with_margins(bottom, top, metric)
    if not dense:
        return whole, whole
    base = min(sign * stat.mean for stat in dense)
    std = max(stat.std for stat in dense)
    least = max(min(0.75 * (1 - base), 0.025), 0.01) if metric.share else 0.0
    low = base - max(3 * (top - base), 4 * std, least)
    narrow = top - bottom <= 2 * (top - low)
    return (whole if narrow else _with_margins(low, top, metric)), whole


def _with_margins(low: float, high: float, metric: Metric) -> Range:
    """Returns a range of goodness in the metric's unit, from its lower end, with room for markers.

    That of a share is at least half a point wide.
    """
    least = 0.005 if metric.share else 1e-6 * max(abs(low), abs(high), 1e-6)
    margin = max(0.08 * (high - low), (least - (high - low)) / 2)
    ends = metric.sign * (low - margin), metric.sign * (high + margin)
    return metric.scale * min(ends), metric.scale * max(ends)
