"""The paired difference of ticket and control against the weights left."""

from __future__ import annotations

from lth_jax.analysis.paired import Paired, paired_differences
from lth_jax.analysis.summary import percent
from lth_jax.report.drawing import DENSE_COLOUR, Figure, points, set_density_axis
from lth_jax.report.figures.accuracy import COLUMNS
from lth_jax.report.figures.by_density import (
    OVERLAID,
    Runs,
    branch_lines,
    entries,
    title_of,
)
from lth_jax.report.metric import ACCURACY

CAPTION = (
    f"Test {ACCURACY.name} of the ticket minus that of each control, replicate by replicate, since "
    "both see the same batches: mean over replicates ± standard error."
)
PREFIX = "ticket − "


def draw(runs: Runs) -> Figure | None:
    """Draws ticket minus control in points of test accuracy, mean over replicates and its error.

    Returns:
      The figure, or None where no control has a replicate in common with its ticket.
    """
    found = {
        (column, name, pair.branch, pair.level): pair
        for column in COLUMNS.values()
        for name, run in runs.items()
        for pair in paired_differences(run.rows, column)
        if pair.density > 0
    }
    compared = {(run, branch) for _, run, branch, _ in found}
    lines = [line for line in branch_lines(runs) if (line.run, line.branch) in compared]
    if not lines:
        return None
    figure = Figure(title_of(runs), (7.6, 3.4), CAPTION + (OVERLAID if len(runs) > 1 else ""))
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for ax, (title, column) in zip(axes, COLUMNS.items(), strict=True):
        ax.axhline(0, color=DENSE_COLOUR, linestyle="--", linewidth=1)
        for line in lines:
            pairs = [p for key, p in found.items() if key[:3] == (column, line.run, line.branch)]
            label = f"{PREFIX}{line.branch}" if line.alone else f"{line.run}: {PREFIX}{line.branch}"
            densities, texts = [p.density for p in pairs], [_said(label, p) for p in pairs]
            points(ax, densities, pairs, texts, scale=ACCURACY.scale, label=label, style=line.style)
        set_density_axis(ax, [pair.density for pair in found.values()])
        ax.margins(y=0.1)
        ax.set_title(title)
    axes[0].set_ylabel(f"difference, points of {ACCURACY.name}")
    figure.add_legend(entries(axes[0], lines, PREFIX))
    return figure


def _said(label: str, pair: Paired) -> str:
    text = f"{label}, level {pair.level}, {percent(pair.density)} of the weights: "
    text += f"{ACCURACY.number(pair.mean, '+')} points"
    if len(pair.replicates) == 1:
        return f"{text}, 1 replicate"
    error = ACCURACY.number(pair.error)
    return f"{text} ± {error} (standard error), {len(pair.replicates)} replicates"
