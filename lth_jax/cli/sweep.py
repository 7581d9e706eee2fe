"""`lth-jax sweep`: many experiments from one command, on this machine, on Slurm or on Ray."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lth_jax.cli.command import Parser, exit_status, typed
from lth_jax.cli.tasks import take_place
from lth_jax.config.files import split_arguments
from lth_jax.errors import Interrupted, RunError, SpecError, UserError, first_line, nearest
from lth_jax.system.machine import cores
from lth_jax.system.signals import listening
from lth_jax.system.streams import meanwhile, say

if TYPE_CHECKING:
    from lth_jax.sweep.directory import SweepDirectory
    from lth_jax.sweep.grid import Cell
    from lth_jax.sweep.tasks import Task

USAGE = "%(prog)s --config=CONFIG --grid FIELD=VALUE,VALUE [--grid …] --out=DIR [--config.FIELD=V]"
DESCRIPTION = """Runs an experiment for each combination of a grid's values, or for each config that
a file's get_configs() yields. What is finished is skipped, what was stopped goes on: the same
command again does both. `lth-jax report DIR` draws what was found."""
# How long a worker waits for the one before it, which was asked to end, to have saved.
PATIENCE_SECONDS = 60.0


def main(arguments: Sequence[str]) -> int:
    """Runs a sweep, or one experiment of it; returns the exit status."""
    again = [*typed(), "sweep", *arguments]
    return exit_status(lambda: _sweep(arguments), again=again)


def parser() -> Parser:
    """Returns the parser of the command's flags, but for the config's fields."""
    flags = Parser("sweep", usage=USAGE, description=DESCRIPTION)
    add = flags.add_argument
    add("word", nargs="?", metavar="CONFIG[:VARIANT]", help="the experiment that is varied")
    # `split_arguments` has taken these two.
    add("--config", metavar="CONFIG[:VARIANT]", help="the same")
    add("--config.FIELD", metavar="VALUE", help="overrides one field in all experiments")
    add(
        "--grid",
        action="append",
        default=[],
        metavar="FIELD=VALUE,VALUE",
        help="a field and its values; several make all combinations",
    )
    add("--out", type=Path, metavar="DIR", help="the sweep's folder, a run directory each within")
    add("--status", action="store_true", help="show how far each experiment is, and start nothing")
    add("--cores", type=int, default=0, metavar="N", help="cores of each (an equal share)")
    add("--per-gpu", type=int, default=0, metavar="N", help="experiments that share a GPU (1)")
    add(
        "--slurm",
        nargs="?",
        const="",
        metavar="NAME=VALUE,…",
        help="submit an array of jobs (needs submitit); partition=…, timeout_min=…, "
        "cpus_per_task=…, mem_gb=…, gpus_per_node=…, or any flag of sbatch",
    )
    add("--print", action="store_true", dest="script", help="write the array's script instead")
    add("--jobs", type=int, default=0, metavar="N", help="at most so many at a time")
    add("--ray", metavar="auto|local|ADDRESS", help="run on a Ray cluster (needs Ray)")
    add("--only", metavar="NUMBER|NAME", help="run this one here: what workers are started with")
    add("--take-cores", type=int, default=0, help=argparse.SUPPRESS)
    add("--ends-with-parent", action="store_true", help=argparse.SUPPRESS)
    return flags


def _sweep(arguments: Sequence[str]) -> None:
    named, overrides, others = split_arguments(arguments)
    options = parser().parse(others)
    if named and options.word:
        raise SpecError(f"{options.word}: --config={named} is given, too; accepted: one of the two")
    config = named or options.word or ""
    _check(options, config)
    if options.only is not None:
        _work(options, config, overrides)
        return
    with _without_gpu(), meanwhile("importing JAX"):  # which takes seconds
        from lth_jax.sweep.directory import SweepDirectory
        from lth_jax.sweep.grid import cells_of, check_cells

        directory = SweepDirectory(options.out)
        cells = cells_of(config, overrides, options.grid) if config else []
        check_cells(cells)
    if options.status:
        _finish(directory, list(directory.specs))
        return
    directory.add(cells)
    _place(directory, cells, options, _command(options, config, overrides))


@contextlib.contextmanager
def _without_gpu() -> Iterator[None]:
    """Keeps this process, which only plans, from taking the memory of GPUs that workers need."""
    before = os.environ.get("JAX_PLATFORMS")
    os.environ["JAX_PLATFORMS"] = "cpu"
    try:
        yield
    finally:
        if before is None:
            del os.environ["JAX_PLATFORMS"]
        else:
            os.environ["JAX_PLATFORMS"] = before


def _check(options: argparse.Namespace, config: str) -> None:
    if not options.out or not str(options.out):
        raise SpecError("--out is missing; accepted: the sweep's folder")
    if options.out.exists() and not options.out.is_dir():
        raise SpecError(f"--out={options.out}: a file is there; accepted: a folder")
    if (options.out / "spec.json").exists():
        raise SpecError(f"--out={options.out}: it is a run; accepted: a folder of its own")
    if not config and not options.status:
        raise SpecError("--config is missing; accepted: a config, such as lenet_digits")
    for name, least in (("cores", 0), ("per_gpu", 0), ("jobs", 0), ("take_cores", 0)):
        value = getattr(options, name)
        if not least <= value <= 1024:
            flag = name.replace("_", "-")
            raise SpecError(f"--{flag}={value}: accepted: {least or 1} to 1,024")
    if options.ray is not None and (options.slurm is not None or options.script):
        raise SpecError(f"--ray={options.ray}: --slurm or --print, too; accepted: one of them")


def _command(options: argparse.Namespace, config: str, overrides: Sequence[str]) -> tuple[str, ...]:
    """Returns the command line of a worker, but for which experiment is its."""
    from lth_jax.sweep.tasks import program

    fields = [f"--config.{override}" for override in overrides]
    grid = [f"--grid={axis}" for axis in options.grid]
    return (*program(), "sweep", f"--config={config}", *fields, *grid, f"--out={options.out}")


# The sweep: what is not finished is given to an engine.


def _place(
    directory: SweepDirectory,
    cells: Sequence[Cell],
    options: argparse.Namespace,
    command: Sequence[str],
) -> None:
    from lth_jax.sweep import local, ray_cluster, slurm
    from lth_jax.sweep.directory import FINISHED, LOGS, RUNNING
    from lth_jax.sweep.tasks import Task

    names = [cell.name for cell in cells]
    there = {member.name: member.status for member in directory.members()}
    pending = [name for name in names if there[name] not in (FINISHED, RUNNING)]
    skipped = [f"{kind}: {n}" for kind in (FINISHED, RUNNING)
               if (n := sum(there[name] == kind for name in names))]  # fmt: skip
    say(f"{len(names)} experiments, {', '.join([*skipped, f'to run: {len(pending)}'])}")
    devices = [] if options.ray or options.slurm is not None else local.gpus()
    at_once = min(len(pending), options.jobs or len(pending))
    share = options.cores or max(1, cores() // max(1, at_once))
    own = ["--ends-with-parent"]
    if not devices and options.slurm is None:
        own.append(f"--take-cores={share if not options.ray else options.cores or 1}")
    tasks = [
        Task(
            name,
            (*command, *own, f"--only={name}"),
            str(Path.cwd()),
            directory.path / name,
            directory.log(name),
        )
        for name in pending
    ]
    if options.script:
        numbers = [names.index(name) for name in pending]
        parameters = slurm.parameters_of(options.slurm or "")
        (directory.path / LOGS).mkdir(exist_ok=True)  # Slurm makes no folders
        print(slurm.script(numbers, command, directory.path / LOGS, parameters, options.jobs))
        return
    if options.slurm is not None:
        if pending:
            jobs = slurm.submit(
                tasks, directory.path / "slurm", slurm.parameters_of(options.slurm),
                most=options.jobs, per_gpu=options.per_gpu or 1,
            )  # fmt: skip
            say(f"submitted {len(jobs)} jobs, {jobs[0].job_id} and on; how far they are: --status")
        return
    told = _told(directory)
    with listening() as came:
        if options.ray:
            failed = ray_cluster.run(
                tasks, options.ray, told, came, cores=options.cores or 1, per_gpu=options.per_gpu
            )
        else:
            environments = local.places(len(tasks), share, devices, options.per_gpu or 1)
            if options.jobs:
                environments = environments[: options.jobs]
            failed = local.run(tasks, environments, told, came)
        signum = came()
    for member in directory.members():
        # A worker keeps itself why it failed, unless something ended it before it could.
        if member.name in failed and not member.why:
            directory.fail(member.name, failed[member.name])
    if signum:
        raise Interrupted(signum, f"{options.out}")
    _finish(directory, names)


def _told(directory: SweepDirectory) -> Callable[[Task, str], None]:
    """Returns what says a line on what became of an experiment."""
    fields = {member.name: _fields(member.fields) for member in directory.members()}

    def told(task: Task, what: str) -> None:
        say(f"{time.strftime('%H:%M:%S')} {task.name} {fields[task.name]}: {what}")

    return told


def _fields(fields: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in fields.items())


def _finish(directory: SweepDirectory, names: Sequence[str]) -> None:
    """Writes the table of all, and shows it.

    Raises:
      RunError: an experiment that was asked for failed.
    """
    from lth_jax.report.terminal import make_console
    from lth_jax.sweep.directory import DAMAGED, FAILURE, TABLE
    from lth_jax.sweep.report import print_members

    members = directory.members()
    print_members(make_console(), members)
    if any(member.rows for member in members):
        directory.write_table(members)
        print(f"results: {directory.path / TABLE}")
        print(f"to draw them: {shlex.join([*typed(), 'report', str(directory.path)])}")
    failed = [m for m in members if m.name in names and m.status in (FAILURE, DAMAGED)]
    if failed:
        first = f"{failed[0].name}: {failed[0].why}"
        raise RunError(f"{len(failed)} of {len(names)} experiments failed, {first}")


# A worker: one experiment of the sweep, in this process.


def _work(options: argparse.Namespace, config: str, overrides: Sequence[str]) -> None:
    take_place(options)
    from lth_jax.api.run import log_shown, warn
    from lth_jax.api.running import Running
    from lth_jax.report.terminal import Terminal
    from lth_jax.sweep.directory import SweepDirectory
    from lth_jax.sweep.grid import cells_of

    logging.getLogger("absl").setLevel(logging.CRITICAL)
    cell = _chosen(cells_of(config, overrides, options.grid), options.only)
    directory = SweepDirectory(options.out)
    path = directory.path / cell.name
    if cell.changes:
        fields = [f"--config.{change}" for change in (*overrides, *cell.changes)]
        command = ["-m", "lth_jax", "run", config, *fields, f"--workdir={path}"]
    else:
        command = [*_command(options, config, overrides)[1:], f"--only={cell.name}"]
    running = Running(command, cell.chosen.file, Terminal, warn, listening)
    _wait_until_free(path)
    directory.forget_failure(cell.name)
    with _keeping_failure(directory, cell.name), log_shown():
        running.run(cell.chosen.spec, name=cell.chosen.name, path=path)


def _chosen(cells: Sequence[Cell], wanted: str) -> Cell:
    """Returns the experiment of that number, counted from 0, or that name."""
    by_name = {cell.name: cell for cell in cells}
    if wanted.isdecimal() and int(wanted) < len(cells):
        return cells[int(wanted)]
    if wanted not in by_name:
        raise SpecError(
            f"--only={wanted}: accepted: 0 to {len(cells) - 1}, or {nearest(wanted, by_name)}"
        )
    return by_name[wanted]


@contextlib.contextmanager
def _keeping_failure(directory: SweepDirectory, name: str) -> Iterator[None]:
    """Keeps in the sweep's folder why an experiment fails, whoever started it."""
    try:
        yield
    except UserError as error:
        directory.fail(name, str(error))
        raise
    except Interrupted:  # it goes on
        raise
    except Exception as error:
        directory.fail(name, f"{type(error).__name__}: {first_line(error)}")
        raise


def _wait_until_free(path: Path) -> None:
    """Waits for a worker that lost its engine, and is saving, to let go of the directory."""
    from lth_jax.store.lock import held_by

    until = time.monotonic() + PATIENCE_SECONDS
    while path.exists() and held_by(path / "lock") and time.monotonic() < until:
        time.sleep(0.5)
