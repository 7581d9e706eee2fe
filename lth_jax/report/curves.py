"""Training curves by level: how validation accuracy rises, as in Figure 3 of Frankle & Carbin."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lth_jax.analysis.summary import percent
from lth_jax.report.style import house_style, new_figure
from lth_jax.results import TRUNK
from lth_jax.store import CurvePoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Densities of the paper's Figure 3: one level near each is drawn.
DENSITIES = (1.0, 0.513, 0.211, 0.07, 0.036, 0.019)

# (branch, level) -> its evaluations.
Curves = Mapping[tuple[str, int], Sequence[CurvePoint]]


def shown_levels(densities: Mapping[int, float]) -> list[int]:
    """The levels nearest to the paper's densities, without repeats, in order.

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
    return sorted(nearest)


@house_style()
def curves_figure(
    curves: Curves, densities: Mapping[int, float], *, branches: Sequence[str] = (), title: str = ""
) -> Figure:
    """Validation accuracy in percent over training steps, mean over runs; a panel for each branch.

    Args:
      curves: the evaluations of each branch and level.
      densities: level -> density of its ticket.
      branches: controls to draw beside the ticket, at most two of them.
      title: over the figure.
    """
    panels = [TRUNK, *[name for name in branches if any(name == b for b, _ in curves)][:2]]
    figure, axes = new_figure(title, 1, len(panels))
    for branch, ax in zip(panels, axes[0], strict=True):
        _draw(ax, branch, curves, densities)
        ax.set_title(branch)
        ax.set_xlabel("step")
    axes[0, 0].set_ylabel("validation accuracy, %")
    axes[0, 0].set_ylim(*_range(curves))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3 * len(panels))
    return figure


def _draw(ax: Axes, branch: str, curves: Curves, densities: Mapping[int, float]) -> None:
    import matplotlib

    levels = shown_levels(densities)
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, max(len(levels), 1)))
    for colour, level in zip(colours, levels, strict=False):
        # The dense network belongs to every branch: it is what they are held against.
        points = curves.get((branch if level else TRUNK, level), ())
        if points:
            steps, means = mean_curve(points)
            ax.plot(steps, 100 * means, color=colour, linewidth=1.3,
                    label=percent(densities[level]))  # fmt: skip
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def mean_curve(points: Sequence[CurvePoint]) -> tuple[np.ndarray, np.ndarray]:
    """(steps, mean validation accuracy at them), over the runs that have each step."""
    by_step: dict[int, list[float]] = {}
    for point in points:
        by_step.setdefault(point.step, []).append(point.val_accuracy)
    steps = sorted(by_step)
    return np.array(steps), np.array([np.mean(by_step[step]) for step in steps])


def _range(curves: Curves) -> tuple[float, float]:
    """From a little below where the dense network is after a twentieth of its training."""
    steps, means = mean_curve(curves[TRUNK, 0])
    best = max(float(mean_curve(points)[1].max()) for points in curves.values() if points)
    early = means[min(len(means) - 1, max(1, len(steps) // 20))]
    low = min(float(early), best - 0.01)
    return 100 * (low - 0.1 * (best - low)), 100 * (best + 0.05 * (best - low))
