"""The mask of the layer that sees the image: which pixels survive, or what kernels are left."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from lth_jax.analysis.layers import (
    connections_by_pixel,
    kernel_tiles,
    layer_densities,
    short_name,
)
from lth_jax.analysis.summary import percent
from lth_jax.errors import UserError
from lth_jax.report.contents import Contents
from lth_jax.report.drawing import IMAGE_COLOURS, Figure, grid_of, image, spread
from lth_jax.report.figures.by_density import Runs

COLUMNS = 3
LEVELS = 6
KERNELS = 64
PIXELS = (
    "How many connections each input pixel keeps at some levels, mean over replicates. Each panel "
    "has a scale of its own; white pixels are cut off from the network."
)
TILES = "The masks of the first kernels at some levels, of replicate 0."


def draw(runs: Runs) -> Figure | None:
    """Draws the first layer's mask, a panel for each of some levels; None without masks."""
    (run,) = runs.values()
    if not run.masks or (run.first is None and not run.of_images):
        return None
    if run.first is None or run.first.name not in run.layers:
        raise UserError("what layer sees the image is unknown")
    wanted = spread([n for n, density in run.densities.items() if n and density > 0], LEVELS)
    masks = {
        level: [
            layers[run.first.name].unpacked()
            for (replicate, at), layers in run.masks.items()
            if at == level and (run.first.image or replicate == 0)
        ]
        for level in wanted
    }
    masks = {level: found for level, found in masks.items() if found}
    if not masks:
        return None
    if run.first.image:
        return _pixels(run, run.first.name, run.first.image, masks)
    return _kernels(run, run.first.name, {level: mask for level, (mask,) in masks.items()})


def _pixels(
    run: Contents, name: str, shape: tuple[int, int, int], masks: dict[int, list[np.ndarray]]
) -> Figure:
    """Draws how many connections each input pixel keeps."""
    rows, columns = grid_of(len(masks), COLUMNS)
    figure = Figure(run.name, (0.6 + 2.5 * columns, 0.9 + 2.3 * rows), PIXELS)
    inputs, units = next(iter(masks.values()))[0].shape
    most = inputs * units // (shape[0] * shape[1])
    for ax, (level, found) in zip(figure.panels(len(masks), COLUMNS), masks.items(), strict=True):
        values = np.mean([connections_by_pixel(mask, shape) for mask in found], axis=0)
        left = f"{percent(layer_densities(run.counts)[name][level].mean)} of {short_name(name)}"
        shown = _show(
            ax,
            np.where(values > 0, values, math.nan),
            lambda row, column, value: (
                f"pixel (row {row}, column {column}) keeps {value:.4g} of {most} connections"
            ),
            top=max(float(values.max()), 1.0),
            nothing="this pixel is cut off",
        )
        bar: Any = figure.colorbar(shown, ax=ax, fraction=0.045, pad=0.03)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=7, length=2)
        empty = int((values == 0).sum())
        ax.set_title(left + (f", {empty} pixels cut off" if empty else ""), fontsize=8)
    figure.supxlabel("connections left of each input pixel, mean over replicates", fontsize=9)
    return figure


def _kernels(run: Contents, name: str, masks: dict[int, np.ndarray]) -> Figure:
    """Draws the masks of a convolution's kernels side by side, channels averaged."""
    height, width, channels, units = next(iter(masks.values())).shape
    tiles = {level: kernel_tiles(mask, KERNELS) for level, mask in masks.items()}
    tall, wide = next(iter(tiles.values())).shape
    rows, columns = grid_of(len(masks), COLUMNS)
    size = 0.6 + 2.5 * columns, 1.0 + rows * (0.3 + 2.4 * tall / wide)
    figure = Figure(run.name, size, TILES)
    axes = figure.panels(len(masks), COLUMNS)
    layer = short_name(name)
    shown: Any = None

    def said(row: int, column: int, value: float) -> str:
        (down, y), (across, x) = divmod(row, height + 1), divmod(column, width + 1)
        which = f"kernel in row {down}, column {across}"
        return f"{which}, at (row {y}, column {x}): keeps {value:.4g} of the channels"

    for ax, (level, values) in zip(axes, tiles.items(), strict=True):
        shown = _show(ax, values, said, top=1.0)
        left = percent(layer_densities(run.counts)[name][level].mean)
        ax.set_title(f"{left} of {layer}", fontsize=8)
    if channels > 1:
        bar = figure.colorbar(shown, ax=axes, fraction=0.03, pad=0.02)
        bar.set_label("share of the channels kept", fontsize=8)
    which = f"the first {KERNELS} of {units}" if units > KERNELS else f"all {units}"
    what = "" if channels > 1 else "; yellow: kept"
    figure.supxlabel(f"kernels of {layer}, {which}; replicate 0{what}", fontsize=9)
    return figure


def _show(ax: Axes, values: np.ndarray, said: Any, *, top: float, nothing: str = "") -> Any:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(True)
    ax.spines[:].set(color="#bbbbbb", linewidth=0.6)
    return image(ax, values, said, cmap=IMAGE_COLOURS, vmin=0, vmax=top, nothing=nothing)
