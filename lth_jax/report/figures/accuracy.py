"""Test accuracy against the weights left, as in Frankle & Carbin (2019), figures 3 and 4."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lth_jax.analysis.summary import LevelSummary
from lth_jax.report.drawing import Figure
from lth_jax.report.figures.by_density import (
    POINTS,
    Runs,
    branch_lines,
    draw_column,
    entries,
    more,
    references,
    title_of,
)
from lth_jax.report.metric import ACCURACY
from lth_jax.store.tables import TRUNK

COLUMNS = {
    "At early stop": "early_stop_test_accuracy",
    "At the end of training": "final_test_accuracy",
}
CAPTION = (
    f"Test {ACCURACY.name} at early stop (left), the evaluation of the smallest validation loss, "
    f"and at the end of training (right), against the weights left. {POINTS}; hollow points lack "
    "replicates."
)
Range = tuple[float, float]


def draw(runs: Runs) -> Figure | None:
    """Draws test accuracy at early stop and at the end by weights left; None without results.

    The tall axes show the range in which tickets and the dense network differ. What collapses
    leaves them downwards, and is then drawn whole in flat axes below.
    """
    lines = branch_lines(runs)
    if not lines:
        return None
    summaries = [summary for line in lines for summary in line.summaries]
    tall, whole = ranges(summaries, list(COLUMNS.values()))
    rows = 1 if tall == whole else 2
    reference = references(runs)
    figure = Figure(title_of(runs), (7.6, 2.5 + 0.9 * rows), CAPTION + more(runs, reference))
    axes = figure.subplots(
        rows, 2, squeeze=False, sharex=True, sharey="row", height_ratios=[3.0, 1.0][:rows]
    )
    for of_column, (name, column) in zip(axes.T, COLUMNS.items(), strict=True):
        for ax in of_column:
            draw_column(ax, lines, column, ACCURACY, reference)
        of_column[0].set_title(name)
        if rows == 2:
            of_column[0].tick_params(labelbottom=False)
            of_column[0].set_xlabel("")
    axes[-1, 0].set_ylim(*whole)
    axes[-1, 0].set_ylabel("whole range")
    axes[0, 0].set_ylim(*tall)
    axes[0, 0].set_ylabel(ACCURACY.title("test"))
    figure.add_legend(entries(axes[0, 0], lines))
    return figure


def ranges(summaries: Sequence[LevelSummary], columns: Sequence[str]) -> tuple[Range, Range]:
    """Returns the range of accuracies that is worth most of the figure, and the whole one.

    The first goes from the highest accuracy down to three times its gain below the dense network;
    at least three quarters of the dense network's error (or 2.5 points), four standard deviations
    and one point below. The two are the same where the whole range is not twice as large.
    """
    named = [(summary, getattr(summary, column)) for summary in summaries for column in columns]
    named = [(summary, stat) for summary, stat in named if math.isfinite(stat.mean)]
    dense = [stat for summary, stat in named if (summary.branch, summary.level) == (TRUNK, 0)]
    top = max((stat.interval[1] for _, stat in named), default=1.0)
    bottom = min((stat.interval[0] for _, stat in named), default=0.0)
    whole = _with_margins(bottom, top)
    if not dense:
        return whole, whole
    base = min(stat.mean for stat in dense)
    std = max(stat.std for stat in dense)
    low = base - max(3 * (top - base), min(0.75 * (1 - base), 0.025), 4 * std, 0.01)
    return (whole if top - bottom <= 2 * (top - low) else _with_margins(low, top)), whole


def _with_margins(low: float, high: float) -> Range:
    """Returns a range in the metric's unit, with room for markers, at least half a point wide."""
    margin = max(0.08 * (high - low), (0.005 - (high - low)) / 2)
    return ACCURACY.scale * (low - margin), ACCURACY.scale * (high + margin)
