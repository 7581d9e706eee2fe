"""The mask of the layer that sees the image: which pixels survive, or what kernels are left."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lth_jax.analysis.layers import short_name
from lth_jax.analysis.summary import percent
from lth_jax.report.hover import note_grid
from lth_jax.report.style import blank_figure, grid_of, house_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
KERNELS = 64
DEAD = "#ffffff"
COLOURS = "cividis"  # of one hue order for every eye, and legible in grey


@house_style()
def pixels_figure(
    counts: Mapping[int, np.ndarray],
    most: int,
    densities: Mapping[int, float],
    *,
    name: str,
    title: str = "",
) -> Figure:
    """Connections that each input pixel keeps, a panel for each level, with a scale of its own.

    Pixels without any are white.

    Args:
      counts: level -> float [height, width], the mean over replicates.
      most: connections of a pixel in the dense layer.
      densities: level -> density of the layer.
      name: of the layer's kernel.
      title: over the figure.
    """
    rows, columns = grid_of(len(counts), COLUMNS)
    figure = blank_figure(title, (0.6 + 2.5 * columns, 0.9 + 2.3 * rows))
    axes = figure.subplots(rows, columns, squeeze=False)
    layer = short_name(name)
    for ax, (level, values) in zip(axes.flat, sorted(counts.items()), strict=False):
        top = max(float(values.max()), 1.0)
        shown = np.where(values > 0, values, math.nan)
        image = _image(ax, shown, vmin=0, vmax=top)
        bar = figure.colorbar(image, ax=ax, fraction=0.045, pad=0.03)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        bar.ax.tick_params(labelsize=7, length=2)
        empty = int((values == 0).sum())
        dead = f", {empty} pixels cut off" if empty else ""
        ax.set_title(f"{percent(densities[level])} of {layer}{dead}", fontsize=8)
        left = percent(densities[level])
        text = (
            f"{left} of {layer}: pixel (row {{row}}, column {{column}}) keeps {{value}} of {most}"
        )
        note_grid(ax, values, f"{text} connections")
    for ax in axes.flat[len(counts) :]:
        ax.set_visible(False)
    figure.supxlabel("connections left of each input pixel, mean over replicates", fontsize=9)
    return figure


@house_style()
def kernels_figure(
    masks: Mapping[int, np.ndarray], densities: Mapping[int, float], *, name: str, title: str = ""
) -> Figure:
    """The masks of a convolution's kernels side by side, a panel for each level.

    Args:
      masks: level -> bool [height, width, channels, units], of one replicate.
      densities: level -> density of the layer.
      name: of the layer's kernel.
      title: over the figure.
    """
    rows, columns = grid_of(len(masks), COLUMNS)
    _, _, channels, units = next(iter(masks.values())).shape
    tall, wide = mosaic(next(iter(masks.values())))[0].shape
    size = 0.6 + 2.5 * columns, 1.0 + rows * (0.3 + 2.4 * tall / wide)
    figure = blank_figure(title, size)
    axes = figure.subplots(rows, columns, squeeze=False)
    layer = short_name(name)
    image: Any = None
    for ax, (level, mask) in zip(axes.flat, sorted(masks.items()), strict=False):
        tiles, names = mosaic(mask)
        image = _image(ax, tiles, vmin=0, vmax=1)
        left = percent(densities[level])
        ax.set_title(f"{left} of {layer}", fontsize=8)
        note_grid(
            ax, tiles, f"{left} of {layer}, {{row}} {{column}}: {{value}} of the channels", *names
        )
    for ax in axes.flat[len(masks) :]:
        ax.set_visible(False)
    if channels > 1:
        bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02)
        bar.set_label("share of the channels kept", fontsize=8)
    which = f"the first {KERNELS} of {units}" if units > KERNELS else f"all {units}"
    what = "" if channels > 1 else "; yellow: kept"
    figure.supxlabel(f"kernels of {layer}, {which}; replicate 0{what}", fontsize=9)
    return figure


def mosaic(mask: np.ndarray) -> tuple[np.ndarray, tuple[list[str], list[str]]]:
    """Kernels as tiles of one image, a pixel apart, channels averaged.

    Args:
      mask: bool [height, width, channels, units].

    Returns:
      The image, float with NaN between tiles, and what to call its rows and columns.
    """
    height, width, _, units = mask.shape
    shown = min(units, KERNELS)
    columns = math.ceil(math.sqrt(shown))
    rows = -(-shown // columns)
    image = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), math.nan)
    for unit in range(shown):
        top, left = unit // columns * (height + 1), unit % columns * (width + 1)
        image[top : top + height, left : left + width] = mask[..., unit].mean(axis=2)
    names = [
        [f"{side} {index // (size + 1)} · {index % (size + 1)}," for index in range(count)]
        for side, size, count in (
            ("row of kernels", height, image.shape[0]), ("column", width, image.shape[1])
        )
    ]  # fmt: skip
    return image, (names[0], names[1])


def _image(ax: Axes, values: np.ndarray, *, vmin: float, vmax: float) -> Any:
    import matplotlib

    colours = matplotlib.colormaps[COLOURS].with_extremes(bad=DEAD)
    image = ax.imshow(values, cmap=colours, vmin=vmin, vmax=vmax, interpolation="none")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(visible=False)
    ax.spines[:].set_visible(True)
    ax.spines[:].set(color="#bbbbbb", linewidth=0.6)
    return image


def panel_levels(
    levels: Sequence[int], densities: Mapping[int, float], wanted: int = 6
) -> list[int]:
    """At most `wanted` of the levels, evenly spaced in log density from the first to the last."""
    levels = sorted(level for level in levels if densities.get(level, 0) > 0)
    if len(levels) <= wanted:
        return levels
    logs = [math.log(densities[level]) for level in levels]
    marks = np.linspace(logs[0], logs[-1], wanted)
    nearest = {min(range(len(logs)), key=lambda i: abs(logs[i] - mark)) for mark in marks}
    return [levels[index] for index in sorted(nearest)]
