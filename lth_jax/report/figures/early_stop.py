"""How fast networks learn: the early-stop step against the weights left."""

from __future__ import annotations

from lth_jax.report.drawing import Figure, thousands
from lth_jax.report.figures.by_density import (
    Runs,
    branch_lines,
    draw_column,
    entries,
    more,
    references,
    title_of,
    what_points_are,
)
from lth_jax.report.metric import STEP

CAPTION = (
    "The step of the smallest validation loss: how fast a network learns. {}; under an arrow, "
    "training ended before a network would stop."
)


def draw(runs: Runs) -> Figure | None:
    """Draws the step of the smallest validation loss by weights left; None without results."""
    lines, reference = branch_lines(runs), references(runs)
    if not lines:
        return None
    caption = CAPTION.format(what_points_are(runs)) + more(runs, reference)
    figure = Figure(title_of(runs), (5.6, 3.4), caption)
    ax = figure.subplots()
    draw_column(ax, lines, "early_stop_step", STEP, reference)
    # Intervals of few replicates reach beyond the last step, where nothing is.
    last = max(row.last_step or row.steps for run in runs.values() for row in run.rows)
    ax.set_ylim(0, min(ax.get_ylim()[1], 1.08 * last) or None)
    ax.yaxis.set_major_formatter(thousands)
    ax.set_ylabel(STEP.name)
    figure.add_legend(entries(ax, lines))
    return figure
