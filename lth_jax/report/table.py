"""Tables, one layout for the terminal and the page: the results over levels.

Side by side, a level a line and a branch a column, one table for each metric: that is the
comparison an experiment is made for. A terminal that is too narrow gets the columns that fit, and
the next ones below.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from rich import table as rich_tables
from rich.box import SIMPLE_HEAD
from rich.console import Console
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
from lth_jax.report.metric import ACCURACY, STEP, Metric
from lth_jax.store.tables import TRUNK, ResultRow

MATCH, UNFINISHED = "✓", "?"
MARKS = {MATCH: "matches the dense network", UNFINISHED: "not every replicate is done"}
GAP = 2  # characters between columns
FIXED = 2  # columns that name a line: level and weights


class Cell(NamedTuple):
    """What a table says at one place: a text, perhaps the span it is the mean of, and a mark."""

    text: str = ""
    span: str = ""
    mark: str = ""


class Table(NamedTuple):
    """A title, the names of the columns, and a cell for each column of each row."""

    title: str
    header: list[str]
    rows: list[list[Cell]]


def results_tables(rows: Iterable[ResultRow]) -> list[Table]:
    """Returns early-stop steps, and test accuracy at early stop (marked where it matches) and end.

    Args:
      rows: the experiment's results by level, then by branch in the order of the columns.
    """
    rows = list(rows)
    names = branch_order(rows)
    summaries = summarize(rows)
    if not summaries:
        return []
    step = _results_table("Early-stop step", names, summaries, "early_stop_step", STEP, {})
    title, column = ACCURACY.title("Test", "at early stop"), "early_stop_test_accuracy"
    stop = _results_table(title, names, summaries, column, ACCURACY, judge(summaries))
    title, column = ACCURACY.title("Test", "at the end"), "final_test_accuracy"
    return [step, stop, _results_table(title, names, summaries, column, ACCURACY, {})]


def _results_table(
    title: str,
    names: Sequence[str],
    summaries: Sequence[LevelSummary],
    column: str,
    metric: Metric,
    matches: Mapping[tuple[str, int], bool],
) -> Table:
    """Returns one column of `results.csv` by level and branch, marked where `matches` is true."""
    by_key = {(summary.level, summary.branch): summary for summary in summaries}
    lines = []
    for level in sorted({summary.level for summary in summaries}):
        here = [by_key.get((level, name)) for name in names]
        density = next(summary.density for summary in here if summary)
        cells = [
            _cell(s, getattr(s, column), metric, matches.get((s.branch, level), False))
            if s
            else Cell()
            for s in here
        ]
        lines.append([Cell(str(level)), Cell(percent(density)), *cells])
    return Table(title, ["level", "weights", *names], lines)


def _cell(summary: LevelSummary, stat: Stat, metric: Metric, matching: bool) -> Cell:
    mark = (MATCH if matching else "") if summary.whole else UNFINISHED
    if not math.isfinite(stat.mean):
        return Cell("–", "", mark)
    low, high = map(metric.number, stat.interval)
    return Cell(metric.number(stat.mean), f"{low}–{high}" if summary.runs > 1 else "", mark)


def legend(rows: Iterable[ResultRow]) -> str:
    """Says what the marks and numbers of the tables mean, for these rows; empty for none."""
    summaries = summarize(rows)
    parts = []
    if any(summary.runs > 1 for summary in summaries):
        parts.append("Mean, and min–max over replicates and draws.")
    threshold = matching_threshold(summaries)
    if threshold is not None and math.isfinite(threshold):
        parts.append(
            f"{MATCH} {MARKS[MATCH]}: mean validation {ACCURACY.name} at early stop at least "
            f"{ACCURACY.text(threshold)}, the dense mean minus its standard deviation."
        )
    if not all(summary.whole for summary in summaries):
        parts.append(f"{UNFINISHED} {MARKS[UNFINISHED]}, so not judged.")
    return " ".join(parts)


def print_results_tables(console: Console, rows: Sequence[ResultRow]) -> None:
    """Prints the results over levels and what their marks mean, as wide as the console."""
    for table in results_tables(rows):
        print_table(console, table)
    console.print(Text(legend(rows), style="dim") if rows else "No results yet.")


def print_table(console: Console, table: Table) -> None:
    """Prints a table, in pieces of the columns that fit where the console is too narrow."""
    columns = [_aligned(column) for column in zip(*table.rows, strict=True)]
    widths = [
        GAP + max(map(len, [name, *map(str, column)]))
        for name, column in zip(table.header, columns, strict=True)
    ]
    pieces: list[list[int]] = []
    fixed, room = sum(widths[:FIXED]) - GAP, 0
    for index in range(FIXED, len(widths)):
        if not pieces or widths[index] > room:
            pieces.append([])
            room = console.width - fixed
        pieces[-1].append(index)
        room -= widths[index]
    for piece in pieces:
        title = table.title if piece is pieces[0] else None
        printed = new_table(title)
        for index in (*range(FIXED), *piece):
            name = table.header[index]
            style = "bold" if name == TRUNK else ""
            justify = "right" if index < FIXED else "left"
            printed.add_column(Text(name), justify=justify, style=style, overflow="fold")
        for line in zip(*(columns[index] for index in (*range(FIXED), *piece)), strict=True):
            printed.add_row(*line)
        console.print(printed)
        console.print()


def new_table(title: str | None = None, *, show_footer: bool = False) -> rich_tables.Table:
    """Returns an empty table for a terminal, in the one look that ours have."""
    return rich_tables.Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        show_footer=show_footer,
    )


def _aligned(cells: Sequence[Cell]) -> list[Text]:
    """Returns the cells of one column with texts, spans and marks each below one another."""
    text, span, mark = (max(len(cell[part]) for cell in cells) for part in range(3))
    lines = []
    for cell in cells:
        line = Text(cell.text.rjust(text))
        if span:
            line.append(f" {cell.span.rjust(span)}", style="dim not bold")
        if mark:
            line.append(f" {cell.mark}", style="green")
        line.rstrip()
        lines.append(line)
    return lines
