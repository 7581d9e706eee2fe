"""The runs under a folder, a line each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lth_jax.analysis.summary import lowest_matching_density, percent
from lth_jax.cli.inspection.facts import Facts, gather, levels_done, replicates_done
from lth_jax.cli.inspection.layer_table import fits
from lth_jax.cli.inspection.show import ago
from lth_jax.errors import StoreError

Entry = dict[str, Any]
STYLES = {"running": "cyan", "finished": "green", "damaged": "bold red", "unreadable": "bold red"}
# What goes first where a terminal is too narrow.
DISPENSABLE = ("name", "replicates")


def entry(path: Path, *, verify: bool) -> Entry:
    """What there is to say of a run, as plain data.

    A run that cannot be read at all, such as one of a newer format, is `unreadable`.
    """
    try:
        return _entry(gather(path, verify=verify))
    except StoreError as error:
        return {"path": str(path), "status": "unreadable", "problems": [str(error)]}


def _entry(facts: Facts) -> Entry:
    return {
        "path": str(facts.path),
        "status": facts.status,
        "identity": facts.record.get("identity"),
        "name": facts.record.get("name"),
        "levels_done": levels_done(facts),
        "levels": facts.spec.levels if facts.spec else None,
        "replicates": replicates_done(facts.rows),
        "lowest_matching_density": lowest_matching_density(facts.rows),
        "age_seconds": round(facts.age(), 3),
        "problems": facts.problems,
    }


def print_list(console: Console, folder: Path, entries: Sequence[Entry]) -> None:
    """Prints the runs as a table as wide as fits, and below it what is wrong with which."""
    if not entries:
        console.print(Text(f"no runs under {folder}"))
        return
    left_out: list[str] = []
    table = _table(folder, entries, left_out)
    for name in DISPENSABLE:
        if not fits(console, table):
            left_out.append(name)
            table = _table(folder, entries, left_out)
    console.print(table)
    for found in entries:
        first, *others = found["problems"] or [""]
        if first:
            more = f" (and {len(others)} more: see inspect)" if others else ""
            console.print(Text(f"{_place(folder, found)}: {first}{more}", style="red"))


def _table(folder: Path, entries: Sequence[Entry], left_out: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("run", overflow="fold")
    columns = ["status", "identity", "name", "levels", "replicates", "matching", "age"]
    columns = [name for name in columns if name not in left_out]
    for name in columns:
        right = name in ("levels", "replicates", "matching", "age")
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for found in entries:
        cells = _cells(found)
        style = STYLES.get(found["status"], "")
        status = Text(found["status"], style=style)
        row = [status if name == "status" else Text(cells[name]) for name in columns]
        table.add_row(Text(_place(folder, found)), *row)
    return table


def _cells(found: Entry) -> dict[str, str]:
    done, levels = found.get("levels_done", -1), found.get("levels")
    matching = found.get("lowest_matching_density")
    reached = "–" if done < 0 else str(done)
    return {
        "identity": found.get("identity") or "–",
        "name": found.get("name") or "–",
        "levels": reached if levels is None else f"{reached} of {levels}",
        "replicates": str(found.get("replicates", "–")),
        "matching": "–" if matching is None else percent(matching),
        "age": ago(found["age_seconds"]) if "age_seconds" in found else "–",
    }


def _place(folder: Path, found: Entry) -> str:
    """A run's folder, as seen from the one that was listed."""
    place = Path(found["path"]).relative_to(folder).as_posix()
    return str(folder) if place == "." else place
