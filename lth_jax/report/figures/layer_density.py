"""How much of each layer is left at each level: where a criterion prunes."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.colors import LogNorm

from lth_jax.analysis.layers import layer_densities, short_name
from lth_jax.analysis.summary import RANGE, Stat, percent
from lth_jax.report.contents import Contents
from lth_jax.report.drawing import (
    DENSE_COLOUR,
    STYLES,
    Figure,
    image,
    label_decades,
    label_text,
    legend_entries,
    points,
    set_density_axis,
    set_level_ticks,
)
from lth_jax.report.figures.by_density import Runs

CAPTION = (
    "How much of each layer is left. A layer above the dashed line is pruned less than the network "
    "as a whole."
)
WHOLE, LAYER = "weights left in all, %", "weights left in the layer, %"


def draw(runs: Runs) -> Figure | None:
    """Draws each layer's density against the weights left; None where nothing is known.

    Few layers are lines on logarithmic axes; many are an image, a row for each layer.
    """
    (run,) = runs.values()
    found = {name: layer_densities(run.counts)[name] for name in run.layers}
    levels = sorted({n for layer in found.values() for n in layer if run.densities[n] > 0})
    if not levels:
        return None
    return (_lines if len(found) <= len(STYLES) else _image)(run, found, levels)


def _lines(run: Contents, layers: dict[str, dict[int, Stat]], levels: list[int]) -> Figure:
    figure = Figure(run.name, (5.6, 3.4), CAPTION)
    ax = figure.subplots()
    whole = [100 * run.densities[level] for level in levels]
    ax.plot(whole, whole, color=DENSE_COLOUR, linestyle="--", linewidth=1, label="all layers")
    for index, ((name, stats), style) in enumerate(zip(layers.items(), STYLES, strict=False)):
        label = short_name(name)
        shown = {n: s for n, s in stats.items() if n in levels and s.mean > 0}
        densities = [run.densities[level] for level in shown]
        texts = [
            f"{label}, level {level} ({percent(run.densities[level])} in all): "
            f"{percent(stat.mean)} left"
            for level, stat in shown.items()
        ]
        # Lines that coincide show as markers within markers.
        size = max(9 - 2 * index, 3)
        points(
            ax, densities, list(shown.values()), texts, bars=[s.bar(RANGE) for s in shown.values()],
            scale=100, label=label, style=style, size=size,
        )  # fmt: skip
    set_density_axis(ax, [run.densities[level] for level in levels])
    ax.set_yscale("log")
    label_decades(ax.yaxis)
    ax.set_xlabel(WHOLE)
    ax.set_ylabel(LAYER)
    figure.add_legend(legend_entries(ax))
    return figure


def _image(run: Contents, layers: dict[str, dict[int, Stat]], levels: list[int]) -> Figure:
    """Draws a row for each layer, a column for each level, density as colour on a log scale."""
    values = np.array(
        [[100 * at[n].mean if n in at else math.nan for n in levels] for at in layers.values()]
    )
    names = [label_text(short_name(name)) for name in layers]
    densities = [run.densities[level] for level in levels]
    figure = Figure(run.name, (3.4 + 0.28 * len(levels), 1.6 + 0.15 * len(names)), CAPTION)
    ax = figure.subplots()
    lowest = min(values[values > 0], default=1.0)
    shown = image(
        ax,
        values,
        lambda row, column, value: (
            f"{names[row]}, {percent(densities[column])} of all weights: "
            f"{value:.4g}% left in the layer"
        ),
        cmap="viridis",
        aspect="auto",
        norm=LogNorm(vmin=min(lowest, 99.0), vmax=100),
    )
    ax.set_yticks(range(len(names)), names, fontsize=6)
    set_level_ticks(ax.xaxis, densities, 8)
    ax.set_xlabel(WHOLE)
    bar = figure.colorbar(shown, ax=ax, label=LAYER, fraction=0.06)
    label_decades(bar.ax.yaxis)
    return figure
