"""Lines of branches against the weights left, which several figures are made of."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from lth_jax.analysis.summary import LevelSummary, Stat, branch_order, percent, summarize
from lth_jax.report.contents import Contents
from lth_jax.report.drawing import (
    CONTROL_STYLES,
    DENSE_COLOUR,
    STYLES,
    TICKET_STYLE,
    Style,
    legend_entries,
    legend_entry,
    note,
    points,
    set_density_axis,
)
from lth_jax.report.metric import Metric
from lth_jax.store.tables import TRUNK

# What to call each experiment -> what its directory holds; one, or several that are overlaid.
Runs = Mapping[str, Contents]

POINTS = "Points are means over replicates and draws, bars go from the minimum to the maximum"
OVERLAID = " Runs differ in colour, branches in dashes."


class Line(NamedTuple):
    """A branch of an experiment.

    Attributes:
      run: what the experiment is called.
      branch: its name.
      alone: whether there is no other experiment in the figure.
      label: what a legend of all lines would call it.
      style: how it looks.
      summaries: its levels that have a place on a logarithmic axis of density.
    """

    run: str
    branch: str
    alone: bool
    label: str
    style: Style
    summaries: Sequence[LevelSummary]


def title_of(runs: Runs) -> str:
    """Returns what stands over a figure: the name of a single experiment."""
    return next(iter(runs)) if len(runs) == 1 else ""


def branch_lines(runs: Runs) -> list[Line]:
    """Returns a line for each branch: the trunk's first, then the controls' in their order.

    Branches of a single experiment differ in everything; of several, experiments differ in colour
    and marker, branches in dashes.
    """
    branches = {name: branch_order(run.rows) for name, run in runs.items()}
    known = list(dict.fromkeys([TRUNK, *itertools.chain(*branches.values())]))
    alone = len(runs) == 1
    lines = []
    for (run, contents), of_run in zip(runs.items(), itertools.cycle(STYLES)):
        summaries = [s for s in summarize(contents.rows) if s.density > 0]
        controls = [name for name in branches[run] if name != TRUNK]
        own = {TRUNK: TICKET_STYLE, **dict(zip(controls, itertools.cycle(CONTROL_STYLES)))}
        for branch in branches[run]:
            found = [summary for summary in summaries if summary.branch == branch]
            dashes = STYLES[known.index(branch) % len(STYLES)].dashes
            style = own[branch] if alone else of_run._replace(dashes=dashes)
            label = branch if alone else f"{run}: {branch}" if len(known) > 1 else run
            if found:
                lines.append(Line(run, branch, alone, label, style, found))
    return lines


def entries(ax: Axes, lines: Sequence[Line], prefix: str = "") -> list[tuple[Any, str]]:
    """Returns a legend's entries: every line of one experiment, or experiments and branches."""
    if all(line.alone for line in lines):
        return legend_entries(ax)
    runs = {line.run: line.style for line in lines}
    branches = {prefix + line.branch: line.style.dashes for line in lines}
    found = [legend_entry(s.colour, s.marker, "-", run) for run, s in runs.items()]
    if len(branches) > 1 or prefix:
        found += [legend_entry(DENSE_COLOUR, "", dash, name) for name, dash in branches.items()]
    return found


def draw_column(
    ax: Axes, lines: Sequence[Line], column: str, metric: Metric, reference: Mapping[str, Any]
) -> None:
    """Draws a column of `results.csv`, over the dense network's mean and standard deviation.

    Args:
      ax: where.
      lines: whose.
      column: which.
      metric: how its values are written.
      reference: the spec's published points: `title`, and `<branch>.<column>` -> (density, value).
    """
    # Tickets come last, to lie on top.
    for line in sorted(lines, key=lambda line: line.branch == TRUNK):
        if line.branch == TRUNK and line.alone and line.summaries[0].level == 0:
            _draw_dense(ax, line.summaries[0], getattr(line.summaries[0], column), metric)
        _draw_line(ax, line, column, metric)
    _draw_reference(ax, reference, column, metric)
    set_density_axis(ax, [summary.density for line in lines for summary in line.summaries])
    ax.margins(y=0.1)


def _draw_dense(ax: Axes, dense: LevelSummary, stat: Stat, metric: Metric) -> None:
    if math.isfinite(stat.mean):
        mean, std = metric.scale * stat.mean, metric.scale * stat.std
        ax.axhspan(mean - std, mean + std, color=DENSE_COLOUR, alpha=0.15, linewidth=0)
        label = "dense ± std" if dense.runs > 1 else "dense"
        ax.axhline(mean, color=DENSE_COLOUR, linestyle="--", linewidth=1, label=label)


def _draw_line(ax: Axes, line: Line, column: str, metric: Metric) -> None:
    """Draws means joined by a line with their bars, hollow where replicates lack."""
    stats: list[Stat] = [getattr(summary, column) for summary in line.summaries]
    ticket, style = line.branch == TRUNK, line.style
    size = 4.5 if ticket or line.alone else 3
    pairs = list(zip(line.summaries, stats, strict=True))
    points(
        ax, [summary.density for summary in line.summaries], stats,
        [_said(line, summary, stat, metric) for summary, stat in pairs], scale=metric.scale,
        label=line.label, style=style, size=size, width=1.8 if ticket else 1.2,
        zorder=4 if ticket else 3,
    )  # fmt: skip
    partial = [(100 * s.density, metric.scale * stat.mean) for s, stat in pairs if not s.whole]
    ax.plot(
        [x for x, _ in partial], [y for _, y in partial], color=style.colour,
        marker=style.marker, markerfacecolor="white", markersize=size, linestyle="none", zorder=5,
    )  # fmt: skip


def _said(line: Line, summary: LevelSummary, stat: Stat, metric: Metric) -> str:
    low, high = stat.interval
    several = f" ({metric.text(low)} to {metric.text(high)}), {summary.runs} runs"
    return (
        f"{line.label}, level {summary.level}, {percent(summary.density)} of the weights: "
        f"{metric.text(stat.mean)}" + (several if summary.runs > 1 else "")
    )


def _draw_reference(ax: Axes, reference: Mapping[str, Any], column: str, metric: Metric) -> None:
    """Draws published points of a column in grey, with the marker of the trunk or of controls."""
    for field, published in reference.items():
        branch, _, of = field.rpartition(".")
        if of != column:
            continue
        x = [100 * density for density, _ in published]
        y = [metric.scale * value for _, value in published]
        label = f"{reference.get('title', 'reference')}: {branch}"
        marker, dashes = ("o", "-") if branch == TRUNK else ("s", "--")
        ax.plot(
            x, y, color="#888888", marker=marker, markerfacecolor="none", markersize=4,
            linewidth=0.9, linestyle=dashes, zorder=2, label=label,
        )  # fmt: skip
        texts = [
            f"{label}, {percent(density)} of the weights: {metric.scale * value:,.4g}{metric.unit}"
            for density, value in published
        ]
        note(ax, x, y, texts)


def references(runs: Runs) -> dict[str, Any]:
    """Returns the published points of all experiments; where they disagree, the first one's."""
    merged: dict[str, Any] = {}
    for contents in reversed(list(runs.values())):
        merged |= contents.spec.reference
    return merged


def more(runs: Runs, reference: Mapping[str, Any]) -> str:
    """Returns what a caption adds for overlaid experiments, and for published points."""
    grey = f" {reference.get('title', 'Published points')} in grey." if reference else ""
    return (OVERLAID if len(runs) > 1 else "") + grey
