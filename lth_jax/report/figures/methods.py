"""Methods at each level: how good they are, and which pairs of them differ."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from lth_jax.analysis.methods import Comparison
from lth_jax.analysis.summary import percent
from lth_jax.report.drawing import CONTROL_STYLES, TICKET_STYLE, Figure, image, label_text, note
from lth_jax.report.figures.by_density import Runs, metric_of, title_of
from lth_jax.report.methods import methods_of
from lth_jax.store.tables import TRUNK
from lth_jax.training.metrics import Metric

CAPTION = (
    "Left: test {} at early stop, mean over replicates with its 95% t-interval, the best method "
    "first. Right: the method of a row minus that of a column, paired by replicate; where there is "
    "a dot the two do not differ, by paired t-tests with Holm's correction over all pairs of the "
    "level."
)
COLOURS = "PuOr"  # of two hues that every eye tells apart, white in the middle


def draw(runs: Runs) -> Figure | None:
    """Draws the methods of each level of one run; None where the spec asks for no comparison."""
    (contents,) = runs.values()
    found = methods_of(contents.rows, contents.spec, contents.metric)
    if not found:
        return None
    metric, most = metric_of(runs), max(len(one.methods) for one in found)
    size = 7.6, (1.1 + 0.22 * most) * len(found)
    figure = Figure(title_of(runs), size, CAPTION.format(metric.name))
    axes = figure.subplots(len(found), 2, squeeze=False)
    for (left, right), one in zip(axes, found, strict=True):
        _draw_ranking(left, one, metric)
        _draw_pairs(right, one, metric)
    return figure


def _draw_ranking(ax: Axes, one: Comparison, metric: Metric) -> None:
    """Draws a line for each method, the best at the top."""
    for rank, method in enumerate(one.methods):
        style = TICKET_STYLE if method.branch == TRUNK else CONTROL_STYLES[0]
        mean, low, high = (metric.scale * v for v in (method.mean, method.low, method.high))
        reach = np.nan_to_num([[mean - low], [high - mean]])  # one replicate has no interval
        ax.errorbar(
            [mean], [rank], xerr=reach, color=style.colour, marker=style.marker, markersize=4.5,
            capsize=2, linestyle="",
        )  # fmt: skip
        text = f"{method.branch}: {metric.text(method.mean)}, rank {rank + 1}"
        note(ax, [mean], [rank], [text])
    names = [label_text(method.branch) for method in one.methods]
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_title(f"{percent(one.density)} of the weights")
    ax.set_xlabel(metric.title("test"))


def _draw_pairs(ax: Axes, one: Comparison, metric: Metric) -> None:
    """Draws the difference of every pair, and a dot where it may be none."""
    count = len(one.methods)
    values = np.full((count, count), np.nan)
    for (first, second), pair in one.pairs.items():
        values[first, second] = metric.scale * pair.difference.mean
        values[second, first] = -values[first, second]

    def text(row: int, column: int, value: float) -> str:
        ranks = min(row, column), max(row, column)
        pair = one.pairs[ranks]
        low, high = (metric.scale * end for end in (pair.difference.low, pair.difference.high))
        if row > column:
            low, high = -high, -low
        names = f"{one.methods[row].branch} − {one.methods[column].branch}"
        between = f" ({low:+.2f} to {high:+.2f})" if np.isfinite(low) else ""
        said = "they differ" if pair.differs else "no difference is shown"
        return (
            f"{names}: {value:+.2f} {metric.unit_of_differences}{between}, "
            f"p = {pair.p_value:.2g} corrected: {said}"
        )

    limit = float(np.nanmax(np.abs(values))) or 1.0
    image(ax, values, text, cmap=COLOURS, vmin=-limit, vmax=limit, aspect="auto")
    open_ones = [ranks for ranks, pair in one.pairs.items() if not pair.differs]
    places = [*open_ones, *((second, first) for first, second in open_ones)]
    if places:
        rows, columns = zip(*places, strict=True)
        ax.plot(columns, rows, linestyle="", marker=".", color="#222222", markersize=3)
    names = [label_text(method.branch) for method in one.methods]
    ax.set_xticks(range(count), names, rotation=60, ha="right", fontsize=7)
    ax.set_yticks(range(count), [])
    ax.set_title(f"differences, {metric.unit_of_differences}".removesuffix(", "))
