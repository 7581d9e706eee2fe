"""`python -m lth_jax list [DIR]`: all runs under a directory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from lth_jax.cli.parser import Parser, exit_status
from lth_jax.errors import StoreError

DESCRIPTION = """Lists all runs under a folder, sources of transfers and damaged ones too. Under
"matching" stands the lowest share of the weights at which the ticket matches the dense network."""
# What a run directory holds besides other runs.
OWN = ("checkpoints", "metrics", "figures")


def main(arguments: Sequence[str]) -> int:
    """Prints the runs under the folder; gives the exit status."""
    return exit_status(lambda: _list(arguments))


def _list(arguments: Sequence[str]) -> None:
    parser = Parser(prog="python -m lth_jax list", description=DESCRIPTION)
    add = parser.add_argument
    add("folder", type=Path, nargs="?", default=Path("runs"), metavar="DIR", help="where (runs)")
    add("--quick", action="store_true", help="do not read checkpoints to compare their checksums")
    add("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args(list(arguments))
    from lth_jax.cli.inspection import listing

    if not options.folder.is_dir():
        raise StoreError(f"{options.folder}: no such folder; accepted: a folder with runs in it")
    entries = [listing.entry(path, verify=not options.quick) for path in find_runs(options.folder)]
    if options.json:
        from lth_jax.cli.inspection.as_json import dumps

        print(dumps({"folder": str(options.folder), "runs": entries}))
        return
    from lth_jax.report.terminal import make_console

    listing.print_list(make_console(), options.folder, entries)


def find_runs(folder: Path) -> Iterator[Path]:
    """The run directories in and under `folder`, by name; links are not followed."""
    from lth_jax.cli.inspection.facts import is_run

    for place, names, _ in os.walk(folder):
        path = Path(place)
        found = is_run(path)
        names[:] = sorted(n for n in names if not (n.startswith(".") or (found and n in OWN)))
        if found:
            yield path
