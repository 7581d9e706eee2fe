"""How masks move while networks train: density, what moves exchange, and what was ever kept."""

from __future__ import annotations

from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from lth_jax.analysis.moves import MaskCourse, mask_course
from lth_jax.analysis.summary import percent
from lth_jax.report.drawing import (
    STYLES,
    Figure,
    Style,
    label_text,
    legend_entries,
    note,
    spread,
    thousands,
)
from lth_jax.report.figures.by_density import Runs, title_of

SAYING = 60  # points of a line that say their values
PANELS = (
    ("density", "weights left, %"),
    ("moved", "of the mask moved, %"),
    ("ever", "weights ever left, %"),
)
CAPTION = (
    "Masks that move, of level {}, mean over runs: the weights that are left from a step on, the "
    "share of the mask that a move exchanges, and the weights that were left at any time so far "
    "(in-time over-parameterization, Liu et al. 2021). In the end: {}."
)


def draw(runs: Runs) -> Figure | None:
    """Draws the branches of the sparsest level whose masks move; None where none does."""
    (contents,) = runs.values()
    if not contents.masks_on_their_way:
        return None
    level = max(level for _, level in contents.masks_on_their_way)
    courses = {
        branch: mask_course(points)
        for (branch, of), points in contents.masks_on_their_way.items()
        if of == level
    }
    said = "; ".join(
        f"{name} {percent(course.density[-1])}, {percent(course.ever[-1])} ever"
        for name, course in courses.items()
    )
    figure = Figure(title_of(runs), (9.4, 3.2), CAPTION.format(level, said))
    axes = figure.panels(len(PANELS), len(PANELS))
    for ax, (field, label) in zip(axes, PANELS, strict=True):
        for (name, course), style in zip(courses.items(), cycle(STYLES)):
            _draw_line(ax, name, course, field, style)
        ax.set_ylim(bottom=0)
        ax.set_ylabel(label)
        ax.set_xlabel("step")
        ax.xaxis.set_major_formatter(thousands)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, steps=[1, 2, 2.5, 5, 10]))
    figure.add_legend(legend_entries(axes[0]))
    return figure


def _draw_line(ax: Axes, name: str, course: MaskCourse, field: str, style: Style) -> None:
    values = 100 * np.asarray(getattr(course, field))
    ax.plot(
        course.steps, values, color=style.colour, linestyle=style.dashes, linewidth=1.3,
        drawstyle="steps-post", label=label_text(name),
    )  # fmt: skip
    told = spread(range(len(values)), SAYING)
    texts = [f"{name}, step {course.steps[i]:,}: {percent(float(values[i]) / 100)}" for i in told]
    note(ax, course.steps[told], values[told], texts)
