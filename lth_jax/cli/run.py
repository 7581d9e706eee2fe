"""`run.py` and `lth-jax run`: an experiment from its config to its table and figures.

This is the experiment at a terminal: arguments, signals and what is printed. `running` trains.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lth_jax import config as specs
from lth_jax.cli.command import Parser, exit_status, typed
from lth_jax.cli.help import help_text, split_help
from lth_jax.cli.tasks import shares_of, take_place, work
from lth_jax.config.files import DEFAULT, split_arguments
from lth_jax.errors import SpecError, StoreError
from lth_jax.system.signals import listening
from lth_jax.system.streams import meanwhile, silence

if TYPE_CHECKING:
    from lth_jax.lottery.sharing import Follower, Leader

USAGE = (
    "%(prog)s [CONFIG[:VARIANT]] [--config.FIELD=VALUE ...] [--workdir=DIR] [--repair]\n"
    "       [--hosts=auto|HOST:PORT,I/N] [--tasks=N [--slurm=… | --ray=…]]"
)
DESCRIPTION = "Find a winning ticket: train, prune, rewind, repeat, with the controls beside it."


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line `arguments` (this process's by default); returns the exit status."""
    if arguments is None:
        program, arguments = [sys.argv[0]], sys.argv[1:]
        shown, name = ["python", *program], Path(sys.argv[0]).name
    else:
        program, shown = ["-m", "lth_jax", "run"], [*typed(), "run"]
        name = " ".join(shown)
    parser, command = _parser(name), [*program, *arguments]
    return exit_status(lambda: _run(parser, command, arguments), again=[*shown, *arguments])


def _run(parser: Parser, command: Sequence[str], arguments: Sequence[str]) -> None:
    named, overrides, others = split_arguments(arguments)
    group, others = split_help(others)
    # Flags may have one dash, as those of absl may, whose syntax for fields of a config this is.
    options = parser.parse([re.sub("^-(?=[^-])", "--", argument) for argument in others])
    if named and options.word:
        raise SpecError(f"{options.word}: --config={named} is given, too; accepted: one of the two")
    config_file = named or options.word or DEFAULT
    if options.help:
        print(help_text(parser, config_file, overrides, group))
        return
    if options.workdir == "":
        raise SpecError("--workdir='': accepted: a folder to write to")
    _check_places(options)
    if options.hosts is None:
        _train(options, config_file, overrides, command)
        return
    with meanwhile("finding the other processes"):
        from lth_jax.api.hosts import joined
    with joined(options.hosts) as (leader, follower):
        _train(options, config_file, overrides, command, leader, follower)


def _check_places(options: argparse.Namespace) -> None:
    if not 0 <= options.tasks <= 1024:
        raise SpecError(f"--tasks={options.tasks}: accepted: 1 to 1,024")
    if options.tasks and options.hosts is not None:
        raise SpecError(f"--tasks={options.tasks}: --hosts, too; accepted: one of them")
    for name, value in (("slurm", options.slurm), ("ray", options.ray)):
        if value is not None and not options.tasks:
            raise SpecError(f"--{name}={value}: --tasks is missing; accepted: --tasks=N, too")
    if options.ray is not None and options.slurm is not None:
        raise SpecError(f"--ray={options.ray}: --slurm, too; accepted: one of them")


def _train(
    options: argparse.Namespace,
    config_file: str,
    overrides: Sequence[str],
    command: Sequence[str],
    leader: Leader | None = None,
    follower: Follower | None = None,
) -> None:
    """Runs the experiment, and prints what was found unless another process does."""
    if options.share:
        take_place(options)
    with meanwhile("importing JAX"):  # which takes seconds
        from lth_jax.api.choice import choose

        chosen = choose(config_file, overrides)

        from lth_jax.api.run import log_shown, warn
        from lth_jax.api.running import Running
        from lth_jax.report.terminal import Terminal

    # Orbax logs every array that it writes, and what it raises, which we report ourselves.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    running = Running(command, chosen.file, Terminal, warn, listening, options.repair)
    path = chosen.path(options.workdir)
    if leader:
        running = dataclasses.replace(running, shares=leader)
    if options.share:
        work(running, chosen.spec, path, options.share)
        return
    if options.tasks:
        shares = shares_of(options, chosen.spec, path, config_file, overrides)
        running = dataclasses.replace(running, shares=shares)
    if follower:
        silent = dataclasses.replace(running, warn=lambda _: None, follower=follower)
        silent.run(chosen.spec, name=chosen.name, path=path)
        return
    with log_shown():
        store = running.run(chosen.spec, name=chosen.name, path=path)
    # What was trained is on disk: that it cannot be shown is no failure.
    try:
        _print_results(store, chosen.spec)
        sys.stdout.flush()
    except OSError as error:
        silence(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            warn(f"the results were not printed: {error.strerror}; they are in {store.path}")


def _parser(program: str) -> Parser:
    parser = Parser("run", prog=program, usage=USAGE, description=DESCRIPTION, add_help=False)
    add = parser.add_argument
    add(
        "word",
        nargs="?",
        metavar="CONFIG[:VARIANT]",
        help=f"the experiment ({DEFAULT} if not given): a file, or the name of one that the "
        f"package brings: {' '.join(typed())} configs",
    )
    # `split_arguments` has taken these two: the fields are the config's.
    add("--config", metavar="CONFIG[:VARIANT]", help="the same")
    add("--config.FIELD", metavar="VALUE", help="overrides one field of it")
    add(
        "--workdir",
        metavar="DIR",
        help="where results go (runs/<config name>-<identity> if not given); started again, an "
        "experiment goes on from there",
    )
    add(
        "--repair",
        action="store_true",
        help="train again, bit for bit, finished runs whose row, curve or checkpoint is damaged",
    )
    add(
        "--hosts",
        metavar="auto|HOST:PORT,I/N",
        help="train with other processes, each of which has this command: auto where srun, mpirun, "
        "GKE or Cloud TPU start them; else where the first one is, and which of how many this is "
        "(10.0.0.1:1234,0/2)",
    )
    add(
        "--tasks",
        type=int,
        default=0,
        metavar="N",
        help="have the runs of each level trained by N workers, each of which has a share of this "
        "machine's cores or GPUs",
    )
    add(
        "--slurm",
        nargs="?",
        const="",
        metavar="NAME=VALUE,…",
        help="with --tasks: workers are jobs (needs submitit); parameters as those of sweep",
    )
    add(
        "--ray",
        metavar="auto|local|ADDRESS",
        help="with --tasks: workers are tasks of a Ray cluster (needs Ray)",
    )
    add("--share", default="", help=argparse.SUPPRESS)
    add("--take-cores", type=int, default=0, help=argparse.SUPPRESS)
    add("--ends-with-parent", action="store_true", help=argparse.SUPPRESS)
    add(
        "--help",
        action="store_true",
        help="this text; --help=GROUP or --help=FIELD: one group of fields, or one field, alone",
    )
    add(
        "--h", "--helpfull", "--helpshort", dest="help", action="store_true", help=argparse.SUPPRESS
    )
    return parser


def _print_results(store, spec: specs.Spec) -> None:
    """Prints the table, what was found, and where the files are."""
    from lth_jax.lottery.plan import planned_runs
    from lth_jax.report import tensorboard
    from lth_jax.report.page import FIGURES, PAGE
    from lth_jax.report.terminal import make_console, print_results

    planned = set(planned_runs(spec))
    rows = [row for row in store.sorted_rows() if row.run_id in planned]
    names = {"results": "results.csv", "report": PAGE, "figures": FIGURES}
    found = {kind: store.path / name for kind, name in names.items()}
    files: list[tuple[str, Path | str]] = [(kind, at) for kind, at in found.items() if at.exists()]
    if (events := store.path / tensorboard.FOLDER).exists():
        shown = f"tensorboard --logdir {shlex.quote(str(events))}"
        files.append(("curves", f"{shown}  (once: pip install tensorboard)"))
    try:
        paths = store.paths()
    except StoreError:  # it was said
        paths = []
    print_results(make_console(), spec, rows, files, store.metric, paths)
