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
    INTERVAL,
    LevelSummary,
    Stat,
    branch_order,
    percent,
    summarize,
)
from lth_jax.analysis.verdicts import USUAL, Judgement, Standard, Verdict, judge
from lth_jax.report.metric import STEP
from lth_jax.store.tables import TRUNK, ResultRow
from lth_jax.training.metrics import Metric

UNFINISHED, BOUND = "?", "≥ "
MARK_OF = {Verdict.MATCHES: "✓", Verdict.BELOW: "✗", Verdict.UNDECIDED: "·"}
MARKS = {
    MARK_OF[Verdict.MATCHES]: "matches the dense network",
    MARK_OF[Verdict.BELOW]: "below it",
    MARK_OF[Verdict.UNDECIDED]: "undecided",
    UNFINISHED: "not every replicate is done",
}
COLUMNS = ("early_stop_step", "early_stop_test_accuracy", "final_test_accuracy")
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


def results_tables(
    rows: Iterable[ResultRow], standard: Standard = USUAL, bars: str = INTERVAL
) -> list[Table]:
    """Returns early-stop steps, and the test metric at early stop (which is judged) and at the end.

    Args:
      rows: the experiment's results by level, then by branch in the order of the columns.
      standard: by what levels are judged, and what networks are measured by.
      bars: what stands beside a mean: its 95% `interval`, or the `range` over runs.
    """
    rows = list(rows)
    names = branch_order(rows)
    summaries = summarize(rows)
    if not summaries:
        return []
    metric = standard.metric
    told = (
        ("Early-stop step", STEP, {}),
        (metric.title("Test", "at early stop"), metric, judge(rows, standard)),
        (metric.title("Test", "at the end"), metric, {}),
    )
    return [
        _results_table(title, names, summaries, column, unit, bars, judgements)
        for column, (title, unit, judgements) in zip(COLUMNS, told, strict=True)
    ]


def _results_table(
    title: str,
    names: Sequence[str],
    summaries: Sequence[LevelSummary],
    column: str,
    metric: Metric,
    bars: str,
    judgements: Mapping[tuple[str, int], Judgement],
) -> Table:
    """Returns one column of `results.csv` by level and branch, with the marks of `judgements`."""
    by_key = {(summary.level, summary.branch): summary for summary in summaries}
    lines = []
    for level in sorted({summary.level for summary in summaries}):
        here = [by_key.get((level, name)) for name in names]
        density = next(summary.density for summary in here if summary)
        cells = []
        for summary in here:
            if summary is None:
                cells.append(Cell())
                continue
            judged = judgements.get((summary.branch, level))
            mark = MARK_OF[judged.verdict] if judged else "" if summary.whole else UNFINISHED
            bound = BOUND if summary.censored and metric is STEP else ""
            stat = getattr(summary, column)
            cells.append(Cell(bound + _number(stat, metric), _span(stat, metric, bars), mark))
        lines.append([Cell(str(level)), Cell(percent(density)), *cells])
    return Table(title, ["level", "weights", *names], lines)


def _number(stat: Stat, metric: Metric) -> str:
    return metric.number(stat.mean) if math.isfinite(stat.mean) else "–"


def _span(stat: Stat, metric: Metric, bars: str) -> str:
    """Writes half of an interval, `± 0.12`, or the ends of a range, `97.6–97.9`.

    Of equal values it writes nothing: they do not say how far others would lie.
    """
    low, high = stat.bar(bars)
    if not high > low:
        return ""
    if bars == INTERVAL:
        return f"± {metric.number((high - low) / 2)}"
    return f"{metric.number(low)}–{metric.number(high)}"


def legend(rows: Iterable[ResultRow], standard: Standard = USUAL, bars: str = INTERVAL) -> str:
    """Says what the marks and numbers of the tables mean, for these rows; empty for none."""
    rows = list(rows)
    summaries = summarize(rows)
    parts = []
    if bars == INTERVAL and any(summary.replicates > 1 for summary in summaries):
        parts.append("Mean ± 95% t-interval over replicates: the randomness of training alone.")
        stats = (getattr(summary, name) for summary in summaries for name in COLUMNS)
        if any(stat.low == stat.high for stat in stats):
            parts.append("Without ±, all replicates have that value.")
    elif bars != INTERVAL and any(summary.runs > 1 for summary in summaries):
        parts.append("Mean, and min–max over replicates and draws.")
    judgements = judge(rows, standard)
    if judgements:
        marks = ", ".join(f"{mark} {MARKS[mark]}" for mark in MARK_OF.values())
        parts.append(
            f"{marks}: the paired difference of test {standard.metric.name} at early stop, "
            f"{'' if standard.metric.higher_is_better else 'of which less is better, '}one-sided "
            f"{100 * standard.confidence:g}% t-intervals, margin "
            f"{standard.metric.difference(standard.margin)}."
        )
    if any(summary.censored for summary in summaries):
        parts.append(f"{BOUND.strip()}: training ended before a network would stop.")
    if not all(summary.whole for summary in summaries):
        parts.append(f"{UNFINISHED} {MARKS[UNFINISHED]}, so not judged.")
    return " ".join(parts)


def print_results_tables(
    console: Console,
    rows: Sequence[ResultRow],
    standard: Standard = USUAL,
    bars: str = INTERVAL,
) -> None:
    """Prints the results over levels and what their marks mean, as wide as the console."""
    for table in results_tables(rows, standard, bars):
        print_table(console, table)
    console.print(Text(legend(rows, standard, bars), style="dim") if rows else "No results yet.")


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


def markdown(table: Table) -> str:
    """Returns a table in Markdown, its title in bold above it."""
    lines = [
        f"**{escaped(table.title)}**\n",
        "| " + " | ".join(map(escaped, table.header)) + " |",
        "| --- |" + " ---: |" * (len(table.header) - 1),
        *(
            "| " + " | ".join(escaped(" ".join(filter(None, cell))) for cell in row) + " |"
            for row in table.rows
        ),
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Returns a text of a user's that is no markup in Markdown."""
    return text.replace("|", "\\|").replace("<", "&lt;")


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
