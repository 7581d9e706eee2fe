"""`python -m lth_jax list [DIR]`: all runs under a directory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lth_jax.analysis.summary import lowest_matching_density, percent
from lth_jax.cli.command import Parser, exit_status
from lth_jax.cli.directory import is_run, read_directory
from lth_jax.cli.text import ago, as_json, fits, new_table
from lth_jax.errors import StoreError
from lth_jax.report.terminal import make_console
from lth_jax.store.tables import TRUNK

DESCRIPTION = """Lists all runs under a folder, sources of transfers and damaged ones too. Under
"matching" stands the lowest share of the weights at which the ticket matches the dense network."""
PARTS = ("checkpoints", "metrics", "figures")  # of a run directory, where no other run is
COLUMNS = ("status", "identity", "name", "levels", "replicates", "matching", "age")
DISPENSABLE = ("name", "replicates")  # what goes first where a terminal is too narrow
STYLES = {"running": "cyan", "finished": "green", "damaged": "bold red", "unreadable": "bold red"}

Entry = dict[str, Any]


def main(arguments: Sequence[str]) -> int:
    """Prints the runs under the folder; returns the exit status."""
    return exit_status(lambda: _list(arguments))


def _list(arguments: Sequence[str]) -> None:
    parser = Parser(prog="python -m lth_jax list", description=DESCRIPTION)
    add = parser.add_argument
    add("folder", type=Path, nargs="?", default=Path("runs"), metavar="DIR", help="where (runs)")
    add("--quick", action="store_true", help="do not read checkpoints to compare their checksums")
    add("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse(arguments)
    folder = options.folder
    if not folder.is_dir():
        raise StoreError(f"{folder}: no such folder; accepted: a folder with runs in it")
    entries = [_entry(path, checksums=not options.quick) for path in _find_runs(folder)]
    if options.json:
        print(as_json({"folder": str(folder), "runs": entries}))
    else:
        _print(make_console(), folder, entries)


def _find_runs(folder: Path) -> Iterator[Path]:
    """Yields the run directories in and under `folder`, by name; links are not followed."""
    for place, names, _ in os.walk(folder):
        path = Path(place)
        found = is_run(path)
        names[:] = sorted(n for n in names if not (n.startswith(".") or (found and n in PARTS)))
        if found:
            yield path


def _entry(path: Path, *, checksums: bool) -> Entry:
    """Returns what there is to say of a run, as plain data.

    A run that cannot be read at all, such as one of a newer format, is `unreadable`.
    """
    try:
        run = read_directory(path, checksums=checksums)
    except StoreError as error:
        return {"path": str(path), "status": "unreadable", "problems": [str(error)]}
    # The last level up to which every planned run is done; -1 for none.
    done = max((row.level for row in run.rows), default=-1)
    if run.spec:
        done = min((run_id.level for run_id in run.pending()), default=run.spec.levels + 1) - 1
    return {
        "path": str(path),
        "status": run.status,
        "identity": run.record.get("identity"),
        "name": run.record.get("name"),
        "levels_done": done,
        "levels": run.spec.levels if run.spec else None,
        "replicates": len({row.replicate for row in run.rows if row.branch == TRUNK}),
        "lowest_matching_density": lowest_matching_density(run.rows),
        "age_seconds": round(run.age(), 3),
        "problems": run.problems,
    }


def _print(console: Console, folder: Path, entries: Sequence[Entry]) -> None:
    """Prints the runs as a table as wide as fits, and below it what is wrong with which."""
    if not entries:
        console.print(Text(f"no runs under {folder}"))
        return
    columns = list(COLUMNS)
    table = _table(folder, entries, columns)
    for name in DISPENSABLE:
        if not fits(console, table):
            columns.remove(name)
            table = _table(folder, entries, columns)
    console.print(table)
    for entry in entries:
        first, *others = entry["problems"] or [""]
        if first:
            more = f" (and {len(others)} more: see inspect)" if others else ""
            console.print(Text(f"{_place(folder, entry)}: {first}{more}", style="red"))


def _table(folder: Path, entries: Sequence[Entry], columns: Sequence[str]) -> Table:
    table = new_table("run", *columns, folded="run", left=("status", "identity", "name"))
    for entry in entries:
        cells = _cells(entry)
        table.add_row(Text(_place(folder, entry)), *(cells[name] for name in columns))
    return table


def _cells(entry: Entry) -> dict[str, Text]:
    done, levels = entry.get("levels_done", -1), entry.get("levels")
    matching = entry.get("lowest_matching_density")
    reached = "–" if done < 0 else str(done)
    return {
        "status": Text(entry["status"], style=STYLES.get(entry["status"], "")),
        "identity": Text(entry.get("identity") or "–"),
        "name": Text(entry.get("name") or "–"),
        "levels": Text(reached if levels is None else f"{reached} of {levels}"),
        "replicates": Text(str(entry.get("replicates", "–"))),
        "matching": Text("–" if matching is None else percent(matching)),
        "age": Text(ago(entry["age_seconds"]) if "age_seconds" in entry else "–"),
    }


def _place(folder: Path, entry: Entry) -> str:
    """Returns a run's folder, as seen from the one that was listed."""
    place = Path(entry["path"]).relative_to(folder).as_posix()
    return str(folder) if place == "." else place
