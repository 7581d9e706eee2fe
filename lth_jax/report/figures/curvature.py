"""The largest eigenvalue of the loss's Hessian while networks train."""

from __future__ import annotations

from itertools import cycle

import numpy as np
from matplotlib.ticker import MaxNLocator

from lth_jax.analysis.summary import percent
from lth_jax.report.drawing import (
    STYLES,
    Figure,
    label_decades,
    label_text,
    legend_entries,
    note,
    spread,
    thousands,
)
from lth_jax.report.figures.by_density import Runs, title_of
from lth_jax.store.tables import TRUNK, CurvaturePoint

LINES = 5  # levels of tickets; branches are those of the sparsest of them
CAPTION = (
    "The largest eigenvalue of the Hessian of the training loss in the weights that are left, mean "
    "over runs, against the step: tickets by the weights left, and the branches of level {}. It is "
    "of {:,} training examples, by {} products of the Hessian and a vector; an eigenvalue lies "
    "within {:.2g} of every one that is shown."
)


def draw(runs: Runs) -> Figure | None:
    """Draws the tickets of some levels, and the branches of the last; None if nothing is there."""
    (contents,) = runs.values()
    found = contents.curvature
    if not found:
        return None
    levels = sorted({level for _, level in found})
    shown = [levels[i] for i in spread(range(len(levels)), LINES)]
    lines = {
        f"ticket {percent(contents.densities[level])}": found[TRUNK, level]
        for level in shown
        if (TRUNK, level) in found
    }
    lines |= {
        branch: points
        for (branch, level), points in found.items()
        if level == levels[-1] and branch != TRUNK
    }
    every = [point for points in lines.values() for point in points]
    worst = max((p.residual for p in every if np.isfinite(p.residual)), default=float("nan"))
    caption = CAPTION.format(levels[-1], every[-1].examples, every[-1].iterations, worst)
    figure = Figure(title_of(runs), (6.4, 3.6), caption)
    (ax,) = figure.panels(1, 1)
    for (name, points), style in zip(lines.items(), cycle(STYLES)):
        steps, values = mean_by_step(points)
        ax.plot(
            steps, values, color=style.colour, linestyle=style.dashes, marker=style.marker,
            markersize=3, linewidth=1.3, label=label_text(name),
        )  # fmt: skip
        texts = [f"{name}, step {s:,}: {v:.4g}" for s, v in zip(steps, values, strict=True)]
        note(ax, steps, values, texts)
    ax.set_yscale("symlog", linthresh=1.0, subs=(2, 5))
    label_decades(ax.yaxis)  # by itself the scale writes formulas, which are no text here
    ax.set_ylabel("largest eigenvalue of the Hessian")
    ax.set_xlabel("step")
    ax.xaxis.set_major_formatter(thousands)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, steps=[1, 2, 2.5, 5, 10]))
    figure.add_legend(legend_entries(ax))
    return figure


def mean_by_step(points: list[CurvaturePoint]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps, and the mean over the runs that were measured at each."""
    by_step: dict[int, list[float]] = {}
    for point in points:
        by_step.setdefault(point.step, []).append(point.eigenvalue)
    steps = sorted(by_step)
    return np.array(steps), np.array([float(np.mean(by_step[step])) for step in steps])
