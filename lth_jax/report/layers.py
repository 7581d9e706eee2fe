"""Density of each layer by level: where a criterion prunes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lth_jax.analysis.layers import layer_order, short_name
from lth_jax.analysis.summary import Stat, percent
from lth_jax.report.axes import add_legend, label_decades, set_density_axis
from lth_jax.report.hover import note_grid, note_points
from lth_jax.report.style import (
    BRANCH_STYLES,
    DENSE_COLOUR,
    TICKET_STYLE,
    Style,
    blank_figure,
    house_style,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES = (TICKET_STYLE, *BRANCH_STYLES)

# Layer -> level -> density over replicates, as `layer_densities` gives it.
LayerDensities = Mapping[str, Mapping[int, Stat]]


@house_style()
def layers_figure(
    layers: LayerDensities, densities: Mapping[int, float], *, first: str = "", title: str = ""
) -> Figure | None:
    """Density of each layer in percent against the weights left; None where nothing is known.

    Few layers are lines on logarithmic axes; many are an image, a row for each layer.

    Args:
      layers: the densities of prunable layers.
      densities: level -> density of the whole ticket.
      first: the layer that sees the image, if it is known.
      title: over the figure.
    """
    drawable = {level: density for level, density in densities.items() if density > 0}
    names = layer_order(layers, first)
    levels = sorted({level for name in names for level in layers[name] if level in drawable})
    if not levels:
        return None
    if len(names) > len(STYLES):
        return _image(layers, names, levels, drawable, title)
    figure, axes = new_figure(title, 1, 1)
    ax = axes[0, 0]
    whole = [100 * drawable[level] for level in levels]
    ax.plot(whole, whole, color=DENSE_COLOUR, linestyle="--", linewidth=1, label="all layers")
    for index, (name, style) in enumerate(zip(names, STYLES, strict=False)):
        # Lines that coincide show as markers within markers.
        size = max(9 - 2 * index, 3)
        _line(ax, name, layers[name], drawable, style, size)
    set_density_axis(ax, [drawable[level] for level in levels])
    ax.set_yscale("log")
    label_decades(ax.yaxis)
    ax.set_xlabel("weights left in all, %")
    ax.set_ylabel("weights left in the layer, %")
    add_legend(figure, ax)
    return figure


def _line(
    ax: Axes,
    name: str,
    levels: Mapping[int, Stat],
    densities: Mapping[int, float],
    style: Style,
    size: float,
) -> None:
    colour, marker, dashes = style
    shown = {n: s for n, s in levels.items() if n in densities and s.mean > 0}
    x = [100 * densities[level] for level in shown]
    stats = list(shown.values())
    y = [100 * stat.mean for stat in stats]
    bars = [
        [100 * (stat.mean - stat.minimum) for stat in stats],
        [100 * (stat.maximum - stat.mean) for stat in stats],
    ]
    label = short_name(name)
    ax.errorbar(
        x, y, yerr=bars, color=colour, marker=marker, linestyle=dashes, label=label,
        linewidth=1.2, markersize=size, elinewidth=0.9, capsize=2,
    )  # fmt: skip
    texts = [
        f"{label}, level {level} ({percent(densities[level])} in all): {percent(stat.mean)} left"
        for level, stat in shown.items()
    ]
    note_points(ax, x, y, texts)


def _image(
    layers: LayerDensities,
    names: Sequence[str],
    levels: Sequence[int],
    densities: Mapping[int, float],
    title: str,
) -> Figure:
    """A row for each layer, a column for each level, the density as colour on a log scale."""
    from matplotlib.colors import LogNorm

    values = np.array(
        [
            [
                100 * layers[name][level].mean if level in layers[name] else math.nan
                for level in levels
            ]
            for name in names
        ]
    )
    figure = blank_figure(title, (3.4 + 0.28 * len(levels), 1.6 + 0.15 * len(names)))
    ax = figure.subplots()
    positive = values[np.isfinite(values) & (values > 0)]
    low = float(positive.min()) if positive.size else 1.0
    norm = LogNorm(vmin=min(low, 99.0), vmax=100)
    image = ax.imshow(values, aspect="auto", cmap="viridis", norm=norm, interpolation="none")
    shown = [short_name(name) for name in names]
    ax.set_yticks(range(len(names)), shown, fontsize=6)
    step = -(-len(levels) // 8)
    left = [percent(densities[level]) for level in levels]
    ax.set_xticks(range(0, len(levels), step), [text.rstrip("%") for text in left[::step]])
    ax.grid(visible=False)
    ax.set_xlabel("weights left in all, %")
    bar = figure.colorbar(image, ax=ax, label="weights left in the layer, %", fraction=0.06)
    label_decades(bar.ax.yaxis)
    note_grid(ax, values, "{row}, {column} of all weights: {value}% left in the layer", shown, left)
    return figure
