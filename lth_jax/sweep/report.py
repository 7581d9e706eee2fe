"""What a sweep shows: a table of all its experiments, and `report.html` with its figures."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.text import Text

from lth_jax._version import __version__
from lth_jax.analysis.summary import summarize
from lth_jax.disk.files import write_bytes, write_text
from lth_jax.report.page import FIGURES, PAGE, finite, inline, template, width_of
from lth_jax.report.table import MARKS, Cell, Table, new_table
from lth_jax.store.tables import TRUNK
from lth_jax.sweep.directory import DAMAGED, FAILURE, FINISHED, Member, SweepDirectory, metric_of
from lth_jax.sweep.settings import COLUMN, settings_of
from lth_jax.system.streams import printable

STYLES = {"running": "cyan", FINISHED: "green", FAILURE: "bold red", DAMAGED: "bold red"}


def members_table(members: Sequence[Member]) -> Table:
    """Returns the one table of all: what runs, what is done, and what it found so far."""
    fields = list(members[0].fields) if members else []
    rows = []
    for member in members:
        found = {
            one.level: one for one in summarize(member.rows) if one.branch == TRUNK and one.runs
        }
        values = [Cell(str(member.fields[name])) for name in fields]
        ends = [_metric(member, found.get(level)) for level in (0, max(found, default=0))]
        done = Cell(f"{member.done} of {member.planned}")
        rows.append([Cell(member.name), *values, Cell(member.status), done, *ends])
    return Table("Experiments", ["experiment", *fields, "status", "runs", "dense", "last"], rows)


def _metric(member: Member, summary: Any) -> Cell:
    stat = getattr(summary, COLUMN, None)
    if stat is None or not math.isfinite(stat.mean):
        return Cell("–")
    span = f"± {member.metric.number((stat.high - stat.low) / 2)}"
    return Cell(member.metric.number(stat.mean), span if math.isfinite(stat.low) else "")


def print_members(console: Console, members: Sequence[Member]) -> None:
    """Prints the table of all experiments, and why some failed."""
    if not members:
        console.print("no experiments yet")
        return
    table = members_table(members)
    printed = new_table()
    for name in table.header:
        folded = "fold" if name == "experiment" else "ellipsis"
        printed.add_column(Text(name), overflow=folded, no_wrap=name != "experiment")
    at = table.header.index("status")
    for row in table.rows:
        cells = [Text(" ".join(filter(None, cell[:2]))) for cell in row]
        cells[at].stylize(STYLES.get(row[at].text, ""))
        printed.add_row(*cells)
    console.print(printed)
    if any(member.rows for member in members):
        unit = metric_of(members).title("test", "at early stop")
        what = f"dense, last: {unit}, of the dense network and of the last level's ticket"
        console.print(Text(what, style="dim"))
    for member in members:
        if member.why:
            console.print(Text(f"{member.name}: {member.why}", style="red"), soft_wrap=True)


def write_sweep_report(directory: SweepDirectory, folder: Path) -> list[str]:
    """Writes `report.html`, `figures/` and `sweep.csv`; returns a line for what is left out.

    Raises:
      StoreError: experiments are measured by different metrics, or the folder is not to be written.
    """
    from markupsafe import Markup

    from lth_jax.report.drawing import house_style  # takes seconds: it imports Matplotlib
    from lth_jax.report.figures import rendered
    from lth_jax.sweep.figures import MOST_PAIRS, figures_of

    members = directory.members()
    metric = metric_of(members)
    directory.write_table(members)
    sweep = settings_of(members)
    notes = [f"{m.name}: {m.status}: {m.why}" for m in members if m.why]
    pairs = len(sweep.fields) * (len(sweep.fields) - 1) // 2
    if pairs > MOST_PAIRS:
        notes.append(f"{pairs - MOST_PAIRS} of {pairs} heat maps are left out")
    figures = []
    with house_style():
        for name, heading, figure in figures_of(sweep, metric):
            figures.append(rendered(name, heading, figure))
    for figure in figures:
        write_bytes(folder / FIGURES / f"{figure.name}.png", figure.png)
        write_bytes(folder / FIGURES / f"{figure.name}.svg", figure.svg.encode("utf-8"))
    done = sum(member.status == FINISHED for member in members)
    templates = resources.files("lth_jax.report") / "templates"
    pages = {m.name: directory.path / m.name / PAGE for m in members}
    table = members_table(members)
    data = [{"name": m.name, "status": m.status, "fields": dict(m.fields)} for m in members]
    page = template("sweep.html.j2").render(
        title=f"Sweep {directory.path.resolve().name}",
        subtitle=f"{len(members)} experiments, {done} finished",
        notes=notes,
        figures=[(figure, Markup(inline(figure)), width_of(figure)) for figure in figures],
        table=table,
        marks=MARKS,
        links={name: _link(at, folder) for name, at in pages.items() if at.exists()},
        data=finite({"runs": data, "figures": {f.name: f.marks for f in figures}}),
        version=__version__,
        now=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        css=Markup((templates / "report.css").read_text("utf-8")),
        js=Markup((templates / "report.js").read_text("utf-8")),
    )
    write_text(folder / PAGE, printable(page))
    return notes


def _link(page: Path, folder: Path) -> str:
    return quote(Path(os.path.relpath(page, folder)).as_posix())
