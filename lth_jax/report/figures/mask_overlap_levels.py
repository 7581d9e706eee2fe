"""How far the masks of levels agree: in one replicate, between two, and by chance."""

from __future__ import annotations

from typing import Any

import numpy as np

from lth_jax.analysis.overlap import between_levels
from lth_jax.analysis.summary import percent
from lth_jax.report.drawing import IMAGE_COLOURS, Figure, image, set_level_ticks
from lth_jax.report.figures.by_density import Runs

CAPTION = (
    "Jaccard index of the masks of two levels: of one replicate, whose masks are nested where each "
    "is pruned from the one before; of two replicates; and of random masks."
)


def draw(runs: Runs) -> Figure | None:
    """Draws the Jaccard indices of levels with levels; None where there are fewer than two."""
    (run,) = runs.values()
    found = between_levels(run.masks)
    panels = {
        "one replicate": found.same,
        "two replicates": found.different,
        "chance": found.chance,
    }
    panels = {name: values for name, values in panels.items() if np.isfinite(values).any()}
    if len(found.levels) < 2 or not panels:
        return None
    densities = [run.densities[level] for level in found.levels]
    left = [percent(density) for density in densities]
    figure = Figure(run.name, (1.4 + 2.5 * len(panels), 3.3), CAPTION)
    axes = figure.panels(len(panels), len(panels), sharey=True)
    shown: Any = None
    for ax, (name, values) in zip(axes, panels.items(), strict=True):
        shown = image(
            ax,
            values,
            lambda row, column, value, name=name: (
                f"{left[row]} with {left[column]}, {name}: {value:.4g}"
            ),
            cmap=IMAGE_COLOURS,
            vmin=0,
            vmax=1,
        )
        ax.set_title(name)
        set_level_ticks(ax.xaxis, densities, 6)
    set_level_ticks(axes[0].yaxis, densities, 6)
    figure.colorbar(shown, ax=axes, label="Jaccard index", fraction=0.03, pad=0.02)
    return figure
