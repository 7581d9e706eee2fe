"""Errors on the straight lines between trained networks, and how high their barriers are."""

from __future__ import annotations

from statistics import fmean

import numpy as np
from matplotlib.axes import Axes

from lth_jax.analysis.paths import SPLITS, STABLE, Barrier, against, barriers
from lth_jax.analysis.summary import percent
from lth_jax.report.drawing import (
    DENSE_COLOUR,
    STYLES,
    Figure,
    Style,
    label_text,
    level_colours,
    note,
    set_density_axis,
    spread,
    thousands,
)
from lth_jax.report.figures.by_density import Runs, title_of
from lth_jax.report.stability import stability_said
from lth_jax.store.tables import PathPoint

MOST_LINES = 8
WHAT = {
    "siblings": "two copies in other data orders",
    "levels": "a level and the one before",
    "ticket_dense": "the ticket and the dense network",
    "ticket_branch": "the ticket and a branch's network",
    "replicates": "two replicates",
}
CAPTION = (
    "Test error on the straight line between two trained networks, mean over replicates: {}. A "
    "barrier is the highest error less the mean of the ends; below 2 points (dashed) the two are "
    "linearly connected (Frankle et al. 2020)."
)


def draw(runs: Runs) -> Figure | None:
    """Draws the paths of a run by kind of pair, and their barriers; None without any."""
    (contents,) = runs.values()
    kinds: dict[tuple[str, str], list[PathPoint]] = {}
    for point in contents.paths:
        kinds.setdefault((point.pair, point.aligned), []).append(point)
    rows: list[tuple[str, list[PathPoint], bool]] = []
    for (kind, aligned), points in kinds.items():
        title, after = WHAT.get(kind, kind), "" if aligned == "none" else f", aligned by {aligned}"
        parted = {point.parted for point in points if not point.level}
        if kind == "siblings" and len(parted) > 1:
            copies = [p for p in points if not p.level]
            rows.append((f"copies of the dense network{after}", copies, True))
            points = [p for p in points if p.level or p.parted == min(parted)]
        for other in dict.fromkeys(against(point) for point in points):
            own = [point for point in points if against(point) == other]
            said = f"the ticket and {other}" if other else title
            rows.append((said + after, own, False))
    if not rows:
        return None
    caption = CAPTION.format("; ".join(dict.fromkeys(WHAT.get(kind, kind) for kind, _ in kinds)))
    if said := stability_said(contents.paths, contents.spec.analysis.confidence):
        caption = f"{caption} {said}"
    figure = Figure(title_of(runs), (7.6, 3.0 * len(rows)), caption)
    axes = figure.subplots(len(rows), 2, squeeze=False)
    for (left, right), (title, points, parting) in zip(axes, rows, strict=True):
        _draw_paths(left, title, points, parting)
        _draw_barriers(right, points, parting)
    return figure


def _draw_paths(ax: Axes, title: str, points: list[PathPoint], parting: bool) -> None:
    """Draws the mean test error against the place, a line for each level or step of parting."""
    lines: dict[float, dict[float, list[float]]] = {}
    for point in points:
        places = lines.setdefault(point.parted if parting else -point.density, {})
        places.setdefault(point.alpha, []).append(100 * point.test_error)
    chosen = spread(sorted(lines), MOST_LINES)
    for key, colour in zip(chosen, level_colours(len(chosen)), strict=True):
        means = {alpha: fmean(errors) for alpha, errors in sorted(lines[key].items())}
        label = thousands(key) if parting else percent(-key)
        values = list(means.values())
        ax.plot(list(means), values, color=colour, linewidth=1.3, label=label_text(label))
        said = f"parted at step {label}" if parting else label
        note(ax, list(means), values, [f"{said}, α {a:.2f}: {m:.2f}%" for a, m in means.items()])
    ax.set_title(title)
    ax.set_xlabel("α: 0 the first network, 1 the second")
    ax.set_ylabel("test error, %")
    # Beside the lines, which take all of the room.
    heading = "parted at" if parting else "weights left"
    ax.legend(
        title=heading, fontsize=7, title_fontsize=7, handlelength=1, loc="upper left",
        bbox_to_anchor=(1, 1),
    )  # fmt: skip


def _draw_barriers(ax: Axes, points: list[PathPoint], parting: bool) -> None:
    """Draws barriers with 95% intervals: against the step of parting, or the weights left."""
    test, train = (barriers(points, split) for split in SPLITS)
    for found, label, style in zip((test, train), SPLITS, STYLES, strict=False):
        _draw_line(ax, found, label, style, parting)
    ax.axhline(100 * STABLE, color=DENSE_COLOUR, linestyle="--", linewidth=1)
    if parting:
        first = min(one.parted for one in test if one.parted > 0)
        ax.set_xscale("symlog", linthresh=first)  # initialization is one of the steps
        steps = sorted({one.parted for one in test})
        ax.set_xticks(steps, [thousands(step) for step in steps])
        ax.minorticks_off()
        ax.set_xlabel("step of the dense network at which they part")
    else:
        set_density_axis(ax, [one.density for one in test if one.density > 0])
    ax.set_ylabel("barrier, points of error")
    ax.legend(fontsize=7)


def _draw_line(ax: Axes, own: list[Barrier], label: str, style: Style, parting: bool) -> None:
    own = sorted(own, key=lambda one: one.parted if parting else -one.density)
    own = [one for one in own if parting or one.density > 0]
    places = [one.parted if parting else 100 * one.density for one in own]
    means = [100 * one.mean for one in own]
    # One replicate has no interval.
    reach = [np.nan_to_num(100 * (one.high - one.mean)) for one in own]
    ax.errorbar(
        places, means, yerr=reach, color=style.colour, marker=style.marker, linestyle=style.dashes,
        linewidth=1.2, markersize=4, capsize=2, label=label_text(label),
    )  # fmt: skip
    texts = [f"{label}: {100 * one.mean:.2f} points, {one.replicates} replicates" for one in own]
    note(ax, places, means, texts)
