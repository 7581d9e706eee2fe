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
    metric_of,
    title_of,
)
from lth_jax.training.metrics import Metric

CAPTION = (
    "Test {} of the ticket minus that of each control, replicate by replicate, since both see the "
    "same batches: mean over replicates, with its 95% t-interval."
)
LESS_IS_BETTER = " Less is better: below 0, the ticket is ahead."
PREFIX = "ticket − "


def draw(runs: Runs) -> Figure | None:
    """Draws ticket minus control in the test metric's unit, mean over replicates and interval.

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
    metric = metric_of(runs)
    caption = CAPTION.format(metric.name) + ("" if metric.higher_is_better else LESS_IS_BETTER)
    figure = Figure(title_of(runs), (7.6, 3.4), caption + (OVERLAID if len(runs) > 1 else ""))
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for ax, (title, column) in zip(axes, COLUMNS.items(), strict=True):
        ax.axhline(0, color=DENSE_COLOUR, linestyle="--", linewidth=1)
        for line in lines:
            pairs = [p for key, p in found.items() if key[:3] == (column, line.run, line.branch)]
            label = f"{PREFIX}{line.branch}" if line.alone else f"{line.run}: {PREFIX}{line.branch}"
            densities, texts = [p.density for p in pairs], [_said(label, p, metric) for p in pairs]
            points(
                ax, densities, pairs, texts, bars=[(p.low, p.high) for p in pairs],
                scale=metric.scale, label=label, style=line.style,
            )  # fmt: skip
        set_density_axis(ax, [pair.density for pair in found.values()])
        ax.margins(y=0.1)
        ax.set_title(title)
    of = " of ".join(filter(None, (metric.unit_of_differences, metric.name)))
    axes[0].set_ylabel(f"difference, {of}")
    figure.add_legend(entries(axes[0], lines, PREFIX))
    return figure


def _said(label: str, pair: Paired, metric: Metric) -> str:
    text = f"{label}, level {pair.level}, {percent(pair.density)} of the weights: "
    text += f"{metric.number(pair.mean, '+')} {metric.unit_of_differences}".rstrip()
    if len(pair.replicates) == 1:
        return f"{text}, 1 replicate"
    half = metric.number((pair.high - pair.low) / 2)
    return f"{text} ± {half} (95% interval), {len(pair.replicates)} replicates"
