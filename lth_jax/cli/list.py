"""`lth-jax list [DIR]`: all runs under a directory."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lth_jax.analysis.summary import percent
from lth_jax.analysis.verdicts import lowest_matching_density
from lth_jax.cli.command import Parser, exit_status
from lth_jax.cli.directory import Directory, is_run, read_directory, refuse_damaged_tables
from lth_jax.cli.text import ago, as_json, fits, new_table
from lth_jax.errors import StoreError
from lth_jax.report.terminal import make_console
from lth_jax.store.tables import TRUNK

DESCRIPTION = """Lists all runs under a folder, sources of transfers and damaged ones too. Under
"matching" stands the share of the weights down to which the ticket matches the dense network."""
# Of a run directory, where no other run is.
PARTS = ("checkpoints", "config", "figures", "metrics", "tensorboard")
COLUMNS = ("status", "identity", "name", "levels", "replicates", "matching", "age")
DISPENSABLE = ("name", "replicates")  # what goes first where a terminal is too narrow
MOST_PASSED = 5  # lines
STYLES = {"running": "cyan", "finished": "green", "damaged": "bold red", "unreadable": "bold red"}

Entry = dict[str, Any]


def main(arguments: Sequence[str]) -> int:
    """Prints the runs under the folder; returns the exit status."""
    return exit_status(lambda: _list(arguments))


def _list(arguments: Sequence[str]) -> None:
    parser = Parser("list", description=DESCRIPTION)
    add = parser.add_argument
    add("folder", type=Path, nargs="?", default=Path("runs"), metavar="DIR", help="where (runs)")
    add(
        "--check",
        action="store_true",
        help="read every curve and checkpoint, too, and compare them with their checksums",
    )
    add("--quick", action="store_true", help=argparse.SUPPRESS)  # what it does anyway, by now
    add("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse(arguments)
    folder = options.folder
    if not folder.is_dir():
        raise StoreError(f"{folder}: no such folder; accepted: a folder with runs in it")
    passed: list[Passed] = []
    runs = find_runs(folder, passed)
    found = {path: _read(path, whole=options.check) for path in runs}
    entries = [_entry(path, run) for path, run in found.items()]
    if options.json:
        over = [{"path": str(one.path), "why": one.why} for one in passed]
        print(as_json({"folder": str(folder), "runs": entries, "passed_over": over}))
    else:
        _print(make_console(), folder, entries, passed)
    refuse_damaged_tables(run for run in found.values() if isinstance(run, Directory))


class Passed(NamedTuple):
    """A folder that was not looked into, and why."""

    path: Path
    why: str


def find_runs(folder: Path, passed: list[Passed]) -> Iterator[Path]:
    """Yields the run directories in and under `folder`, by name; links are not followed.

    What is passed over, and might hold runs, joins `passed`.
    """

    def unreadable(error: OSError) -> None:
        passed.append(Passed(Path(error.filename), error.strerror or "it cannot be read"))

    for place, names, _ in os.walk(folder, onerror=unreadable):
        path = Path(place)
        try:
            found = is_run(path)
        except OSError as error:
            unreadable(error)
            found = False
        kept = []
        for name in sorted(names):
            if found and name in PARTS:
                continue
            if name.startswith("."):
                passed.append(Passed(path / name, "it is hidden"))
            elif (path / name).is_symlink():
                passed.append(Passed(path / name, "it is a link"))
            else:
                kept.append(name)
        names[:] = kept
        if found:
            yield path


def _read(path: Path, *, whole: bool) -> Directory | StoreError:
    """Returns a run, or why it cannot be read at all, such as one of a newer format."""
    try:
        return read_directory(path, whole=whole)
    except StoreError as error:
        return error


def _entry(path: Path, run: Directory | StoreError) -> Entry:
    """Returns what there is to say of a run, as plain data; `unreadable` where it is none."""
    if isinstance(run, StoreError):
        return {"path": str(path), "status": "unreadable", "problems": [str(run)]}
    # The last level up to which every planned run is done; -1 for none.
    done = max((row.level for row in run.rows), default=-1)
    if run.spec:  # where every ticket diverged, there are no more rows, and nothing is pending
        pending = min((run_id.level for run_id in run.pending()), default=run.spec.levels + 1)
        done = min(done, pending - 1)
    return {
        "path": str(path),
        "status": run.status,
        "identity": run.record.get("identity"),
        "name": run.record.get("name"),
        "levels_done": done,
        "levels": run.spec.levels if run.spec else None,
        "replicates": len({row.replicate for row in run.rows if row.branch == TRUNK}),
        "lowest_matching_density": lowest_matching_density(run.rows, run.standard),
        "age_seconds": round(run.age(), 3),
        "problems": run.problems,
    }


def _print(
    console: Console, folder: Path, entries: Sequence[Entry], passed: Sequence[Passed]
) -> None:
    """Prints the runs as a table as wide as fits, what is wrong with which, and what was passed."""
    if entries:
        _print_runs(console, folder, entries)
    else:
        console.print(Text(f"no runs under {folder}"))
    for one in passed[:MOST_PASSED]:
        place = one.path.relative_to(folder).as_posix()
        console.print(Text(f"passed over {place}: {one.why}", style="dim"), soft_wrap=True)
    if len(passed) > MOST_PASSED:
        more = len(passed) - MOST_PASSED
        console.print(Text(f"passed over {more} more: see --json", style="dim"))


def _print_runs(console: Console, folder: Path, entries: Sequence[Entry]) -> None:
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
