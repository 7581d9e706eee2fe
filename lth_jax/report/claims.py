"""Published results beside ours, as a table for the terminal, the page and `claims.md`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from lth_jax.analysis.references import Compared, Within, compare, reproduced
from lth_jax.analysis.summary import percent
from lth_jax.analysis.verdicts import JUDGED, SPEED
from lth_jax.config import Spec
from lth_jax.report.metric import STEP
from lth_jax.report.table import Cell, Table, escaped, markdown
from lth_jax.store.table import column_of
from lth_jax.store.tables import ResultRow
from lth_jax.training.metrics import ACCURACY, Metric

# How a number of each kind is written; one of any other kind is of the experiment's metric.
METRICS = {
    SPEED: STEP,
    "sooner": Metric("sooner", unit="%", scale=100, decimals=0),
    "times": Metric("times", unit="×", decimals=2),
    "falls": Metric("density", unit="%", scale=100, decimals=1),
}
UNEVEN = ("sooner", "times", "falls")  # whose intervals are not as long on either side
COLOURS = {Within.YES: "green", Within.OPEN: "yellow", Within.NO: "red"}
HEADER = ["claim", "weights", "published", "ours", "difference", "within"]
MEANS = (
    "Ours: mean over replicates and its 95% t-interval. Within: the interval and the published "
    "value, give or take its own uncertainty, have a point in common; open: what the claim denies "
    "lies in the interval, too. Of twenty numbers that are true, one is not within by chance."
)


def claims_table(
    rows: Iterable[ResultRow], spec: Spec, metric: Metric = ACCURACY
) -> tuple[Table | None, str]:
    """Returns the table of published results and a sentence on them; (None, '') without any.

    Args:
      rows: the experiment's results.
      spec: the experiment, which holds what was published.
      metric: what its networks are measured by.
    """
    compared = compare(rows, spec.reference, metric)
    if not compared:
        return None, ""
    title = f"Published results: {spec.reference.get('title', 'reference')}"
    return Table(title, HEADER, [_line(one, metric) for one in compared]), _sentence(compared, spec)


def claims_markdown(rows: Iterable[ResultRow], spec: Spec, metric: Metric = ACCURACY) -> str:
    """Returns the table and the sentence in Markdown; '' without published results."""
    table, sentence = claims_table(rows, spec, metric)
    if table is None:
        return ""
    source = spec.reference.get("source", "")
    where = f" From {escaped(source)}." if source else ""
    return f"{markdown(table)}\n{sentence}{where} {MEANS}\n"


def print_claims(
    console: Console, rows: Iterable[ResultRow], spec: Spec, metric: Metric = ACCURACY
) -> None:
    """Prints the published results that could be compared, and how many came out."""
    table, sentence = claims_table(rows, spec, metric)
    if table is None:
        return
    colours = {within.value: colour for within, colour in COLOURS.items()}
    lines = [line for line in table.rows if line[-1].text in colours]
    if lines:
        # A line each, not the table: claims are long, and terminals narrow.
        console.print(Text(table.title, style="bold"))
        grid = RichTable.grid(padding=(0, 2))
        for line in lines:
            says, weights, claimed, ours, difference, within = (cell.text for cell in line)
            told = (
                f"{says}, at {weights}: published {claimed}, ours {ours}, difference {difference}"
            )
            grid.add_row(Text(within, style=colours[within]), Text(told))
        console.print(grid)
        console.print()
        console.print(Text(MEANS, style="dim"))
    console.print(Text(sentence, style="bold"))
    console.print()


def _sentence(compared: Sequence[Compared], spec: Spec) -> str:
    """Says how many results came out, and why others could not be compared."""
    agree, left_open, judged = reproduced(compared)
    points = "point" if judged == 1 else "points"
    said = f"{agree} of {judged} {points} reproduced"
    said += f", {left_open} left open" if left_open else ""
    notes: dict[str, int] = {}
    for one in compared:
        if one.note:
            notes[one.note] = notes.get(one.note, 0) + 1
    said += "".join(f"; {count} {note}" for note, count in notes.items()) + "."
    steps = spec.reference.get("steps")
    if steps and str(steps) != spec.train.steps:
        said += f" Theirs trained for {steps:,} steps, these for {spec.train.steps}."
    return said


def _line(one: Compared, measured: Metric) -> list[Cell]:
    published = one.published
    gain = measured._replace(name="gain", unit=measured.unit_of_differences)
    metric = {"gain": gain, **METRICS}.get(published.kind, measured)
    judged = column_of(JUDGED, measured.column)
    names = {judged: f"test {measured.name} at early stop", SPEED: STEP.name}
    says = published.says or f"{published.branch}: {names.get(published.kind, published.kind)}"
    says += f" ({published.where})" if published.where else ""
    weights = "–".join(percent(density) for density in published.densities)
    over = "> " if published.relation == "over" else ""
    error = f" ± {metric.number(published.uncertainty)}" if published.uncertainty else ""
    claimed = f"{over}{metric.number(published.value)}{error}{metric.gap}{metric.unit}"
    if one.within is None:
        return [Cell(text) for text in (says, weights, claimed, "", "", one.note)]
    if len(published.densities) > 1:
        weights += f", worst at {percent(one.density)}"
    difference = metric.number(one.difference, "+")
    cells = (says, weights, claimed, _ours(one, metric), difference, one.within.value)
    return [Cell(text) for text in cells]


def _ours(one: Compared, metric: Metric) -> str:
    """Writes a mean with its interval: `97.87 ± 0.18%`, or by its ends where these lie unevenly."""
    if one.published.kind == "falls" and not one.ours:
        return "nowhere"
    spread = ""
    if math.isfinite(one.low):
        spread = f" ± {metric.number((one.high - one.low) / 2)}"
        if one.published.kind in UNEVEN:
            spread = f" ({metric.number(one.low)} to {metric.number(one.high)})"
    return f"{metric.number(one.ours)}{spread}{metric.gap}{metric.unit}"
