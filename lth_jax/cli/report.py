"""`lth-jax report RUN [RUN ...]`: the figures and the page of runs, or of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lth_jax.cli.command import Parser, exit_status
from lth_jax.cli.output import check_folder
from lth_jax.errors import SpecError
from lth_jax.system.streams import say

COMPARISON = "comparison"  # the folder of a report of several runs


def main(arguments: Sequence[str]) -> int:
    """Writes the report, and prints where it is; gives the exit status."""
    return exit_status(lambda: _main(arguments))


def _main(arguments: Sequence[str]) -> None:
    parser = Parser("report", description=__doc__)
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="run directories, which are overlaid; or a sweep",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help=f"where to write (default: RUN; for several runs, ./{COMPARISON})",
    )
    options = parser.parse(arguments)
    sweeps = [path for path in options.runs if (path / "sweep.json").is_file()]
    if not sweeps:
        _report(options.runs, options.out)
    elif len(options.runs) == 1:
        _report_sweep(sweeps[0], options.out)
    else:
        raise SpecError(f"{sweeps[0]}: it is a sweep; accepted: one sweep alone, or runs")


def _report_sweep(path: Path, out: Path | None) -> None:
    from lth_jax.report.page import FIGURES, PAGE
    from lth_jax.report.terminal import make_console, print_files
    from lth_jax.sweep.directory import TABLE, SweepDirectory
    from lth_jax.sweep.report import write_sweep_report

    if out:
        check_folder(out, [path], PAGE)
    folder = out or path
    for note in write_sweep_report(SweepDirectory(path), folder):
        say(f"warning: {note}")
    files = {"report": folder / PAGE, "figures": folder / FIGURES, "results": path / TABLE}
    print_files(make_console(), [(kind, at) for kind, at in files.items() if at.exists()])


def _report(paths: Sequence[Path], out: Path | None) -> None:
    from lth_jax.report.page import FIGURES, PAGE, write_report
    from lth_jax.report.terminal import make_console, print_files
    from lth_jax.store import RunDirectory

    different = {path.resolve(): path for path in paths}
    stores = [RunDirectory.read(path) for path in different.values()]
    for store in stores:
        if not store.holder():  # who runs it may be writing them
            store.check_metrics()
    # A run that goes on writes its event files itself.
    events = out is None and len(stores) == 1 and not stores[0].holder()
    if out:
        check_folder(out, list(different.values()), PAGE)
    folder = out or (stores[0].path if len(stores) == 1 else Path(COMPARISON))
    for note in write_report(stores, folder, events=events):
        say(f"warning: {note}")
    files = {"report": folder / PAGE, "figures": folder / FIGURES}
    print_files(make_console(), [(kind, path) for kind, path in files.items() if path.exists()])
