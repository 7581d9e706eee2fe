"""Lines of branches against the weights left, which several figures are made of."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.markers import CARETUPBASE

from lth_jax.analysis.summary import (
    INTERVAL,
    RANGE,
    LevelSummary,
    Stat,
    branch_order,
    percent,
    summarize,
)
from lth_jax.config.reference import curves
from lth_jax.report.contents import Contents
from lth_jax.report.drawing import (
    CONTROL_STYLES,
    DENSE_COLOUR,
    STYLES,
    TICKET_STYLE,
    Style,
    label_text,
    legend_entries,
    legend_entry,
    note,
    points,
    set_density_axis,
)
from lth_jax.report.metric import STEP
from lth_jax.store.table import column_of
from lth_jax.store.tables import TRUNK
from lth_jax.training.metrics import Metric

# What to call each experiment -> what its directory holds; one, or several that are overlaid.
Runs = Mapping[str, Contents]

BARS = {
    INTERVAL: "bars are 95% t-intervals of the mean over replicates (the randomness of training; "
    "another test set is another matter)",
    RANGE: "bars go from the minimum to the maximum",
}
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
      bars: what its bars show.
    """

    run: str
    branch: str
    alone: bool
    label: str
    style: Style
    summaries: Sequence[LevelSummary]
    bars: str = INTERVAL


def what_points_are(runs: Runs) -> str:
    """Returns what a caption says of points and bars."""
    kinds = dict.fromkeys(run.spec.report.bars for run in runs.values())
    return f"Points are means over replicates and draws, {', or '.join(BARS[k] for k in kinds)}"


def metric_of(runs: Runs) -> Metric:
    """Returns what networks are measured by: experiments that are overlaid have it in common."""
    return next(iter(runs.values())).metric


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
                lines.append(
                    Line(run, branch, alone, label, style, found, contents.spec.report.bars)
                )
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
    """Draws a column of `results.csv`, over the dense network's mean and its bar.

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
            _draw_dense(ax, line, getattr(line.summaries[0], column), metric)
        _draw_line(ax, line, column, metric)
    _draw_reference(ax, reference, column, metric)
    set_density_axis(ax, [summary.density for line in lines for summary in line.summaries])
    ax.margins(y=0.1)


def _draw_dense(ax: Axes, line: Line, stat: Stat, metric: Metric) -> None:
    if math.isfinite(stat.mean):
        ends = [metric.scale * end for end in stat.bar(line.bars)]
        label = "dense"
        if math.isfinite(ends[0]):
            ax.axhspan(*ends, color=DENSE_COLOUR, alpha=0.15, linewidth=0)
            label = "dense, 95% interval" if line.bars == INTERVAL else "dense, min–max"
        mean = metric.scale * stat.mean
        ax.axhline(mean, color=DENSE_COLOUR, linestyle="--", linewidth=1, label=label)


def _draw_line(ax: Axes, line: Line, column: str, metric: Metric) -> None:
    """Draws means joined by a line with their bars, hollow where replicates lack."""
    stats: list[Stat] = [getattr(summary, column) for summary in line.summaries]
    ticket, style = line.branch == TRUNK, line.style
    size = 4.5 if ticket or line.alone else 3
    pairs = list(zip(line.summaries, stats, strict=True))
    points(
        ax, [summary.density for summary in line.summaries], stats,
        [_said(line, summary, stat, metric) for summary, stat in pairs],
        bars=[stat.bar(line.bars) for stat in stats], scale=metric.scale, label=line.label,
        style=style, size=size, width=1.8 if ticket else 1.2, zorder=4 if ticket else 3,
    )  # fmt: skip
    partial = [(100 * s.density, metric.scale * stat.mean) for s, stat in pairs if not s.whole]
    ax.plot(
        [x for x, _ in partial], [y for _, y in partial], color=style.colour,
        marker=style.marker, markerfacecolor="white", markersize=size, linestyle="none", zorder=5,
    )  # fmt: skip
    if metric is STEP:
        bounds = [(100 * s.density, stat.mean) for s, stat in pairs if s.censored]
        ax.plot(
            [x for x, _ in bounds], [y for _, y in bounds], color=style.colour, marker=CARETUPBASE,
            markersize=size + 3, linestyle="none", zorder=5,
        )  # fmt: skip


def _said(line: Line, summary: LevelSummary, stat: Stat, metric: Metric) -> str:
    low, high = stat.bar(line.bars)
    several = f" ({metric.text(low)} to {metric.text(high)})" if math.isfinite(low) else ""
    several += f", {summary.runs} runs" if summary.runs > 1 else ""
    bound = "at least " if summary.censored and metric is STEP else ""
    return (
        f"{line.label}, level {summary.level}, {percent(summary.density)} of the weights: "
        f"{bound}{metric.text(stat.mean)}{several}"
    )


def _draw_reference(ax: Axes, reference: Mapping[str, Any], column: str, metric: Metric) -> None:
    """Draws published points of a column in grey, with the marker of the trunk or of controls."""
    for (branch, of), published in curves(reference).items():
        if of != column_of(column, metric.column):
            continue
        x = [100 * density for density, *_ in published]
        y = [metric.scale * value for _, value, *_ in published]
        label = f"{reference.get('title', 'reference')}: {branch}"
        marker, dashes = ("o", "-") if branch == TRUNK else ("s", "--")
        ax.plot(
            x, y, color="#888888", marker=marker, markerfacecolor="none", markersize=4,
            linewidth=0.9, linestyle=dashes, zorder=2, label=label_text(label),
        )  # fmt: skip
        unit = metric.gap + metric.unit
        texts = [
            f"{label}, {percent(density)} of the weights: {metric.scale * value:,.4g}{unit}"
            for density, value, *_ in published
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
    grey = f" {reference.get('title', 'Published points')} in grey." if curves(reference) else ""
    return (OVERLAID if len(runs) > 1 else "") + grey
