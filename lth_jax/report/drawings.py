"""All figures of a report, in the order of the page, each with what it says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lth_jax.analysis.layers import connections_by_pixel, layer_densities
from lth_jax.analysis.overlap import between_levels, between_replicates
from lth_jax.analysis.weights import initial_weight_histograms
from lth_jax.report.captions import CAPTIONS, COMPARISONS, HEADINGS, published, some_layers
from lth_jax.report.contents import Contents, Tickets
from lth_jax.report.curves import curves_figure, run_curves_figure
from lth_jax.report.figures import (
    Reference,
    accuracy_figure,
    branch_lines,
    early_stop_figure,
    run_lines,
)
from lth_jax.report.first_layer import kernels_figure, panel_levels, pixels_figure
from lth_jax.report.layers import layers_figure
from lth_jax.report.overlap import levels_figure, replicates_figure
from lth_jax.report.paired import paired_figure
from lth_jax.report.weights import shown_layers, weights_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Shown(NamedTuple):
    """A figure of the page.

    Attributes:
      name: of its files, and of its place on the page.
      heading: over it.
      caption: what is to be seen, below it.
      figure: itself.
    """

    name: str
    heading: str
    caption: str
    figure: Figure


LINES = 4  # levels in one panel
# Gives a figure, or None where there is nothing to draw.
_Draw = Callable[[], "Figure | None"]


def result_figures(contents: Contents) -> list[Shown]:
    """The figures of one run that rows, curves and counts of weights are enough for."""
    lines = branch_lines(contents.rows)
    reference, title, densities = contents.spec.reference, contents.name, contents.densities
    first = contents.first.name if contents.first else ""
    parts: dict[str, _Draw] = {
        "accuracy": lambda: accuracy_figure(lines, title=title, reference=reference),
        "early_stop": lambda: early_stop_figure(lines, title=title, reference=reference),
        "paired_difference": lambda: paired_figure({title: contents.rows}, title=title),
        "curves": lambda: curves_figure(
            contents.curves, densities, branches=contents.spec.branches, title=title
        ),
        "layer_density": lambda: layers_figure(
            layer_densities(contents.counts), densities, first=first, title=title
        ),
    }
    if not lines:
        del parts["accuracy"], parts["early_stop"]
    if not contents.curves:
        del parts["curves"]
    return _drawn(parts, CAPTIONS | _published(reference, CAPTIONS), contents.notes)


def ticket_figures(contents: Contents, tickets: Tickets) -> list[Shown]:
    """The figures of one run that are made of masks and initial weights."""
    layers = list(next(iter(contents.counts.values()), {}))
    some = shown_layers(layers, contents.first.name if contents.first else "")
    title, densities = contents.name, contents.densities
    captions = dict(CAPTIONS)
    for name in ("initial_weights", "mask_overlap"):
        captions[name] += some_layers(len(some), len(layers))
    if contents.first and contents.first.image is None:
        captions["first_layer_mask"] = captions["first_layer_kernels"]
    parts: dict[str, _Draw] = {
        "first_layer_mask": lambda: _first_layer(contents, tickets),
        "initial_weights": lambda: _initial_weights(contents, tickets, some),
        "mask_overlap": lambda: replicates_figure(
            between_replicates(tickets.masks), densities, some, title=title
        ),
        "mask_overlap_levels": lambda: levels_figure(
            between_levels(tickets.masks), densities, title=title
        ),
    }
    return _drawn(parts, captions, contents.notes)


def comparison_figures(runs: Mapping[str, Contents], notes: list[str]) -> list[Shown]:
    """Several runs overlaid: what their rows and curves are enough for."""
    rows = {name: contents.rows for name, contents in runs.items()}
    curves = {name: (one.curves, one.densities) for name, one in runs.items() if one.curves}
    lines = run_lines(rows)
    reference = _references(list(runs.values()))
    parts: dict[str, _Draw] = {
        "accuracy": lambda: accuracy_figure(lines, reference=reference),
        "early_stop": lambda: early_stop_figure(lines, reference=reference),
        "paired_difference": lambda: paired_figure(rows),
        "curves": lambda: run_curves_figure(curves),
    }
    if not lines:
        del parts["accuracy"], parts["early_stop"]
    if not curves:
        del parts["curves"]
    return _drawn(parts, COMPARISONS | _published(reference, COMPARISONS), notes)


def _published(reference: Reference, captions: Mapping[str, str]) -> dict[str, str]:
    """The captions of the figures in which published points are drawn."""
    if not reference:
        return {}
    more = published(str(reference.get("title", "Published points")))
    return {name: captions[name] + more for name in ("accuracy", "early_stop")}


def _drawn(
    parts: Mapping[str, _Draw], captions: Mapping[str, str], notes: list[str]
) -> list[Shown]:
    """The parts that can be drawn; one that fails is named, and takes no other with it."""
    shown = []
    for name, draw in parts.items():
        try:
            figure = draw()
        except Exception as error:  # the report of a long run is worth more than one figure
            notes.append(f"figure {name} is left out: {type(error).__name__}: {error}")
            continue
        if figure is not None:
            shown.append(Shown(name, HEADINGS[name], captions[name], figure))
    return shown


def _references(runs: Sequence[Contents]) -> Reference:
    """The published points of all runs; where they disagree, the first run's."""
    merged: dict[str, Any] = {}
    for contents in reversed(runs):
        merged |= contents.spec.reference
    return MappingProxyType(merged)


def _first_layer(contents: Contents, tickets: Tickets) -> Figure | None:
    first = contents.first
    densities = layer_densities(contents.counts).get(first.name) if first else None
    if first is None or densities is None:
        if tickets.masks:
            contents.notes.append(
                "figure first_layer_mask is left out: what layer sees the image is unknown"
            )
        return None
    levels = panel_levels([level for level in contents.densities if level], contents.densities)
    left = {level: stat.mean for level, stat in densities.items()}
    if first.image is None:
        packed = {n: tickets.masks[0, n][first.name] for n in levels if (0, n) in tickets.masks}
        masks = {level: mask.unpacked() for level, mask in packed.items()}
        title = contents.name
        return kernels_figure(masks, left, name=first.name, title=title) if masks else None
    counts: dict[int, np.ndarray] = {}
    for level in levels:
        here = [masks[first.name] for (_, at), masks in tickets.masks.items() if at == level]
        if here:
            pixels = [connections_by_pixel(mask.unpacked(), first.image) for mask in here]
            counts[level] = np.mean(pixels, axis=0)
    if not counts:
        return None
    most = math.prod(next(iter(tickets.masks.values()))[first.name].shape) // (
        first.image[0] * first.image[1]
    )
    return pixels_figure(counts, most, left, name=first.name, title=contents.name)


def _initial_weights(contents: Contents, tickets: Tickets, layers: Sequence[str]) -> Figure | None:
    pruned = sorted({level for _, level in tickets.masks if level})
    levels = panel_levels(pruned, contents.densities, LINES)
    histograms = {}
    for name in layers:
        kept = {
            level: [
                weights[name][tickets.masks[replicate, level][name].unpacked()]
                for replicate, weights in tickets.initial.items()
                if (replicate, level) in tickets.masks
            ]
            for level in levels
        }
        weights = [of_replicate[name] for of_replicate in tickets.initial.values()]
        histograms[name] = initial_weight_histograms(weights, {n: k for n, k in kept.items() if k})
    if not any(found.kept for found in histograms.values()):
        return None
    return weights_figure(histograms, contents.densities, title=contents.name)
