"""`lth-jax connect RUN [RUN]`: what lies on the line between two trained networks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from lth_jax.analysis.paths import SPLITS, STABLE, barrier
from lth_jax.cli.command import Parser, add_own_rows, exit_status
from lth_jax.cli.output import check_file
from lth_jax.cli.text import new_table
from lth_jax.config import PathsSpec, from_config
from lth_jax.disk.files import write_text
from lth_jax.errors import SpecError
from lth_jax.store import RunDirectory
from lth_jax.store.tables import PATHS, PathPoint
from lth_jax.system.streams import say

DESCRIPTION = """Measures the networks on the straight line between any two trained networks of
equal shapes, of one run or of two, on the training and test examples of the first run: errors,
losses, and the barrier between them. Nothing is written but to --out."""
NETWORK = "BRANCH:LEVEL:REPLICATE"


def main(arguments: Sequence[str]) -> int:
    """Prints the path; returns the exit status."""
    return exit_status(lambda: _connect(_parser().parse(arguments)))


def _parser() -> Parser:
    parser, defaults = Parser("connect", description=DESCRIPTION), PathsSpec()
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="the run directory, or one for each")
    add(
        "--first",
        required=True,
        metavar=NETWORK,
        help="a network of the first run, such as ticket:0:0 (its dense network), or with :DRAW",
    )
    add("--second", required=True, metavar=NETWORK, help="a network of the last run")
    add(
        "--points",
        type=int,
        default=defaults.points,
        metavar="N",
        help=f"at how many places ({defaults.points})",
    )
    add(
        "--examples",
        type=int,
        default=defaults.examples,
        metavar="N",
        help="on how many training examples (all)",
    )
    add(
        "--statistics",
        default=defaults.statistics,
        metavar="KIND",
        help=f"those of batches: interpolated, recomputed or repaired ({defaults.statistics})",
    )
    add(
        "--align",
        default=defaults.align,
        metavar="KIND",
        help="measure the path once more after the second network's hidden units are put into the "
        f"first's order, by weights or activations ({defaults.align})",
    )
    add("--out", type=Path, metavar="FILE.csv", help="write every number, in columns of paths.csv")
    add_own_rows(parser)
    return parser


def _connect(options: argparse.Namespace) -> None:
    if len(options.runs) > 2:
        raise SpecError(f"{len(options.runs)} runs; accepted: one or two")
    if options.out:
        check_file(options.out, lambda content: content.startswith(b"pair,level,"), "paths.csv")
    asked = {"points": options.points, "examples": options.examples}
    asked |= {"statistics": options.statistics, "align": options.align}
    paths = from_config({"paths": asked}).paths
    from lth_jax.training import backend  # which imports JAX

    with backend.prepared(lambda line: say(f"warning: {line}")):
        points = _points(options, paths)
    if options.out:
        write_text(options.out, PATHS.to_csv(points))
    for aligned in paths.alignments:
        _print([point for point in points if point.aligned == aligned])


def _points(options: argparse.Namespace, paths: PathsSpec) -> list[PathPoint]:
    from lth_jax.lottery.connecting import connect, run_id_of
    from lth_jax.lottery.custom import recall

    runs = run_id_of(options.first, "--first"), run_id_of(options.second, "--second")
    stores = RunDirectory.read(options.runs[0]), RunDirectory.read(options.runs[-1])
    recall(
        options.runs[0],
        stores[0].record_of_spec(),
        stores[0].spec(),
        "network",
        config=options.config,
        trust=options.trust,
    )
    return connect(stores, runs, paths)


def _print(points: Sequence[PathPoint]) -> None:
    from lth_jax.report.terminal import make_console

    console, one = make_console(), points[0]
    after = "" if one.aligned == "none" else f", its units aligned by {one.aligned}"
    console.print(f"{one.first} to {one.second}{after}", soft_wrap=True)
    console.print(_table(points))
    for split in SPLITS:
        height = barrier([getattr(point, f"{split}_error") for point in points])
        said = f"barrier, {split}: {100 * height:.2f} points of error"
        if split == SPLITS[0]:
            linear = "linearly connected" if height < STABLE else "not linearly connected"
            said += f": {linear} ({100 * STABLE:g} points)"
        console.print(said)
    console.print(f"apart: {one.l2:.4g} (Euclidean), {one.angle:.1f} degrees")


def _table(points: Sequence[PathPoint]) -> Table:
    table = new_table("α", "test error, %", "train error, %", "test loss", "train loss")
    for point in points:
        table.add_row(
            f"{point.alpha:.3f}",
            *(f"{100 * error:.2f}" for error in (point.test_error, point.train_error)),
            *(f"{loss:.4f}" for loss in (point.test_loss, point.train_loss)),
        )
    return table
