"""Training curves by level: how validation accuracy rises, as in Figure 3 of Frankle & Carbin."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lth_jax.analysis.summary import percent
from lth_jax.report.axes import add_legend, legend_entries, thousands
from lth_jax.report.hover import note_points
from lth_jax.report.style import blank_figure, grid_of, house_style, level_colours
from lth_jax.store import CurvePoint
from lth_jax.store.results import TRUNK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Densities of the paper's Figure 3: one level near each is drawn.
DENSITIES = (1.0, 0.513, 0.211, 0.07, 0.036, 0.019)

LAST = 1.5  # how much denser the sparsest of them may be than the last level
# Points of one line that hovering tells of; the line itself has all of them.
HOVERED = 60
PANELS = 6

# (branch, level) -> its evaluations.
Curves = Mapping[tuple[str, int], Sequence[CurvePoint]]


def shown_levels(densities: Mapping[int, float]) -> list[int]:
    """The levels nearest to the paper's densities, without repeats, in order.

    The sparsest is among them, unless one of almost its density is.

    Args:
      densities: level -> density.
    """
    positive = {level: density for level, density in densities.items() if density > 0}
    if not positive:
        return []
    lowest = min(positive.values())
    wanted = [density for density in DENSITIES if density >= 0.8 * lowest]
    nearest = {
        min(positive, key=lambda level: abs(math.log(positive[level] / density)))
        for density in wanted
    }
    last = min(positive, key=lambda level: positive[level])
    if len(nearest) == 1 or positive[last] * LAST < min(positive[level] for level in nearest):
        nearest.add(last)
    return sorted(nearest)


@house_style()
def curves_figure(
    curves: Curves, densities: Mapping[int, float], *, branches: Sequence[str] = (), title: str = ""
) -> Figure:
    """Validation accuracy in percent over training steps, mean over runs; a panel for each branch.

    Args:
      curves: the evaluations of each branch and level.
      densities: level -> density of its ticket.
      branches: controls to draw beside the ticket, at most five of them.
      title: over the figure.
    """
    there = [name for name in branches if any(name == branch for branch, _ in curves)]
    panels = {name: (name, curves, densities) for name in (TRUNK, *there[: PANELS - 1])}
    return _figure(panels, _range([curves]), title)


@house_style()
def run_curves_figure(
    runs: Mapping[str, tuple[Curves, Mapping[int, float]]], *, title: str = ""
) -> Figure:
    """The same of the tickets of several runs, name -> (curves, densities): a panel for each."""
    shown = list(runs.items())[:PANELS]
    panels = {name: (TRUNK, curves, densities) for name, (curves, densities) in shown}
    return _figure(panels, _range([curves for _, (curves, _) in shown]), title, shared=False)


def _figure(
    panels: Mapping[str, tuple[str, Curves, Mapping[int, float]]],
    accuracies: tuple[float, float],
    title: str,
    *,
    shared: bool = True,
) -> Figure:
    """A panel for each (branch, curves, densities), by name; their legend is shared or not."""
    rows, columns = grid_of(len(panels), 3)
    figure = blank_figure(title, (1.4 + 2.8 * columns, 1.1 + 2.6 * rows))
    # Runs of different lengths have axes of their own.
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    entries: dict[str, Any] = {}
    for ax, (name, (branch, curves, densities)) in zip(axes.flat, panels.items(), strict=False):
        _draw(ax, branch, curves, densities)
        ax.set_title(name)
        ax.set_xlabel("step")
        ax.set_ylim(*accuracies)
        if not shared:
            ax.legend(loc="lower right", fontsize=7)
        for handle, label in legend_entries(ax):
            entries.setdefault(label, handle)
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    for ax in axes[:, 0]:
        ax.set_ylabel("validation accuracy, %")
    if shared:
        add_legend(figure, axes[0, 0], [(handle, label) for label, handle in entries.items()])
    return figure


def _draw(ax: Axes, branch: str, curves: Curves, densities: Mapping[int, float]) -> None:
    levels = shown_levels(densities)
    for colour, level in zip(level_colours(len(levels)), levels, strict=True):
        # The dense network belongs to every branch: it is what they are held against.
        owner = branch if level else TRUNK
        points = curves.get((owner, level), ())
        if not points:
            continue
        curve = mean_curve(points)
        label = percent(densities[level])
        if curve.runs > 1:
            ax.fill_between(
                curve.steps, 100 * curve.low, 100 * curve.high,
                color=colour, alpha=0.12, linewidth=0,
            )  # fmt: skip
        ax.plot(curve.steps, 100 * curve.mean, color=colour, linewidth=1.3, label=label)
        told = range(0, len(curve.steps), -(-len(curve.steps) // HOVERED))
        note_points(
            ax,
            curve.steps[told],
            100 * curve.mean[told],
            [
                f"{owner}, level {level}, {label} of the weights, step {curve.steps[i]:,}: "
                f"{100 * curve.mean[i]:.2f}%"
                for i in told
            ],
        )
    ax.xaxis.set_major_formatter(thousands)
    ax.xaxis.set_major_locator(_few_ticks())


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=4, integer=True, steps=[1, 2, 2.5, 5, 10])


class Curve(NamedTuple):
    """Validation accuracy over runs at each step that any of them has: arrays [steps].

    Attributes:
      steps: int64; mean, low, high: fractions, over the runs that have the step.
      runs: how many there are.
    """

    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    runs: int


def mean_curve(points: Sequence[CurvePoint]) -> Curve:
    """The mean and the range of a branch's evaluations at a level."""
    by_step: dict[int, list[float]] = {}
    for point in points:
        by_step.setdefault(point.step, []).append(point.val_accuracy)
    steps = sorted(by_step)
    mean, low, high = (
        np.array([reduce(by_step[step]) for step in steps]) for reduce in (np.mean, np.min, np.max)
    )
    runs = len({(point.replicate, point.draw) for point in points})
    return Curve(np.array(steps, np.int64), mean, low, high, runs)


def _range(runs: Sequence[Curves]) -> tuple[float, float]:
    """From a little below where dense networks are after a twentieth of their training."""
    early, best = [], []
    for curves in runs:
        dense = mean_curve(curves.get((TRUNK, 0), ()))
        if len(dense.steps):
            early.append(dense.mean[min(len(dense.mean) - 1, max(1, len(dense.steps) // 20))])
        best += [np.nanmax(mean_curve(points).mean) for points in curves.values() if points]
    top = float(max(best, default=1.0))
    low = min(float(min(early, default=top)), top - 0.01)
    return 100 * (low - 0.1 * (top - low)), 100 * (top + 0.05 * (top - low))
