"""Axes that the figures share: percent of weights left, ranges of accuracy, and legends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lth_jax.analysis.summary import LevelSummary, percent
from lth_jax.store.results import TRUNK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Range = tuple[float, float]
LINE = 0.19  # inches of a legend's line


def set_density_axis(ax: Axes, densities: Sequence[float], labels: int = 8) -> None:
    """A logarithmic axis from 100 downwards, a tick at each level, labels where they fit.

    Args:
      ax: the axes.
      densities: of the levels, fractions above 0.
      labels: about how many fit.
    """
    values = sorted({100 * density for density in densities}, reverse=True)
    left, right = max(values[0], 100) * 1.15, min(values[-1] / 1.15, 60)
    ax.set_xscale("log")
    ax.set_xlim(left, right)
    spacing = math.log(left / right) / labels
    labelled: list[float] = []
    for value in values:
        if not labelled or math.log(labelled[-1] / value) >= spacing:
            labelled.append(value)
    ax.set_xticks(labelled, [percent(value / 100).rstrip("%") for value in labelled])
    ax.set_xticks(values, [""] * len(values), minor=True)
    ax.grid(visible=False, axis="x", which="minor")


def accuracy_ranges(
    summaries: Sequence[LevelSummary], metrics: Sequence[str]
) -> tuple[Range, Range]:
    """The range of accuracies, in percent, that is worth most of the figure, and the whole one.

    The first goes from the highest accuracy down to three times its gain below the dense network;
    at least three quarters of the dense network's error (or 2.5 points), four standard deviations
    and one point below. The two are the same where the whole range is not twice as large.
    """
    named = [(summary, getattr(summary, metric)) for summary in summaries for metric in metrics]
    named = [(summary, stat) for summary, stat in named if math.isfinite(stat.mean)]
    dense = [stat for summary, stat in named if (summary.branch, summary.level) == (TRUNK, 0)]
    top = max((stat.maximum for _, stat in named), default=1.0)
    bottom = min((stat.minimum for _, stat in named), default=0.0)
    whole = with_margins(bottom, top)
    if not dense:
        return whole, whole
    base = min(stat.mean for stat in dense)
    std = max(stat.std for stat in dense)
    low = base - max(3 * (top - base), min(0.75 * (1 - base), 0.025), 4 * std, 0.01)
    if top - bottom <= 2 * (top - low):
        return whole, whole
    return with_margins(low, top), whole


def with_margins(low: float, high: float) -> Range:
    """A range of accuracies in percent, with room for markers, at least half a point wide."""
    margin = max(0.08 * (high - low), (0.005 - (high - low)) / 2)
    return 100 * (low - margin), 100 * (high + margin)


def thousands(value: float, _position: float = 0) -> str:
    """A step for an axis: `4,000`."""
    return f"{value:,.0f}"


def label_decades(axis: Axis) -> None:
    """Labels 1, 2 and 5 of each decade of a logarithmic axis."""
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")


def add_legend(figure: Figure, ax: Axes, entries: Sequence[tuple[Any, str]] | None = None) -> None:
    """A legend below the figure, as wide as it; what has several lines makes it taller.

    Args:
      figure: where it goes.
      ax: what it is of: everything with a label there, the ticket first.
      entries: (artist, label) pairs to show instead.
    """
    if entries is None:
        entries = sorted(legend_entries(ax), key=lambda entry: entry[1] != TRUNK)
    labels = [label for _, label in entries]
    columns = _legend_columns(figure, labels)
    rows = -(-len(labels) // max(columns, 1))
    figure.set_figheight(figure.get_figheight() + LINE * max(rows - 1, 0))
    handles = [handle for handle, _ in entries]
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns or 1, columnspacing=1.4
    )


def _legend_columns(figure: Figure, labels: Sequence[str]) -> int:
    """How many columns of `labels` fit below a figure: the longest may need a line to itself."""
    inches = 0.6 + 0.075 * max(map(len, labels), default=0)
    fitting = max(1, min(int(figure.get_figwidth() / inches), len(labels)))
    rows = -(-len(labels) // fitting) or 1
    return -(-len(labels) // rows)  # as even as can be


def legend_entries(ax: Axes) -> list[tuple[Any, str]]:
    """What has a label in `ax`, as entries of a legend."""
    return list(zip(*ax.get_legend_handles_labels(), strict=True))


def legend_entry(colour: str, marker: str, dashes: Any, label: str) -> tuple[Any, str]:
    """An entry of a legend that stands for several lines."""
    from matplotlib.lines import Line2D

    line = Line2D([], [], color=colour, marker=marker, linestyle=dashes, linewidth=1.6)
    line.set_markersize(4.5)
    return line, label
