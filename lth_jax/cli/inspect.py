"""`python -m lth_jax inspect RUN`: what a run directory holds, finished, running or damaged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lth_jax.cli.parser import Parser, exit_status

DESCRIPTION = """Shows what a run directory holds: what it is, its problems, its spec, results over
levels, layers and checkpoints. A damaged run is looked at all the same (exit status 0); what cannot
be had at all is one line and exit status 2."""


def main(arguments: Sequence[str]) -> int:
    """Prints what the run directory holds; gives the exit status."""
    return exit_status(lambda: _inspect(arguments))


def _inspect(arguments: Sequence[str]) -> None:
    options = _parser().parse_args(list(arguments))
    from lth_jax.cli.inspection.facts import gather
    from lth_jax.cli.inspection.select import Selection, check, detail_of

    facts = gather(options.run)
    asked = Selection(options.branch, options.level, options.replicate, options.layer)
    check(facts, asked)
    detail = detail_of(facts, asked)
    if options.json:
        from lth_jax.cli.inspection import as_json

        print(as_json.dumps(as_json.run_object(facts, asked, detail)))
        return
    from lth_jax.cli.inspection.show import print_run
    from lth_jax.report.terminal import make_console

    print_run(make_console(), facts, asked, detail)


def _parser() -> Parser:
    parser = Parser(prog="python -m lth_jax inspect", description=DESCRIPTION)
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="the run directory")
    add("--level", type=int, metavar="N", help="the layers of level N, and its checkpoints")
    add(
        "--replicate",
        type=int,
        metavar="R",
        help="whose layers and checkpoints (layers of 0, checkpoints of all)",
    )
    add(
        "--branch",
        metavar="B",
        help="the results and the progress of branch B; the table keeps the ticket beside it. "
        "Layers are always the ticket's: controls keep no weights",
    )
    add(
        "--layer",
        metavar="PATTERN",
        help="only layers of this name or module, such as 'fc1', 'conv*' or '*/kernel'",
    )
    add("--json", action="store_true", help="one JSON object instead of tables")
    return parser
