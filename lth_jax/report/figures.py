"""The figures of the papers: accuracy and early-stop step against the weights left.

As in Frankle & Carbin (2019, figures 3 and 4): a logarithmic axis of the percentage of weights
left, 100 on the left; means with min–max bars. Matplotlib's object interface alone is used, without
pyplot: no display is needed, and no figure outlives its caller.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lth_jax.analysis.summary import LevelSummary, Stat, percent, summarize
from lth_jax.report.style import (
    BRANCH_STYLES,
    DENSE_COLOUR,
    TICKET_STYLE,
    Style,
    house_style,
    new_figure,
)
from lth_jax.results import TRUNK, ResultRow

if TYPE_CHECKING:  # importing matplotlib takes seconds on a cold disk
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Published points: `title`, and `<branch>.<column>` -> (density, value) pairs.
Reference = Mapping[str, Any]
NO_REFERENCE: Reference = MappingProxyType({})


@house_style()
def accuracy_figure(
    rows: Iterable[ResultRow], *, title: str = "", reference: Reference = NO_REFERENCE
) -> Figure:
    """Test accuracy in percent at early stop (left) and at the end (right), by weights left.

    The tall axes show the range in which tickets and the dense network differ. What collapses
    leaves them downwards, and is then drawn whole in flat axes below.
    """
    summaries = _drawable(rows)
    metrics = {
        "At early stop": "early_stop_test_accuracy",
        "At the end of training": "final_test_accuracy",
    }
    tall, whole = _accuracy_ranges(summaries, list(metrics.values()))
    figure, axes = new_figure(title, 1 if tall == whole else 2, len(metrics))
    for column, (name, metric) in enumerate(metrics.items()):
        for ax in axes[:, column]:
            _draw(ax, summaries, metric, scale=100)
            _draw_reference(ax, reference, metric, scale=100)
        axes[0, column].set_title(name)
        axes[-1, column].set_xlabel("weights left, %")
        axes[0, column].tick_params(labelbottom=tall == whole)
    axes[-1, 0].set_ylim(*whole)
    axes[-1, 0].set_ylabel("whole range")
    axes[0, 0].set_ylim(*tall)
    axes[0, 0].set_ylabel("test accuracy, %")
    _add_legend(figure, axes[0, 0])
    return figure


@house_style()
def early_stop_figure(
    rows: Iterable[ResultRow], *, title: str = "", reference: Reference = NO_REFERENCE
) -> Figure:
    """The step of the smallest validation loss against the weights left."""
    summaries = _drawable(rows)
    figure, axes = new_figure(title, 1, 1)
    ax = axes[0, 0]
    _draw(ax, summaries, "early_stop_step", scale=1)
    _draw_reference(ax, reference, "early_stop_step", scale=1)
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.set_xlabel("weights left, %")
    ax.set_ylabel("early-stop step")
    _add_legend(figure, ax)
    return figure


def write_figures(
    rows: Iterable[ResultRow],
    directory: Path | str,
    *,
    title: str,
    reference: Reference = NO_REFERENCE,
    more: Mapping[str, Figure] = MappingProxyType({}),
) -> list[Path]:
    """Write `accuracy` and `early_stop` as PNG and SVG into `directory`; return their paths.

    Each file is replaced atomically, and equal rows give equal files. Without rows nothing is
    written.

    Args:
      rows: the results.
      directory: where to write.
      title: over each figure.
      reference: published points to draw beside ours, as in `spec.reference`.
      more: further figures to write, by name.

    Raises:
      OSError: the directory cannot be created or written.
    """
    rows = list(rows)
    if not _drawable(rows):
        return []
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    figures = {
        "accuracy": accuracy_figure(rows, title=title, reference=reference),
        "early_stop": early_stop_figure(rows, title=title, reference=reference),
        **more,
    }
    paths = []
    with house_style():
        for name, figure in figures.items():
            for suffix in ("png", "svg"):
                path = directory / f"{name}.{suffix}"
                _save(figure, path)
                paths.append(path)
    return paths


def _save(figure: Figure, path: Path) -> None:
    """Write the figure beside `path`, then in its place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    metadata = {"Date": None} if path.suffix == ".svg" else {}
    try:
        figure.savefig(temporary, format=path.suffix[1:], dpi=200, metadata=metadata)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _drawable(rows: Iterable[ResultRow]) -> list[LevelSummary]:
    """The summaries that have a place on a logarithmic axis of density."""
    return [summary for summary in summarize(rows) if summary.density > 0]


def _draw(ax: Axes, summaries: Sequence[LevelSummary], metric: str, *, scale: float) -> None:
    """Every branch's metric times `scale`, over the dense network's mean and deviation."""
    branches: dict[str, list[LevelSummary]] = {}
    for summary in summaries:
        branches.setdefault(summary.branch, []).append(summary)
    _draw_dense(ax, summaries, metric, scale)
    controls = [name for name in branches if name != TRUNK]
    for name, style in zip(controls, itertools.cycle(BRANCH_STYLES)):
        _draw_branch(ax, branches[name], metric, scale, style)
    if TRUNK in branches:  # last, to lie on top
        _draw_branch(ax, branches[TRUNK], metric, scale, TICKET_STYLE)
    _set_density_axis(ax, [summary.density for summary in summaries])
    ax.margins(y=0.1)


def _draw_dense(ax: Axes, summaries: Sequence[LevelSummary], metric: str, scale: float) -> None:
    for summary in summaries:
        stat: Stat = getattr(summary, metric)
        if summary.branch == TRUNK and summary.level == 0 and math.isfinite(stat.mean):
            mean, std = scale * stat.mean, scale * stat.std
            ax.axhspan(mean - std, mean + std, color=DENSE_COLOUR, alpha=0.15, linewidth=0)
            label = "dense ± std" if summary.runs > 1 else "dense"
            ax.axhline(mean, color=DENSE_COLOUR, linestyle="--", linewidth=1, label=label)


def _draw_branch(
    ax: Axes, summaries: Sequence[LevelSummary], metric: str, scale: float, style: Style
) -> None:
    """Means joined by a line, bars from minimum to maximum, hollow where replicates lack."""
    stats: list[Stat] = [getattr(summary, metric) for summary in summaries]
    x = [100 * summary.density for summary in summaries]
    y = [scale * stat.mean for stat in stats]
    bars = [
        [scale * (stat.mean - stat.minimum) for stat in stats],
        [scale * (stat.maximum - stat.mean) for stat in stats],
    ]
    ticket = style is TICKET_STYLE
    ax.errorbar(
        x,
        y,
        yerr=bars,
        label=summaries[0].branch,
        color=style.colour,
        marker=style.marker,
        linestyle=style.dashes,
        linewidth=1.8 if ticket else 1.2,
        markersize=4.5,
        elinewidth=0.9,
        capsize=2,
        zorder=4 if ticket else 3,
    )
    partial = [index for index, summary in enumerate(summaries) if not summary.whole]
    ax.plot(
        [x[index] for index in partial],
        [y[index] for index in partial],
        color=style.colour,
        marker=style.marker,
        markerfacecolor="white",
        markersize=4.5,
        linestyle="none",
        zorder=5,
    )


def _draw_reference(ax: Axes, reference: Reference, metric: str, *, scale: float) -> None:
    """Published points of this metric, grey, with the marker of the branch they belong to."""
    for field, points in reference.items():
        branch, _, column = field.rpartition(".")
        if column != metric:
            continue
        ax.plot(
            [100 * density for density, _ in points],
            [scale * value for _, value in points],
            color="#888888",
            marker="o" if branch == TRUNK else "s",
            markerfacecolor="none",
            markersize=4,
            linewidth=0.9,
            linestyle="-" if branch == TRUNK else "--",
            zorder=2,
            label=f"{reference.get('title', 'reference')}: {branch}",
        )


def _set_density_axis(ax: Axes, densities: Sequence[float]) -> None:
    """A logarithmic axis from 100 downwards, a tick at each level, labels where they fit."""
    values = sorted({100 * density for density in densities}, reverse=True)
    left, right = max(values[0], 100) * 1.15, min(values[-1] / 1.15, 60)
    ax.set_xscale("log")
    ax.set_xlim(left, right)
    spacing = math.log(left / right) / 8
    labelled: list[float] = []
    for value in values:
        if not labelled or math.log(labelled[-1] / value) >= spacing:
            labelled.append(value)
    ax.set_xticks(labelled, [percent(value / 100).rstrip("%") for value in labelled])
    ax.set_xticks(values, [""] * len(values), minor=True)
    ax.grid(visible=False, axis="x", which="minor")


def _accuracy_ranges(
    summaries: Sequence[LevelSummary], metrics: Sequence[str]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """The range of accuracies, in percent, that is worth most of the figure, and the whole one.

    The first goes from the highest accuracy down to three times its gain below the dense network;
    at least three quarters of the dense network's error (or 2.5 points), four standard deviations
    and one point below. The two are the same where the whole range is not twice as large.
    """
    named = [(summary, getattr(summary, metric)) for summary in summaries for metric in metrics]
    named = [(summary, stat) for summary, stat in named if math.isfinite(stat.mean)]
    dense = [stat for summary, stat in named if (summary.branch, summary.level) == (TRUNK, 0)]
    top = max((stat.maximum for _, stat in named), default=1.0)
    bottom = min((stat.minimum for _, stat in named), default=0.0)
    whole = _with_margins(bottom, top)
    if not dense:
        return whole, whole
    base = min(stat.mean for stat in dense)
    std = max(stat.std for stat in dense)
    low = base - max(3 * (top - base), min(0.75 * (1 - base), 0.025), 4 * std, 0.01)
    if top - bottom <= 2 * (top - low):
        return whole, whole
    return _with_margins(low, top), whole


def _with_margins(low: float, high: float) -> tuple[float, float]:
    """A range of accuracies in percent, with room for markers, at least half a point wide."""
    margin = max(0.08 * (high - low), (0.005 - (high - low)) / 2)
    return 100 * (low - margin), 100 * (high + margin)


def _add_legend(figure: Figure, ax: Axes) -> None:
    places = [axes.get_subplotspec() for axes in figure.axes]
    columns = len({place.colspan.start for place in places if place is not None})
    handles, labels = ax.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda index: labels[index] != TRUNK)
    figure.legend(
        [handles[index] for index in order],
        [labels[index] for index in order],
        loc="outside lower center",
        ncols=1 + 2 * columns,
        columnspacing=1.4,
    )
