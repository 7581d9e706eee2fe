"""`python -m lth_jax report RUN [RUN ...]`: the figures and the page of runs, several overlaid."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lth_jax.cli.command import Parser, exit_status

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
    options = parser.parse(arguments)
    _report(options.runs, options.out)


def _report(paths: Sequence[Path], out: Path | None) -> None:
    from lth_jax.report.page import FIGURES, PAGE, write_report
    from lth_jax.report.terminal import make_console, print_files
    from lth_jax.store import RunDirectory

    different = {path.resolve(): path for path in paths}
    stores = [RunDirectory.read(path) for path in different.values()]
    # A run that goes on writes its event files itself.
    events = out is None and len(stores) == 1 and not stores[0].holder()
    folder = out or (stores[0].path if len(stores) == 1 else Path(COMPARISON))
    for note in write_report(stores, folder, events=events):
        print(f"warning: {note}", file=sys.stderr)
    files = {"report": folder / PAGE, "figures": folder / FIGURES}
    print_files(make_console(), [(kind, path) for kind, path in files.items() if path.exists()])
