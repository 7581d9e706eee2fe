"""Whether replicates find the same mask, against chance."""

from __future__ import annotations

import math

from lth_jax.analysis.layers import short_name
from lth_jax.analysis.overlap import between_replicates, total
from lth_jax.analysis.summary import RANGE, Stat, percent
from lth_jax.report.drawing import (
    DENSE_COLOUR,
    STYLES,
    TICKET_STYLE,
    Figure,
    label_decades,
    label_text,
    legend_entries,
    note,
    points,
    set_density_axis,
    spread,
)
from lth_jax.report.figures.by_density import Runs
from lth_jax.report.figures.initial_weights import PANELS, some_layers

CAPTION = (
    "Jaccard index (weights that both masks keep over those that either keeps) of two replicates' "
    "masks, mean and range over pairs, and that of random masks with the same counts in each "
    "layer; on the right, how many times chance that is. Hidden units of two replicates have no "
    "common order: only pixels and classes can agree."
)


def draw(runs: Runs) -> Figure | None:
    """Draws the Jaccard index of two replicates' masks and chance's, and their ratio by layer.

    Returns:
      The figure, or None where no two replicates have a pruned level in common.
    """
    (run,) = runs.values()
    pairs = {n: p for n, p in between_replicates(run.masks).items() if 0 < run.densities[n] < 1}
    if not pairs:
        return None
    densities = [run.densities[level] for level in pairs]
    layers = spread(run.layers, PANELS)
    figure = Figure(run.name, (8.2, 3.6), CAPTION + some_layers(run, len(layers)))
    left, right = figure.subplots(1, 2)

    whole = [[total(pair.values()) for pair in at] for at in pairs.values()]
    stats = [Stat.of([pair.jaccard for pair in at]) for at in whole]
    chance = [Stat.of([pair.chance for pair in at]).mean for at in whole]
    texts = [
        f"level {level}, {percent(run.densities[level])} of the weights: Jaccard index "
        f"{stat.mean:.3f}, by chance {expected:.3f} ({len(pairs[level])} pairs of replicates)"
        for level, stat, expected in zip(pairs, stats, chance, strict=True)
    ]
    points(
        left, densities, stats, texts, bars=[stat.bar(RANGE) for stat in stats], scale=1,
        label="tickets, all layers", style=TICKET_STYLE, width=1.6,
    )  # fmt: skip
    x = [100 * density for density in densities]
    left.plot(x, chance, color=DENSE_COLOUR, linestyle="--", linewidth=1, label="chance")
    note(left, x, chance, texts)
    left.set_yscale("log")
    label_decades(left.yaxis)

    right.axhline(1, color=DENSE_COLOUR, linestyle="--", linewidth=1)
    for layer, style in zip(layers, STYLES, strict=False):
        name, x, y, texts = short_name(layer), [], [], []
        for level, at in pairs.items():
            index = Stat.of([pair[layer].jaccard for pair in at]).mean
            expected = Stat.of([pair[layer].chance for pair in at]).mean
            if expected > 0 and math.isfinite(index):
                x.append(100 * run.densities[level])
                y.append(index / expected)
                texts.append(
                    f"{name}, level {level}: Jaccard index {index:.3f}, {index / expected:.2f} "
                    f"times chance's {expected:.3f}"
                )
        right.plot(
            x, y, color=style.colour, marker=style.marker, linestyle=style.dashes, linewidth=1.2,
            markersize=4, label=label_text(name),
        )  # fmt: skip
        note(right, x, y, texts)

    for ax, title, unit in (
        (left, "Two replicates' masks", "Jaccard index"),
        (right, "By layer", "times chance"),
    ):
        set_density_axis(ax, densities, labels=7)
        ax.set_title(title)
        ax.set_ylabel(unit)
    figure.add_legend([*legend_entries(left), *legend_entries(right)])
    return figure
