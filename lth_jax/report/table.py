"""The table over levels: for people at a terminal, and as GitHub markdown.

Side by side, a level a line and a branch a column, one panel for each metric: that is the
comparison an experiment is made for. Where the terminal is too narrow for its branches, the same
numbers stand one below the other, a line for each branch of each level.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from lth_jax.analysis.summary import (
    LevelSummary,
    Stat,
    branch_order,
    judge,
    matching_threshold,
    percent,
    summarize,
)
from lth_jax.store.results import TRUNK, ResultRow

MATCH = "✓"
UNFINISHED = "?"


def select(rows: Iterable[ResultRow], branches: Sequence[str] | None) -> list[ResultRow]:
    """The rows of the trunk and of `branches`; all rows for None."""
    return [row for row in rows if branches is None or row.branch in (TRUNK, *branches)]


class Cell(NamedTuple):
    """A metric of one branch at one level: its mean, `min–max` over runs if several, its marks."""

    mean: str
    span: str
    mark: str


class Line(NamedTuple):
    """A level, its share of weights, and a cell for each branch, empty where it has no runs."""

    level: str
    density: str
    cells: list[Cell]


class Panel(NamedTuple):
    """One metric for every level and branch; `short` is its title in a narrow column."""

    title: str
    short: str
    branches: list[str]
    lines: list[Line]


_EMPTY = Cell("", "", "")


def panels(
    rows: Iterable[ResultRow], branches: Sequence[str] | None = None, *, decimals: int = 2
) -> list[Panel]:
    """Early-stop step, test accuracy at early stop (marked where it matches) and at the end.

    Args:
      rows: the experiment's results, in any order.
      branches: which controls to show, in this order; None for all of them.
      decimals: of accuracies, which are given in percent.
    """
    rows = select(rows, branches)
    present = branch_order(rows)
    names = present if branches is None else [n for n in (TRUNK, *branches) if n in present]
    summaries = summarize(rows)
    matches = judge(summaries)

    def accuracy(value: float) -> str:
        return f"{100 * value:.{decimals}f}"

    step = "{:,.0f}".format
    stop, end = "early_stop_test_accuracy", "final_test_accuracy"
    return [
        _panel("Early-stop step", "early-stop step", names, summaries, "early_stop_step", step, {}),
        _panel(
            "Test accuracy at early stop, %",
            "at early stop, %",
            names,
            summaries,
            stop,
            accuracy,
            matches,
        ),
        _panel("Test accuracy at the end, %", "at the end, %", names, summaries, end, accuracy, {}),
    ]


def _panel(
    title: str,
    short: str,
    names: list[str],
    summaries: Sequence[LevelSummary],
    metric: str,
    show: Callable[[float], str],
    matches: Mapping[tuple[str, int], bool],
) -> Panel:
    """One metric's panel, with a mark where `matches` is true."""
    by_key = {(s.level, s.branch): s for s in summaries}
    lines = []
    for level in sorted({s.level for s in summaries}):
        here = [by_key.get((level, name)) for name in names]
        density = next(s.density for s in here if s is not None)
        cells = [
            _EMPTY if s is None else _cell(s, metric, show, matches.get((s.branch, level), False))
            for s in here
        ]
        lines.append(Line(str(level), percent(density), cells))
    return Panel(title, short, names, lines)


def _cell(summary: LevelSummary, metric: str, show: Callable[[float], str], matching: bool) -> Cell:
    stat: Stat = getattr(summary, metric)
    mark = (MATCH if matching else "") if summary.whole else UNFINISHED
    if not math.isfinite(stat.mean):
        return Cell("–", "", mark)
    span = f"{show(stat.minimum)}–{show(stat.maximum)}" if summary.runs > 1 else ""
    return Cell(show(stat.mean), span, mark)


def legend(rows: Iterable[ResultRow]) -> str:
    """What the marks and numbers of the table mean, for these rows; empty if there are none."""
    summaries = summarize(rows)
    if not summaries:
        return ""
    parts = []
    if any(summary.runs > 1 for summary in summaries):
        parts.append("Mean, and min–max over replicates and draws.")
    threshold = matching_threshold(summaries)
    if threshold is not None and math.isfinite(threshold):
        parts.append(
            f"{MATCH} matches the dense network: mean validation accuracy at early stop at least "
            f"{100 * threshold:.2f}%, the dense mean minus its standard deviation."
        )
    if not all(summary.whole for summary in summaries):
        parts.append(f"{UNFINISHED} not every replicate is done, so not judged.")
    return " ".join(parts)


class ResultsTable:
    """A rich renderable that lays itself out for the width of the console that prints it."""

    def __init__(self, rows: Iterable[ResultRow], branches: Sequence[str] | None = None):
        self._rows = select(rows, branches)
        self._branches = branches

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The most detailed layout that fits, or else the narrowest; then the legend."""
        if not self._rows:
            yield Text("No results yet.")
            return
        unbounded = options.update(width=10_000)
        tables: list[Table] = []
        for layout, decimals in itertools.product((_side_by_side, _one_below_the_other), (2, 1)):
            tables = layout(panels(self._rows, self._branches, decimals=decimals))
            widths = [Measurement.get(console, unbounded, table).maximum for table in tables]
            if max(widths) <= options.max_width:
                break
        for table in tables:
            yield table
            yield Text()
        yield Text(legend(self._rows), style="dim")


def _side_by_side(panels: Sequence[Panel]) -> list[Table]:
    tables = []
    for panel in panels:
        table = _new_table(panel.title)
        for name in panel.branches:
            table.add_column(Text(name), style=_style(name), no_wrap=True)
        columns = [
            _aligned(column) for column in zip(*(line.cells for line in panel.lines), strict=True)
        ]
        for line, *cells in zip(panel.lines, *columns, strict=True):
            table.add_row(line.level, line.density, *cells)
        tables.append(table)
    return tables


def _one_below_the_other(panels: Sequence[Panel]) -> list[Table]:
    table = _new_table(None)
    table.add_column("branch", no_wrap=True)
    for panel in panels:
        table.add_column(panel.short, overflow="fold")
    keys, cells = [], []
    for lines in zip(*(panel.lines for panel in panels), strict=True):
        head = lines[0].level, lines[0].density
        for name, *metrics in zip(panels[0].branches, *(line.cells for line in lines), strict=True):
            if metrics[0] != _EMPTY:
                keys.append((*head, name))
                cells.append(metrics)
                head = "", ""  # a level is named once
    columns = [_aligned(column) for column in zip(*cells, strict=True)]
    for (level, density, name), *texts in zip(keys, *columns, strict=True):
        table.add_row(level, density, Text(name), *texts, style=_style(name))
    return [table]


def _style(branch: str) -> str:
    return "bold" if branch == TRUNK else ""


def _new_table(title: str | None) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    table.add_column("level", justify="right", no_wrap=True)
    table.add_column("weights", justify="right", no_wrap=True)
    return table


def _aligned(cells: Sequence[Cell]) -> list[Text]:
    """The cells of one column with their means, spans and marks each below one another."""
    mean, span, mark = (
        max((len(cell[part]) for cell in cells), default=0) for part in range(len(_EMPTY))
    )
    texts = []
    for cell in cells:
        text = Text(cell.mean.rjust(mean))
        if span:
            text.append(f" {cell.span.rjust(span)}", style="dim not bold")
        if mark:
            text.append(f" {cell.mark}", style="green")
        text.rstrip()
        texts.append(text)
    return texts


def to_markdown(rows: Iterable[ResultRow], branches: Sequence[str] | None = None) -> str:
    """The same panels as GitHub markdown, each below a bold title, and the legend."""
    rows = select(rows, branches)
    parts = []
    for panel in panels(rows, branches):
        lines = [
            _markdown_line(["level", "weights", *panel.branches]),
            _markdown_line(["---:"] * (2 + len(panel.branches))),
        ]
        for level, density, cells in panel.lines:
            lines.append(_markdown_line([level, density, *map(_markdown_cell, cells)]))
        parts += [f"**{panel.title}**", "\n".join(lines)]
    return "\n\n".join([*parts, legend(rows)]).strip() + "\n"


def _markdown_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown_cell(cell: Cell) -> str:
    span = f"({cell.span})" if cell.span else ""
    return " ".join(part for part in (cell.mean, span, cell.mark) if part)
