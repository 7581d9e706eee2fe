"""Training curves by level: how validation accuracy rises, as in Figure 3 of Frankle & Carbin."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from lth_jax.analysis.summary import Curve, mean_curve, percent
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
from lth_jax.report.figures.by_density import Runs, title_of
from lth_jax.report.metric import ACCURACY
from lth_jax.store.tables import TRUNK

DENSITIES = (1.0, 0.513, 0.211, 0.07, 0.036, 0.019)  # of the paper's Figure 3
LAST = 1.5  # how much denser the sparsest of the levels near these may be than the last level
PANELS = 6
SAYING = 60  # points of a line that say their values; the line itself has all of them
CAPTION = (
    f"Validation {ACCURACY.name} while training, mean over runs with their range shaded, a line "
    "for each share of weights left. The dense network (100%) is in every panel."
)
OVERLAID = f"Validation {ACCURACY.name} of the tickets while training, a panel for each run."

Curves = Mapping[int, Curve]  # by level


def draw(runs: Runs) -> Figure | None:
    """Draws a panel for each branch of one experiment, or for the tickets of each of several.

    Lines are means over runs of validation accuracy by training step; None without curves.
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
    figure = Figure(title_of(runs), size, CAPTION if alone else OVERLAID)
    # Axes of steps are not shared: experiments of different lengths have their own.
    axes = figure.panels(len(panels), 3, sharey=True)
    for ax, (title, run, branch, curves) in zip(axes, panels, strict=True):
        _draw_panel(ax, branch, curves, run.densities)
        ax.set_title(title)
        if not alone:
            ax.legend(loc="lower right", fontsize=7)
    for ax in axes[::columns]:
        ax.set_ylabel(ACCURACY.title("validation"))
    axes[0].set_ylim(*_range([curves for *_, curves in panels]))
    if alone:
        entries = {label: artist for ax in axes for artist, label in legend_entries(ax)}
        figure.add_legend([(artist, label) for label, artist in entries.items()])
    return figure


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


def _draw_panel(ax: Axes, branch: str, curves: Curves, densities: Mapping[int, float]) -> None:
    levels = shown_levels(densities)
    for colour, level in zip(level_colours(len(levels)), levels, strict=True):
        if level not in curves:
            continue
        curve, left = curves[level], percent(densities[level])
        mean = ACCURACY.scale * curve.mean
        ax.plot(curve.steps, mean, color=colour, linewidth=1.3, label=left)
        if curve.runs > 1:
            low, high = ACCURACY.scale * curve.low, ACCURACY.scale * curve.high
            ax.fill_between(curve.steps, low, high, color=colour, alpha=0.12, linewidth=0)
        told = spread(range(len(curve.steps)), SAYING)
        owner = branch if level else TRUNK
        texts = [
            f"{owner}, level {level}, {left} of the weights, step {curve.steps[i]:,}: "
            f"{ACCURACY.text(float(curve.mean[i]))}"
            for i in told
        ]
        note(ax, curve.steps[told], mean[told], texts)
    ax.set_xlabel("step")
    ax.xaxis.set_major_formatter(thousands)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, steps=[1, 2, 2.5, 5, 10]))


def _range(panels: Sequence[Curves]) -> tuple[float, float]:
    """Returns a range from a little below where dense networks are after a twentieth of it all."""
    dense = [curves[0].mean for curves in panels if 0 in curves]
    early = [mean[min(len(mean) - 1, max(1, len(mean) // 20))] for mean in dense]
    best = [np.nanmax(curve.mean) for curves in panels for curve in curves.values()]
    top = float(max(best))
    low = min(float(min(early, default=top)), top - 0.01)
    return (
        ACCURACY.scale * (low - 0.1 * (top - low)),
        ACCURACY.scale * (top + 0.05 * (top - low)),
    )
