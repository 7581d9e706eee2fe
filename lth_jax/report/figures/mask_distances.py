"""How much the masks differ that consecutive epochs of the dense network would give."""

from __future__ import annotations

from itertools import cycle

import numpy as np
from matplotlib.ticker import MaxNLocator

from lth_jax.analysis.early_birds import Saving, savings
from lth_jax.analysis.summary import percent
from lth_jax.report.drawing import STYLES, Figure, label_text, legend_entries, note, thousands
from lth_jax.report.figures.by_density import Runs, title_of
from lth_jax.store.tables import TRUNK, MaskDistance

CAPTION = (
    "Early-Bird tickets (You et al. 2020): the share by which the masks differ that two "
    "consecutive epochs of the dense network would give, mean over replicates, with the range. {}"
)


def draw(runs: Runs) -> Figure | None:
    """Draws the distances of each level of which tickets were to be drawn; None for none."""
    (contents,) = runs.values()
    points = contents.mask_distances.get((TRUNK, 0))
    if not points:
        return None
    saved = savings(contents.rows, contents.spec)
    figure = Figure(title_of(runs), (6.4, 3.6), CAPTION.format(" ".join(map(_said, saved))))
    (ax,) = figure.panels(1, 1)
    for level, style in zip(sorted({point.level for point in points}), cycle(STYLES)):
        steps, mean, low, high = distances_by_step([p for p in points if p.level == level])
        name = f"level {level}"
        ax.fill_between(steps, low, high, color=style.colour, alpha=0.15, linewidth=0)
        ax.plot(
            steps, mean, color=style.colour, linestyle=style.dashes, marker=style.marker,
            markersize=3, linewidth=1.3, label=label_text(name),
        )  # fmt: skip
        pairs = zip(steps, mean, strict=True)
        note(ax, steps, mean, [f"{name}, step {step:,}: {of:.3f}" for step, of in pairs])
        for one in saved:
            if one.level == level:
                ax.axvline(one.step, color=style.colour, linestyle=":", linewidth=1)
    limits = {contents.spec.branch_spec(one.branch).distance for one in saved}
    for limit in limits:
        ax.axhline(limit, color="0.5", linestyle="--", linewidth=0.8)
    ax.set_ylim(bottom=0)
    ax.set_ylabel("mask distance")
    ax.set_xlabel("step")
    ax.xaxis.set_major_formatter(thousands)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, steps=[1, 2, 2.5, 5, 10]))
    figure.add_legend(legend_entries(ax))
    return figure


def distances_by_step(
    points: list[MaskDistance],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns the steps, and at each the mean, the smallest and the largest distance."""
    by_step: dict[int, list[float]] = {}
    for point in points:
        by_step.setdefault(point.step, []).append(point.distance)
    steps = sorted(by_step)
    values = [by_step[step] for step in steps]
    return (
        np.array(steps),
        np.array([float(np.mean(of)) for of in values]),
        np.array([min(of) for of in values]),
        np.array([max(of) for of in values]),
    )


def _said(one: Saving) -> str:
    return (
        f"{one.branch} of level {one.level} was drawn at step {one.step:,.0f}: "
        f"{percent(one.share)} of the dense network's training, {one.seconds:,.1f} s, come after."
    )
