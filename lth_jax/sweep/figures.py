"""The figures of a sweep: the test metric against each field, and over each pair of fields."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from lth_jax.analysis.summary import Stat
from lth_jax.report.drawing import (
    IMAGE_COLOURS,
    STYLES,
    Figure,
    image,
    label_text,
    legend_entries,
    note,
    spread,
)
from lth_jax.sweep.settings import Setting, Sweep, is_number, shown
from lth_jax.training.metrics import Metric

DECADE = 10  # the ratio of the ends of an axis from which on it is logarithmic
MOST_PAIRS = 6
BARS = (
    "Means over all seeds and replicates, {}: the randomness of training; another test set is "
    "another matter. What diverged enters no mean."
)


def figures_of(sweep: Sweep, metric: Metric) -> Iterator[tuple[str, str, Figure]]:
    """Yields (name of its files, heading, figure) of everything that can be drawn."""
    for field in sweep.fields:
        yield f"by_{_plain(field)}", f"By {field}", lines(sweep, field, metric)
    pairs = list(itertools.combinations(sweep.fields, 2))
    for rows, columns in pairs[:MOST_PAIRS]:
        name = f"map_{_plain(rows)}_{_plain(columns)}"
        yield name, f"{rows} and {columns}", heat_map(sweep, rows, columns, metric)


def _plain(field: str) -> str:
    return field.replace(".", "_")


def _panels(sweep: Sweep) -> dict[str, str]:
    """Returns title -> what of a setting a panel shows."""
    panels = {"Dense network": "dense"}
    return panels | ({f"Ticket, level {sweep.level}": "ticket"} if sweep.level else {})


def _others(setting: Setting, *fields: str) -> dict[str, Any]:
    return {name: value for name, value in setting.fields.items() if name not in fields}


def _lines_of(settings: Sequence[Setting], *fields: str) -> dict[str, list[Setting]]:
    """Returns the settings that differ in `fields` alone, by their other values."""
    found: dict[str, list[Setting]] = {}
    for setting in settings:
        found.setdefault(shown(_others(setting, *fields)), []).append(setting)
    return found


def _said(setting: Setting, stat: Stat, metric: Metric) -> str:
    span = f" ({metric.text(stat.low)} to {metric.text(stat.high)})"
    span = span if math.isfinite(stat.low) else ""
    return f"{shown(setting.fields)}: {metric.text(stat.mean)}{span}, {setting.runs} runs"


def lines(sweep: Sweep, field: str, metric: Metric) -> Figure:
    """Draws the test metric at early stop against a field, a line for each setting of the others.

    Args:
      sweep: what was found.
      field: one of its fields.
      metric: what networks are measured by.
    """
    every = _lines_of(sweep.settings, field)
    drawn = spread(list(every), len(STYLES))
    left_out = f" {len(every) - len(drawn)} lines are left out." if len(every) > len(drawn) else ""
    caption = BARS.format("bars are their 95% t-intervals") + left_out
    panels = _panels(sweep)
    figure = Figure("", (3.9 * len(panels) + 0.4, 3.4), f"Test {metric.name}. {caption}")
    axes = figure.panels(len(panels), 2, sharey=True)
    values = sweep.fields[field]
    for ax, (title, what) in zip(axes, panels.items(), strict=True):
        for label, style in zip(drawn, STYLES, strict=False):
            settings = sorted(every[label], key=lambda one: values.index(one.fields[field]))
            stats: list[Stat] = [getattr(setting, what) for setting in settings]
            x = _places(values, [setting.fields[field] for setting in settings])
            y = [metric.scale * stat.mean for stat in stats]
            ends = [(s.mean - s.low, s.high - s.mean) for s in stats]
            ax.errorbar(
                x, y, yerr=metric.scale * np.nan_to_num(np.array(ends)).reshape(-1, 2).T,
                label=label_text(label), color=style.colour, marker=style.marker,
                linestyle=style.dashes, linewidth=1.4, markersize=4.5, elinewidth=0.9, capsize=2,
            )  # fmt: skip
            texts = [_said(one, stat, metric) for one, stat in zip(settings, stats, strict=True)]
            note(ax, x, y, texts)
        ax.set_title(title)
        _set_axis(ax, field, values)
    axes[0].set_ylabel(metric.title("test", "at early stop"))
    if len(every) > 1:
        figure.add_legend(legend_entries(axes[0]))
    return figure


def _places(values: Sequence[Any], of: Sequence[Any]) -> list[float]:
    """Returns where values stand on the axis of all `values`: at themselves, or in their order."""
    if all(map(is_number, values)):
        return [float(value) for value in of]
    order = [repr(value) for value in values]
    return [float(order.index(repr(value))) for value in of]


def _set_axis(ax: Axes, field: str, values: Sequence[Any]) -> None:
    ax.set_xlabel(field)
    if not all(map(is_number, values)):
        ax.set_xticks(range(len(values)), [label_text(str(value)) for value in values])
        return
    if values[0] > 0 and values[-1] / values[0] >= DECADE:
        ax.set_xscale("log")
    shown_values = spread(values, 6)
    ax.set_xticks([float(v) for v in shown_values], [f"{v:g}" for v in shown_values])
    ax.minorticks_off()


def heat_map(sweep: Sweep, rows: str, columns: str, metric: Metric) -> Figure:
    """Draws the test metric at early stop over two fields, the other fields at their first values.

    Args:
      sweep: what was found.
      rows, columns: two of its fields.
      metric: what networks are measured by.
    """
    first = {name: values[0] for name, values in sweep.fields.items()}
    fixed = {name: value for name, value in first.items() if name not in (rows, columns)}
    settings = [s for s in sweep.settings if _agree(s.fields, fixed)]
    at = {(repr(s.fields[rows]), repr(s.fields[columns])): s for s in settings}
    ys, xs = sweep.fields[rows], sweep.fields[columns]
    where = f" At {shown(fixed)}." if fixed else ""
    caption = f"Test {metric.name}.{where} " + BARS.format("with halves of 95% t-intervals")
    panels = _panels(sweep)
    size = (len(panels) * (1.6 + 0.75 * len(xs)), 1.5 + 0.5 * len(ys))
    figure = Figure("", (max(size[0], 4.0), max(size[1], 2.4)), caption)
    for ax, (title, what) in zip(figure.panels(len(panels), 2), panels.items(), strict=True):
        found = {
            (y, x): (setting, getattr(setting, what))
            for (y, row), (x, column) in itertools.product(enumerate(ys), enumerate(xs))
            if (setting := at.get((repr(row), repr(column))))
        }
        means = np.full((len(ys), len(xs)), np.nan)
        for place, (_, stat) in found.items():
            means[place] = metric.scale * stat.mean

        def said(y: int, x: int, _: float, found: Mapping[Any, Any] = found) -> str:
            setting, stat = found[y, x]
            return _said(setting, stat, metric)

        shown_image = image(ax, means, said, cmap=IMAGE_COLOURS, aspect="auto")
        _write_numbers(ax, {place: stat for place, (_, stat) in found.items()}, metric)
        figure.colorbar(shown_image, ax=ax, label=metric.unit or None)
        ax.set_title(title)
        for axis, name, values in ((ax.xaxis, columns, xs), (ax.yaxis, rows, ys)):
            axis.set_ticks(range(len(values)), [label_text(str(value)) for value in values])
            axis.set_label_text(name)
    return figure


def _agree(fields: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(repr(fields[name]) == repr(value) for name, value in wanted.items())


def _write_numbers(ax: Axes, stats: Mapping[tuple[int, int], Stat], metric: Metric) -> None:
    """Writes into each cell its mean and half of its interval, legible on its colour."""
    finite = {place: stat for place, stat in stats.items() if math.isfinite(stat.mean)}
    means = [metric.scale * stat.mean for stat in finite.values()]
    for (y, x), stat in finite.items():
        text = metric.number(stat.mean)
        if math.isfinite(stat.low):
            text += f"\n± {metric.number((stat.high - stat.low) / 2)}"
        light = metric.scale * stat.mean > (min(means) + max(means)) / 2
        colour = "black" if light else "white"
        ax.text(x, y, text, ha="center", va="center", fontsize=7, color=colour)
