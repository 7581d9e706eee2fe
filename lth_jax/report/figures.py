"""The figures of the papers: accuracy and early-stop step against the weights left.

As in Frankle & Carbin (2019, figures 3 and 4): a logarithmic axis of the percentage of weights
left, 100 on the left; means with min–max bars. Matplotlib's object interface alone is used, without
pyplot: no display is needed, and no figure outlives its caller.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from lth_jax.analysis.summary import LevelSummary, Stat, branch_order, percent, summarize
from lth_jax.report.axes import (
    accuracy_ranges,
    add_legend,
    legend_entry,
    set_density_axis,
    thousands,
)
from lth_jax.report.hover import note_points
from lth_jax.report.style import (
    BRANCH_DASHES,
    BRANCH_STYLES,
    DENSE_COLOUR,
    RUN_STYLES,
    TICKET_STYLE,
    Style,
    house_style,
    new_figure,
)
from lth_jax.store.results import TRUNK, ResultRow

if TYPE_CHECKING:  # importing matplotlib takes seconds on a cold disk
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Published points: `title`, and `<branch>.<column>` -> (density, value) pairs.
Reference = Mapping[str, Any]
NO_REFERENCE: Reference = MappingProxyType({})


class Line(NamedTuple):
    """One line of a figure: a branch of a run.

    Attributes:
      label: what the legend calls it.
      style: how it looks.
      summaries: its levels, those that have a place on a logarithmic axis of density.
      run: which of several runs it is of; empty where there is one only.
    """

    label: str
    style: Style
    summaries: Sequence[LevelSummary]
    run: str = ""

    @property
    def is_ticket(self) -> bool:
        """Whether it is the trunk's, which is drawn stronger and on top."""
        return self.summaries[0].branch == TRUNK


def branch_lines(rows: Iterable[ResultRow]) -> list[Line]:
    """A line for each branch of one run: the ticket's, then the controls' in their order."""
    branches = _by_branch(rows)
    controls = [name for name in branches if name != TRUNK]
    styles = {TRUNK: TICKET_STYLE, **dict(zip(controls, itertools.cycle(BRANCH_STYLES)))}
    return [Line(name, styles[name], branches[name]) for name in branches]


def run_lines(runs: Mapping[str, Iterable[ResultRow]]) -> list[Line]:
    """A line for each branch of several runs: runs differ in colour, branches in dashes."""
    lines = []
    branches = {name: _by_branch(rows) for name, rows in runs.items()}
    known = list(dict.fromkeys([TRUNK, *(branch for one in branches.values() for branch in one)]))
    for (name, of_run), style in zip(branches.items(), itertools.cycle(RUN_STYLES)):
        for branch, summaries in of_run.items():
            dashes = BRANCH_DASHES[known.index(branch) % len(BRANCH_DASHES)]
            label = name if len(known) == 1 else f"{name}: {branch}"
            lines.append(Line(label, style._replace(dashes=dashes), summaries, name))
    return lines


def _by_branch(rows: Iterable[ResultRow]) -> dict[str, list[LevelSummary]]:
    """The summaries that have a place on a logarithmic axis of density, the trunk's first."""
    rows = list(rows)
    branches: dict[str, list[LevelSummary]] = {name: [] for name in branch_order(rows)}
    for summary in summarize(rows):
        if summary.density > 0:
            branches[summary.branch].append(summary)
    return {name: summaries for name, summaries in branches.items() if summaries}


@house_style()
def accuracy_figure(
    lines: Sequence[Line], *, title: str = "", reference: Reference = NO_REFERENCE
) -> Figure:
    """Test accuracy in percent at early stop (left) and at the end (right), by weights left.

    The tall axes show the range in which tickets and the dense network differ. What collapses
    leaves them downwards, and is then drawn whole in flat axes below.
    """
    metrics = {
        "At early stop": "early_stop_test_accuracy",
        "At the end of training": "final_test_accuracy",
    }
    summaries = [summary for line in lines for summary in line.summaries]
    tall, whole = accuracy_ranges(summaries, list(metrics.values()))
    figure, axes = new_figure(title, 1 if tall == whole else 2, len(metrics))
    for column, (name, metric) in enumerate(metrics.items()):
        for ax in axes[:, column]:
            _draw(ax, lines, metric, scale=100)
            _draw_reference(ax, reference, metric, scale=100)
        axes[0, column].set_title(name)
        axes[-1, column].set_xlabel("weights left, %")
        axes[0, column].tick_params(labelbottom=tall == whole)
    axes[-1, 0].set_ylim(*whole)
    axes[-1, 0].set_ylabel("whole range")
    axes[0, 0].set_ylim(*tall)
    axes[0, 0].set_ylabel("test accuracy, %")
    add_legend(figure, axes[0, 0], _entries(lines))
    return figure


@house_style()
def early_stop_figure(
    lines: Sequence[Line], *, title: str = "", reference: Reference = NO_REFERENCE
) -> Figure:
    """The step of the smallest validation loss against the weights left."""
    figure, axes = new_figure(title, 1, 1)
    ax = axes[0, 0]
    _draw(ax, lines, "early_stop_step", scale=1)
    _draw_reference(ax, reference, "early_stop_step", scale=1)
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter(thousands)
    ax.set_xlabel("weights left, %")
    ax.set_ylabel("early-stop step")
    add_legend(figure, ax, _entries(lines))
    return figure


def _alone(lines: Sequence[Line]) -> bool:
    return not any(line.run for line in lines)


def _entries(lines: Sequence[Line]) -> list[tuple[Any, str]] | None:
    """Of several runs a legend has the runs, by colour and marker, then the branches, by dashes."""
    if _alone(lines):
        return None
    runs = {line.run: line.style for line in reversed(lines)}
    branches = {line.summaries[0].branch: line.style.dashes for line in lines}
    entries = [legend_entry(s.colour, s.marker, "-", run) for run, s in reversed(runs.items())]
    if len(branches) > 1:
        entries += [legend_entry(DENSE_COLOUR, "", dash, name) for name, dash in branches.items()]
    return entries


def _draw(ax: Axes, lines: Sequence[Line], metric: str, *, scale: float) -> None:
    """Every line's metric times `scale`; of a single run over its dense mean and deviation."""
    if _alone(lines):
        dense = [s for line in lines if line.is_ticket for s in line.summaries if s.level == 0]
        for summary in dense:
            _draw_dense(ax, summary, getattr(summary, metric), scale)
    for line in sorted(lines, key=lambda line: line.is_ticket):  # tickets last, to lie on top
        _draw_line(ax, line, metric, scale)
    set_density_axis(ax, [summary.density for line in lines for summary in line.summaries])
    ax.margins(y=0.1)


def _draw_dense(ax: Axes, summary: LevelSummary, stat: Stat, scale: float) -> None:
    if math.isfinite(stat.mean):
        mean, std = scale * stat.mean, scale * stat.std
        ax.axhspan(mean - std, mean + std, color=DENSE_COLOUR, alpha=0.15, linewidth=0)
        label = "dense ± std" if summary.runs > 1 else "dense"
        ax.axhline(mean, color=DENSE_COLOUR, linestyle="--", linewidth=1, label=label)


def _draw_line(ax: Axes, line: Line, metric: str, scale: float) -> None:
    """Means joined by a line, bars from minimum to maximum, hollow where replicates lack."""
    stats: list[Stat] = [getattr(summary, metric) for summary in line.summaries]
    x = [100 * summary.density for summary in line.summaries]
    y = [scale * stat.mean for stat in stats]
    bars = [
        [scale * (stat.mean - stat.minimum) for stat in stats],
        [scale * (stat.maximum - stat.mean) for stat in stats],
    ]
    strong = line.is_ticket
    size = 4.5 if strong or not line.run else 3
    ax.errorbar(
        x,
        y,
        yerr=bars,
        label=line.label,
        color=line.style.colour,
        marker=line.style.marker,
        linestyle=line.style.dashes,
        linewidth=1.8 if strong else 1.2,
        markersize=size,
        elinewidth=0.9,
        capsize=2,
        zorder=4 if strong else 3,
    )
    partial = [index for index, summary in enumerate(line.summaries) if not summary.whole]
    ax.plot(
        [x[index] for index in partial],
        [y[index] for index in partial],
        color=line.style.colour,
        marker=line.style.marker,
        markerfacecolor="white",
        markersize=size,
        linestyle="none",
        zorder=5,
    )
    pairs = zip(line.summaries, stats, strict=True)
    note_points(ax, x, y, [_said(line.label, summary, stat, scale) for summary, stat in pairs])


def _said(label: str, summary: LevelSummary, stat: Stat, scale: float) -> str:
    def shown(value: float) -> str:
        return f"{scale * value:.2f}%" if scale == 100 else f"{value:,.0f}"

    span = f" ({shown(stat.minimum)} to {shown(stat.maximum)})" if summary.runs > 1 else ""
    runs = f", {summary.runs} runs" if summary.runs > 1 else ""
    where = f"level {summary.level}, {percent(summary.density)} of the weights"
    return f"{label}, {where}: {shown(stat.mean)}{span}{runs}"


def _draw_reference(ax: Axes, reference: Reference, metric: str, *, scale: float) -> None:
    """Published points of this metric, grey, with the marker of the branch they belong to."""
    for field, points in reference.items():
        branch, _, column = field.rpartition(".")
        if column != metric:
            continue
        x = [100 * density for density, _ in points]
        y = [scale * value for _, value in points]
        label = f"{reference.get('title', 'reference')}: {branch}"
        ax.plot(
            x,
            y,
            color="#888888",
            marker="o" if branch == TRUNK else "s",
            markerfacecolor="none",
            markersize=4,
            linewidth=0.9,
            linestyle="-" if branch == TRUNK else "--",
            zorder=2,
            label=label,
        )
        texts = [
            f"{label}, {percent(density)} of the weights: {scale * value:,.4g}"
            + ("%" if scale == 100 else "")
            for density, value in points
        ]
        note_points(ax, x, y, texts)
