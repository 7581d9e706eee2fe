"""`python -m lth_jax report RUN [RUN ...]`: the figures and the page of runs, several overlaid."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lth_jax.cli.parser import Parser, exit_status

if TYPE_CHECKING:
    from lth_jax.report.write import Written

COMPARISON = "comparison"  # the folder of a report of several runs


def main(arguments: Sequence[str]) -> int:
    """Writes the report, and prints where it is; gives the exit status."""
    return exit_status(lambda: _main(arguments))


def _main(arguments: Sequence[str]) -> None:
    parser = Parser(prog="python -m lth_jax report", description=__doc__)
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="run directories; several are overlaid"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help=f"where to write (default: RUN; for several runs, ./{COMPARISON})",
    )
    options = parser.parse_args(list(arguments))
    _print(_report(options.runs, options.out))


def _report(paths: Sequence[Path], out: Path | None) -> Written:
    from lth_jax.report.write import write_comparison, write_report
    from lth_jax.store import RunDirectory

    different = {path.resolve(): path for path in paths}
    stores = [RunDirectory.read(path) for path in different.values()]
    if len(stores) > 1:
        return write_comparison(stores, out or Path(COMPARISON))
    (store,) = stores
    # A run that goes on writes its event files itself.
    return write_report(store, out, events=out is None and not store.holder())


def _print(written: Written) -> None:
    from lth_jax.report.terminal import make_console, print_files

    for note in written.notes:
        print(f"warning: {note}", file=sys.stderr)
    files = [("report", written.page)]
    if written.figures:
        files.append(("figures", written.figures[0].parent))
    print_files(make_console(), files)
