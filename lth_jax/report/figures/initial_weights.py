"""Which initial weights survive, against all of them (Frankle & Carbin 2019, Appendix F.1)."""

from __future__ import annotations

from matplotlib.axes import Axes

from lth_jax.analysis.layers import Histograms, initial_weight_histograms, short_name
from lth_jax.analysis.summary import percent
from lth_jax.report.contents import Contents
from lth_jax.report.drawing import Figure, grid_of, legend_entries, level_colours, note, spread
from lth_jax.report.figures.by_density import Runs

PANELS = 6  # layers
LINES = 4  # levels in one panel
CAPTION = (
    "Distribution of the initial weights of what survives (lines) against all of the layer (grey), "
    "replicates pooled, as in Frankle & Carbin (2019), Appendix F.1."
)


def draw(runs: Runs) -> Figure | None:
    """Draws histograms of initial weights, a panel for each of some layers; None without masks."""
    (run,) = runs.values()
    pruned = {level for _, level in run.masks if level and run.densities[level] > 0}
    levels = spread(sorted(pruned), LINES)
    if not levels or not run.initial:
        return None
    layers = spread(run.layers, PANELS)
    rows, columns = grid_of(len(layers), 3)
    size = 1.0 + 2.7 * columns, 1.1 + 2.2 * rows
    figure = Figure(run.name, size, CAPTION + some_layers(run, len(layers)))
    axes = figure.panels(len(layers), 3)
    for ax, name in zip(axes, layers, strict=True):
        _draw_layer(ax, short_name(name), _histograms(run, name, levels), run.densities)
    for ax in axes[::columns]:
        ax.set_ylabel("probability density")
    figure.add_legend(legend_entries(axes[0]))
    return figure


def some_layers(run: Contents, shown: int) -> str:
    """Returns what a caption adds where not every layer is shown."""
    return "" if shown == len(run.layers) else f" {shown} of {len(run.layers)} layers are shown."


def _histograms(run: Contents, name: str, levels: list[int]) -> Histograms:
    initial = {replicate: weights[name] for replicate, weights in run.initial.items()}
    kept = {
        level: [
            weights[run.masks[replicate, level][name].unpacked()]
            for replicate, weights in initial.items()
            if (replicate, level) in run.masks
        ]
        for level in levels
    }
    return initial_weight_histograms(list(initial.values()), kept)


def _draw_layer(ax: Axes, layer: str, found: Histograms, densities: dict[int, float]) -> None:
    edges = found.edges
    centres = (edges[:-1] + edges[1:]) / 2
    ax.stairs(found.shares(found.all), edges, fill=True, color="#c8c8c8", label="all weights")
    levels = [level for level in found.kept if found.kept[level].sum()]
    for colour, level in zip(level_colours(len(levels)), levels, strict=True):
        left, kept = f"{percent(densities[level])} left", found.kept[level]
        shares = found.shares(kept)
        ax.stairs(shares, edges, color=colour, linewidth=1.2, label=left)
        texts = [
            f"{layer}, {left}: of the weights near {centre:+.3f}, {some:,} of {every:,} survive "
            f"({percent(some / every)})"
            if every
            else f"{layer}: no weight near {centre:+.3f}"
            for centre, some, every in zip(centres, kept.tolist(), found.all.tolist(), strict=True)
        ]
        note(ax, centres, shares, texts)
    ax.set_title(layer)
    ax.set_xlabel("initial weight")
    ax.set_ylim(bottom=0)
