"""`run.py` and `python -m lth_jax run`: an experiment from its config to its table and figures.

This is the experiment at a terminal: arguments, signals and what is printed. `running` trains.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lth_jax import config as specs
from lth_jax.cli.command import Parser, exit_status
from lth_jax.config.files import (
    DEFAULT,
    config_name,
    load_config,
    override,
    read_config,
    split_arguments,
)
from lth_jax.errors import SpecError

USAGE = "run.py [--config=FILE[:VARIANT]] [--config.FIELD=VALUE ...] [--workdir=DIR]"
DESCRIPTION = "Find a winning ticket: train, prune, rewind, repeat, with the controls beside it."


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line `arguments` (this process's by default); returns the exit status."""
    program = ["-m", "lth_jax", "run"]
    if arguments is None:
        program, arguments = [sys.argv[0]], sys.argv[1:]
    command = [*program, *arguments]
    return exit_status(lambda: _run(command, command[len(program) :]), again=command)


def _run(command: Sequence[str], arguments: Sequence[str]) -> None:
    config_file, overrides, others = split_arguments(arguments)
    parser = _parser()
    # Flags may have one dash, as those of absl may, whose syntax for fields of a config this is.
    options = parser.parse([re.sub("^-(?=[^-])", "--", argument) for argument in others])
    if options.help:
        print(parser.format_help() + _fields(config_file, overrides))
        return
    if options.workdir == "":
        raise SpecError("--workdir='': accepted: a folder to write to")
    spec = _spec(config_file, overrides)
    name = config_name(config_file)
    path = Path(options.workdir or f"runs/{name}-{specs.identity(spec)}")

    from lth_jax.cli.running import run_experiment  # these import JAX, which takes a second
    from lth_jax.report.terminal import Terminal

    _show_log()
    store = run_experiment(
        spec, name=name, path=path, command=command, observe=Terminal, warn=_warn, listen=_signals
    )
    _print_results(store, spec)


def _parser() -> Parser:
    parser = Parser(prog="run.py", usage=USAGE, description=DESCRIPTION, add_help=False)
    add = parser.add_argument
    # `split_arguments` has taken these two: the fields are the config's.
    add(
        "--config",
        metavar="FILE[:VARIANT]",
        help=f"the experiment ({DEFAULT} if not given); paths from here, or from the folder of "
        "run.py",
    )
    add("--config.FIELD", metavar="VALUE", help="overrides one field of it")
    add(
        "--workdir",
        metavar="DIR",
        help="where results go (runs/<config name>-<identity> if not given); started again, an "
        "experiment goes on from there",
    )
    add("--help", action="store_true", help="this text")
    add(
        "--h", "--helpfull", "--helpshort", dest="help", action="store_true", help=argparse.SUPPRESS
    )
    return parser


def _fields(config_file: str, overrides: Sequence[str]) -> str:
    """Returns a line for every field of the config, with its value there."""
    config = load_config(config_file, overrides)
    fields = specs.flatten(config.to_dict())
    lines = [f"  --config.{name}={value!r}" for name, value in fields.items()]
    options = ", ".join(specs.to_dict(specs.BranchSpec()))
    lines.append(f"  --config.branch.<name>.<option>: options of a branch: {options}")
    return f"\nfields of {config_file}:\n" + "\n".join(lines)


def _spec(config_file: str, overrides: Sequence[str]) -> specs.Spec:
    from lth_jax.config.custom import register  # which imports JAX, as do the branches
    from lth_jax.lottery.branches import BRANCHES

    file = read_config(config_file)
    register(file)
    return specs.from_config(override(file.config, overrides, list(BRANCHES)))


def _show_log() -> None:
    """Lets our own notes, such as that a dataset is being prepared, go to standard error."""
    # Orbax logs every array that it writes, and what it raises, which we report ourselves.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    log = logging.getLogger("lth_jax")
    if not log.handlers:
        log.addHandler(logging.StreamHandler())
        log.setLevel(logging.INFO)


def _warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr)


def _print_results(store, spec: specs.Spec) -> None:
    """Prints the table, what was found, and where the files are."""
    from lth_jax.lottery.plan import planned_runs
    from lth_jax.report.page import FIGURES, PAGE
    from lth_jax.report.terminal import make_console, print_results

    planned = set(planned_runs(spec))
    rows = [row for row in store.sorted_rows() if row.run_id in planned]
    names = {"results": "results.csv", "report": PAGE, "figures": FIGURES}
    files = [(kind, store.path / name) for kind, name in names.items()]
    files = [(kind, path) for kind, path in files if path.exists()]
    print_results(make_console(), rows, files)


@contextmanager
def _signals() -> Iterator[Callable[[], int]]:
    """Gives a function that returns the number of a signal that came (Ctrl-C, SIGTERM), or 0.

    A second one ends the process at once, as if nobody listened.
    """
    came = [0]

    def handle(signum: int, _frame: object) -> None:
        if came[0]:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        came[0] = signum

    listened = (signal.SIGINT, signal.SIGTERM)
    before = {signum: signal.signal(signum, handle) for signum in listened}
    try:
        yield lambda: came[0]
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
