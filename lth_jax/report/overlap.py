"""How far masks of replicates and levels agree, against chance."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lth_jax.analysis.layers import short_name
from lth_jax.analysis.overlap import LevelOverlaps, Overlap, total
from lth_jax.analysis.summary import Stat, percent
from lth_jax.report.axes import (
    add_legend,
    label_decades,
    legend_entries,
    set_density_axis,
)
from lth_jax.report.hover import note_grid, note_points
from lth_jax.report.style import (
    BRANCH_STYLES,
    DENSE_COLOUR,
    TICKET_STYLE,
    Style,
    blank_figure,
    house_style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = {"same": "one replicate", "different": "two replicates", "chance": "chance"}
STYLES = (TICKET_STYLE, *BRANCH_STYLES)

# Level -> each pair of replicates -> layer -> overlap, as `between_replicates` gives it.
PairOverlaps = Mapping[int, Sequence[Mapping[str, Overlap]]]


@house_style()
def replicates_figure(
    pairs: PairOverlaps, densities: Mapping[int, float], layers: Sequence[str], *, title: str = ""
) -> Figure | None:
    """Left: the Jaccard index of two replicates' masks, and chance's. Right: their ratio by layer.

    Args:
      pairs: the overlaps.
      densities: level -> density of the whole ticket.
      layers: those to show on the right, in their order.
      title: over the figure.

    Returns:
      The figure, or None where no two replicates have a pruned level in common.
    """
    levels = sorted(level for level in pairs if 0 < densities.get(level, 0) < 1)
    if not levels:
        return None
    figure = blank_figure(title, (8.2, 3.6))
    left, right = figure.subplots(1, 2)
    whole = {level: [total(pair.values()) for pair in pairs[level]] for level in levels}
    _index(left, whole, densities)
    right.axhline(1, color=DENSE_COLOUR, linestyle="--", linewidth=1)
    for layer, style in zip(layers, itertools.cycle(STYLES)):
        of_layer = {level: [pair[layer] for pair in pairs[level]] for level in levels}
        _ratio(right, short_name(layer), of_layer, densities, style)
    for ax in (left, right):
        set_density_axis(ax, [densities[level] for level in levels], labels=7)
        ax.set_xlabel("weights left, %")
    left.set_ylabel("Jaccard index")
    right.set_ylabel("times chance")
    left.set_title("Two replicates' masks")
    right.set_title("By layer")
    entries = [entry for ax in (left, right) for entry in legend_entries(ax)]
    add_legend(figure, left, entries)
    return figure


def _index(
    ax: Axes, overlaps: Mapping[int, Sequence[Overlap]], densities: Mapping[int, float]
) -> None:
    """Mean and range over pairs of replicates, and what chance would give, on a log axis."""
    x = [100 * densities[level] for level in overlaps]
    stats = [Stat.of([pair.jaccard for pair in pairs]) for pairs in overlaps.values()]
    chance = [Stat.of([pair.chance for pair in pairs]).mean for pairs in overlaps.values()]
    y = [stat.mean for stat in stats]
    bars = [
        [stat.mean - stat.minimum for stat in stats],
        [stat.maximum - stat.mean for stat in stats],
    ]
    ax.errorbar(
        x, y, yerr=bars, color=TICKET_STYLE.colour, marker=TICKET_STYLE.marker, linewidth=1.6,
        markersize=4.5, elinewidth=0.9, capsize=2, label="tickets, all layers",
    )  # fmt: skip
    ax.plot(x, chance, color=DENSE_COLOUR, linestyle="--", linewidth=1, label="chance")
    ax.set_yscale("log")
    label_decades(ax.yaxis)
    for level, mean, expected, at in zip(overlaps, y, chance, x, strict=True):
        text = (
            f"level {level}, {percent(densities[level])} of the weights: Jaccard index {mean:.3f}, "
            f"by chance {expected:.3f} ({len(overlaps[level])} pairs of replicates)"
        )
        note_points(ax, [at, at], [mean, expected], [text, text])


def _ratio(
    ax: Axes,
    name: str,
    overlaps: Mapping[int, Sequence[Overlap]],
    densities: Mapping[int, float],
    style: Style,
) -> None:
    x, y, texts = [], [], []
    for level, pairs in overlaps.items():
        index = Stat.of([pair.jaccard for pair in pairs]).mean
        chance = Stat.of([pair.chance for pair in pairs]).mean
        if chance > 0 and math.isfinite(index):
            x.append(100 * densities[level])
            y.append(index / chance)
            texts.append(
                f"{name}, level {level}: Jaccard index {index:.3f}, {index / chance:.2f} times "
                f"chance's {chance:.3f}"
            )
    ax.plot(
        x, y, color=style.colour, marker=style.marker, linestyle=style.dashes, linewidth=1.2,
        markersize=4, label=name,
    )  # fmt: skip
    note_points(ax, x, y, texts)


@house_style()
def levels_figure(
    overlaps: LevelOverlaps, densities: Mapping[int, float], *, title: str = ""
) -> Figure | None:
    """Jaccard indices of levels with levels: in one replicate, of two replicates, and by chance.

    Returns:
      The figure, or None where there are fewer than two levels.
    """
    panels = {
        name: getattr(overlaps, field)
        for field, name in PANELS.items()
        if np.isfinite(getattr(overlaps, field)).any()
    }
    if len(overlaps.levels) < 2 or not panels:
        return None
    figure = blank_figure(title, (1.4 + 2.5 * len(panels), 3.3))
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    left = [percent(densities[level]) for level in overlaps.levels]
    step = -(-len(left) // 6)
    image: Any = None
    for ax, (name, values) in zip(axes, panels.items(), strict=True):
        image = ax.imshow(values, cmap="cividis", vmin=0, vmax=1, interpolation="none")
        ax.set_title(name)
        ax.set_xticks(range(0, len(left), step), [text.rstrip("%") for text in left[::step]])
        ax.set_yticks(range(0, len(left), step), [text.rstrip("%") for text in left[::step]])
        ax.grid(visible=False)
        ax.set_xlabel("weights left, %")
        note_grid(ax, values, f"{{row}} with {{column}}, {name}: {{value}}", left, left)
    axes[0].set_ylabel("weights left, %")
    figure.colorbar(image, ax=axes, label="Jaccard index", fraction=0.03, pad=0.02)
    return figure
