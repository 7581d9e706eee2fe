"""Histograms of surviving initial weights against all (Frankle & Carbin 2019, Appendix F.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lth_jax.analysis.layers import layer_order, short_name
from lth_jax.analysis.summary import percent
from lth_jax.analysis.weights import Histograms
from lth_jax.report.axes import add_legend
from lth_jax.report.hover import note_points
from lth_jax.report.style import blank_figure, grid_of, house_style, level_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 6
ALL_COLOUR = "#c8c8c8"


def shown_layers(names: Sequence[str], first: str = "") -> list[str]:
    """At most six layers, evenly spaced from the first to the last."""
    ordered = layer_order(names, first)
    if len(ordered) <= PANELS:
        return ordered
    return [ordered[round(i * (len(ordered) - 1) / (PANELS - 1))] for i in range(PANELS)]


@house_style()
def weights_figure(
    histograms: Mapping[str, Histograms], densities: Mapping[int, float], *, title: str = ""
) -> Figure | None:
    """For each layer the initial weights that survive to some levels, against all of them.

    Args:
      histograms: layer -> its histograms, in the order of the panels.
      densities: level -> density of the whole ticket.
      title: over the figure.
    """
    if not histograms:
        return None
    rows, columns = grid_of(len(histograms), 3)
    figure = blank_figure(title, (1.0 + 2.7 * columns, 1.1 + 2.2 * rows))
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax, (name, found) in zip(axes.flat, histograms.items(), strict=False):
        _draw(ax, name, found, densities)
    for ax in axes.flat[len(histograms) :]:
        ax.set_visible(False)
    for ax in axes[:, 0]:
        ax.set_ylabel("probability density")
    add_legend(figure, axes.flat[0])
    return figure


def _draw(ax: Axes, name: str, found: Histograms, densities: Mapping[int, float]) -> None:
    centres = (found.edges[:-1] + found.edges[1:]) / 2
    ax.stairs(
        found.shares(found.all), found.edges, fill=True, color=ALL_COLOUR, label="all weights"
    )
    levels = sorted(level for level in found.kept if found.kept[level].sum())
    for colour, level in zip(level_colours(len(levels)), levels, strict=True):
        counts = found.kept[level]
        left = percent(densities[level])
        label = f"{left} left"
        shares = found.shares(counts)
        ax.stairs(shares, found.edges, color=colour, linewidth=1.2, label=label)
        with np.errstate(invalid="ignore", divide="ignore"):
            survived = counts / found.all
        note_points(
            ax,
            centres,
            shares,
            [
                f"{short_name(name)}, {label}: of the weights near {centre:+.3f}, "
                f"{counts[i]:,} of {found.all[i]:,} survive ({percent(float(survived[i]))})"
                if found.all[i]
                else f"{short_name(name)}: no weight near {centre:+.3f}"
                for i, centre in enumerate(centres)
            ],
        )
    ax.set_title(short_name(name))
    ax.set_xlabel("initial weight")
    ax.set_ylim(bottom=0)
