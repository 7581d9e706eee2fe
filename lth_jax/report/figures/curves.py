"""Training curves by level: how validation accuracy rises, as in Figure 3 of Frankle & Carbin."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from lth_jax.analysis.summary import Curve, mean_curve, percent, running_mean
from lth_jax.report.contents import Contents
from lth_jax.report.drawing import (
    Figure,
    grid_of,
    legend_entries,
    level_colours,
    note,
    spread,
    thousands,
)
from lth_jax.report.figures.by_density import Runs, metric_of, title_of
from lth_jax.store.tables import TRUNK
from lth_jax.training.metrics import Metric

DENSITIES = (1.0, 0.513, 0.211, 0.07, 0.036, 0.019)  # of the paper's Figure 3
LAST = 1.5  # how much denser the sparsest of the levels near these may be than the last level
PANELS = 6
SMOOTHED, WIDTH = 100, 21  # from how many evaluations on lines are running means, and of how many
SAYING = 60  # points of a line that say their values; the line itself has all of them
CAPTION = (
    "Validation {} while training, mean over runs with their range shaded, a line for each share "
    "of weights left. The dense network (100%) is in every panel."
)
OVERLAID = "Validation {} of the tickets while training, a panel for each run."

SAID = f" Strong lines are running means over {WIDTH} evaluations, faint ones the evaluations."

Curves = Mapping[int, Curve]  # by level


def draw(runs: Runs) -> Figure | None:
    """Draws a panel for each branch of one experiment, or for the tickets of each of several.

    Lines are means over runs of the validation metric by training step; None without curves.
    """
    alone = len(runs) == 1
    panels = [
        (branch if alone else name, run, branch, curves_of(run, branch))
        for name, run in runs.items()
        for branch in ((TRUNK, *run.spec.branches) if alone else (TRUNK,))
    ]
    # The dense network alone makes no panel of a control, and nothing none of the ticket.
    panels = [panel for panel in panels if set(panel[3]) - ({0} if panel[2] != TRUNK else set())]
    panels = panels[:PANELS]
    if not panels:
        return None
    rows, columns = grid_of(len(panels), 3)
    size = 1.4 + 2.8 * columns, 1.1 + 2.6 * rows
    metric = metric_of(runs)
    caption = (CAPTION if alone else OVERLAID).format(metric.name)
    if any(is_smoothed(curve) for *_, curves in panels for curve in curves.values()):
        caption += SAID
    figure = Figure(title_of(runs), size, caption)
    # Axes of steps are not shared: experiments of different lengths have their own.
    axes = figure.panels(len(panels), 3, sharey=True)
    for ax, (title, run, branch, curves) in zip(axes, panels, strict=True):
        _draw_panel(ax, branch, curves, run.densities, metric)
        ax.set_title(title)
        if not alone:
            place = "lower right" if metric.higher_is_better else "upper right"
            ax.legend(loc=place, fontsize=7)
    for ax in axes[::columns]:
        ax.set_ylabel(metric.title("validation"))
    axes[0].set_ylim(*_range([curves for *_, curves in panels], metric))
    if alone:
        entries = {label: artist for ax in axes for artist, label in legend_entries(ax)}
        figure.add_legend([(artist, label) for label, artist in entries.items()])
    return figure


def is_smoothed(curve: Curve) -> bool:
    """Whether a curve has so many evaluations that its noise would hide it."""
    return len(curve.steps) >= SMOOTHED


def curves_of(run: Contents, branch: str) -> Curves:
    """Returns the curves of a branch at the levels to show; the dense network is every branch's."""
    found = {}
    for level in shown_levels(run.densities):
        points = run.store.curve(branch if level else TRUNK, level)
        if points:
            found[level] = mean_curve(points)
    return found


def shown_levels(densities: Mapping[int, float]) -> list[int]:
    """Returns the levels nearest to the paper's densities, without repeats, in order.

    The sparsest is among them, unless one of almost its density is.

    Args:
      densities: level -> density.
    """
    positive = {level: density for level, density in densities.items() if density > 0}
    if not positive:
        return []
    last = min(positive, key=lambda level: positive[level])
    nearest = {
        min(positive, key=lambda level: abs(math.log(positive[level] / density)))
        for density in DENSITIES
        if density >= 0.8 * positive[last]
    }
    if len(nearest) == 1 or positive[last] * LAST < min(positive[level] for level in nearest):
        nearest.add(last)
    return sorted(nearest)


def _draw_panel(
    ax: Axes, branch: str, curves: Curves, densities: Mapping[int, float], metric: Metric
) -> None:
    levels = shown_levels(densities)
    for colour, level in zip(level_colours(len(levels)), levels, strict=True):
        if level not in curves:
            continue
        curve, left = curves[level], percent(densities[level])
        mean = metric.scale * curve.mean
        if is_smoothed(curve):
            ax.plot(curve.steps, mean, color=colour, linewidth=0.5, alpha=0.35)
            line = running_mean(mean, WIDTH)
            ax.plot(curve.steps, line, color=colour, linewidth=1.3, label=left)
        else:
            ax.plot(curve.steps, mean, color=colour, linewidth=1.3, label=left)
        if curve.runs > 1:
            low, high = metric.scale * curve.low, metric.scale * curve.high
            ax.fill_between(curve.steps, low, high, color=colour, alpha=0.12, linewidth=0)
        told = spread(range(len(curve.steps)), SAYING)
        owner = branch if level else TRUNK
        texts = [
            f"{owner}, level {level}, {left} of the weights, step {curve.steps[i]:,}: "
            f"{metric.text(float(curve.mean[i]))}"
            for i in told
        ]
        note(ax, curve.steps[told], mean[told], texts)
    ax.set_xlabel("step")
    ax.xaxis.set_major_formatter(thousands)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, steps=[1, 2, 2.5, 5, 10]))


def _range(panels: Sequence[Curves], metric: Metric) -> tuple[float, float]:
    """Returns a range from a little worse than dense networks are after a twentieth of it all."""
    # Reckoned as goodness, of which more is better.
    dense = [metric.sign * curves[0].mean for curves in panels if 0 in curves]
    early = [mean[min(len(mean) - 1, max(1, len(mean) // 20))] for mean in dense]
    best = [np.nanmax(metric.sign * c.mean) for curves in panels for c in curves.values()]
    top = float(max(best))
    least = 0.01 if metric.share else 1e-6 * max(abs(top), 1e-6)
    low = min(float(min(early, default=top)), top - least)
    ends = (low - 0.1 * (top - low), top + 0.05 * (top - low))
    scaled = [metric.sign * metric.scale * end for end in ends]
    return min(scaled), max(scaled)
