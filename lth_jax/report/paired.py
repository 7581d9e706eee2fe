"""The paired difference of ticket and control against the weights left."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lth_jax.analysis.paired import Paired, paired_differences
from lth_jax.analysis.summary import percent
from lth_jax.report.axes import add_legend, legend_entry, set_density_axis
from lth_jax.report.hover import note_points
from lth_jax.report.style import (
    BRANCH_DASHES,
    BRANCH_STYLES,
    DENSE_COLOUR,
    RUN_STYLES,
    Style,
    house_style,
    new_figure,
)
from lth_jax.store.results import ResultRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRICS = {
    "At early stop": "early_stop_test_accuracy",
    "At the end of training": "final_test_accuracy",
}


@house_style()
def paired_figure(runs: Mapping[str, Iterable[ResultRow]], *, title: str = "") -> Figure | None:
    """Ticket minus control in points of test accuracy, mean over replicates ± standard error.

    Args:
      runs: name -> rows; the names are shown where there are several.
      title: over the figure.

    Returns:
      The figure, or None where no control has a replicate in common with its ticket.
    """
    rows = {name: list(of_run) for name, of_run in runs.items()}
    found = {
        metric: {name: paired_differences(of_run, metric) for name, of_run in rows.items()}
        for metric in METRICS.values()
    }
    everything = [p for by_run in found.values() for pairs in by_run.values() for p in pairs]
    everything = [pair for pair in everything if pair.density > 0]
    if not everything:
        return None
    figure, axes = new_figure(title, 1, len(METRICS))
    for ax, (name, metric) in zip(axes[0], METRICS.items(), strict=True):
        ax.axhline(0, color=DENSE_COLOUR, linestyle="--", linewidth=1)
        for (run, branch), style in _styles(found[metric]).items():
            pairs = [p for p in found[metric][run] if p.branch == branch and p.density > 0]
            label = f"ticket − {branch}"
            _draw(ax, pairs, label if len(rows) == 1 else f"{run}: {label}", style)
        set_density_axis(ax, [pair.density for pair in everything])
        ax.margins(y=0.1)
        ax.set_title(name)
        ax.set_xlabel("weights left, %")
    axes[0, 0].set_ylabel("difference, points of accuracy")
    several = None if len(rows) == 1 else _entries(_styles(found[next(iter(found))]))
    add_legend(figure, axes[0, 0], several)
    return figure


def _styles(found: Mapping[str, Sequence[Paired]]) -> dict[tuple[str, str], Style]:
    """(run, branch) -> how it looks: as in the figures of accuracy."""
    branches = list(dict.fromkeys(p.branch for pairs in found.values() for p in pairs))
    if len(found) == 1:
        (run,) = found
        return {(run, b): style for b, style in zip(branches, itertools.cycle(BRANCH_STYLES))}
    styles = {}
    for run, style in zip(found, itertools.cycle(RUN_STYLES)):
        for branch in dict.fromkeys(pair.branch for pair in found[run]):
            dashes = BRANCH_DASHES[(1 + branches.index(branch)) % len(BRANCH_DASHES)]
            styles[run, branch] = style._replace(dashes=dashes)
    return styles


def _entries(styles: Mapping[tuple[str, str], Style]) -> list[tuple[Any, str]]:
    """A legend of several runs, as in the figures of accuracy."""
    runs = {run: style for (run, _), style in styles.items()}
    branches = {branch: style.dashes for (_, branch), style in styles.items()}
    return [
        *(legend_entry(style.colour, style.marker, "-", run) for run, style in runs.items()),
        *(legend_entry(DENSE_COLOUR, "", d, f"ticket − {name}") for name, d in branches.items()),
    ]


def _draw(ax: Axes, pairs: Sequence[Paired], label: str, style: Style) -> None:
    x = [100 * pair.density for pair in pairs]
    y = [100 * pair.mean for pair in pairs]
    bars = [0.0 if math.isnan(pair.error) else 100 * pair.error for pair in pairs]
    ax.errorbar(
        x,
        y,
        yerr=bars,
        label=label,
        color=style.colour,
        marker=style.marker,
        linestyle=style.dashes,
        linewidth=1.2,
        markersize=4.5,
        elinewidth=0.9,
        capsize=2,
    )
    note_points(ax, x, y, [_said(label, pair) for pair in pairs])


def _said(label: str, pair: Paired) -> str:
    where = f"level {pair.level}, {percent(pair.density)} of the weights"
    several = len(pair.replicates) > 1
    error = f" ± {100 * pair.error:.2f} (standard error)" if several else ""
    count = f"{len(pair.replicates)} replicates" if several else "1 replicate"
    return f"{label}, {where}: {100 * pair.mean:+.2f} points{error}, {count}"
