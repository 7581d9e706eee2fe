"""`run.py` and `python -m lth_jax run`: an experiment from its config to its table and figures."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lth_jax import spec as specs
from lth_jax.commands.configs import (
    DEFAULT,
    config_name,
    load_config,
    split_arguments,
)
from lth_jax.errors import Interrupted, SpecError, UserError, nearest

if TYPE_CHECKING:
    from lth_jax.events import Observer
    from lth_jax.store import RunDirectory
    from lth_jax.trunk import Trunk

HELP = f"""Find a winning ticket: train, prune, rewind, repeat, with the controls beside it.

usage: run.py [--config=FILE[:VARIANT]] [--config.FIELD=VALUE ...] [--workdir=DIR]

  --config=FILE[:VARIANT]  the experiment ({DEFAULT} if not given); paths from here,
                           or from the folder of run.py
  --config.FIELD=VALUE     overrides one field of it
  --workdir=DIR            where results go (runs/<config name>-<identity> if not given);
                           started again, an experiment goes on from there
  --help                   this text
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line `arguments`; gives the exit status, never a traceback for user errors.

    0 done; 2 a wrong command or config; 1 a run that failed; 130 or 143 interrupted, resumable.
    """
    if arguments is None:
        program, arguments = [sys.argv[0]], sys.argv[1:]
    else:
        program = ["-m", "lth_jax", "run"]
    try:
        status = _main(arguments, program)
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("interrupted before training began; nothing was lost", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # as `| head` leaves it; Python would try, and complain, again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _main(arguments: Sequence[str], program: Sequence[str]) -> int:
    config_file, overrides, others = split_arguments(arguments)
    workdir, wants_help = _flags(others)
    if wants_help:
        print(help_text(config_file, overrides))
        return 0
    spec = _spec(config_file, overrides)
    name = config_name(config_file)
    path = Path(workdir or f"runs/{name}-{specs.identity(spec)}")
    return run_experiment(spec, name=name, path=path, command=[*program, *arguments])


def _flags(others: Sequence[str]) -> tuple[str, bool]:
    """(--workdir, whether --help was asked for)."""
    workdir, wants_help = "", False
    rest = list(others)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        flag = "-" + flag if flag.startswith("-") and not flag.startswith("--") else flag
        if flag in ("--help", "--helpfull", "--helpshort", "--h"):
            wants_help = True
        elif flag == "--workdir":
            workdir = value if equals else (rest.pop(0) if rest else "")
            if not workdir:
                raise SpecError("--workdir='': accepted: a folder to write to")
        else:
            known = ("--config", "--workdir", "--help")
            raise SpecError(f"{flag}: no such flag; {nearest(flag, known)}")
    return workdir, wants_help


def _spec(config_file: str, overrides: Sequence[str]) -> specs.Spec:
    from lth_jax.branches import BRANCHES

    return specs.from_config(load_config(config_file, overrides, list(BRANCHES)))


def help_text(config_file: str, overrides: Sequence[str]) -> str:
    """The usage, and every field of the config with its value there."""
    config = load_config(config_file, overrides, ())
    fields = specs.flatten(config.to_dict())
    lines = [f"  --config.{name}={value!r}" for name, value in fields.items()]
    options = ", ".join(specs.to_dict(specs.BranchSpec()))
    lines.append(f"  --config.branch.<name>.<option>: options of a branch: {options}")
    return f"{HELP}\nfields of {config_file}:\n" + "\n".join(lines)


def run_experiment(spec: specs.Spec, *, name: str, path: Path, command: Sequence[str]) -> int:
    """Runs `spec` in the directory `path` to its end, and shows what was found.

    Raises:
      UserError: as `main` prints it.
    """
    from lth_jax import build
    from lth_jax.report.terminal import Terminal
    from lth_jax.store import RunDirectory

    _show_log()
    build.check(spec)
    store = RunDirectory.open(path, spec, name, command)
    terminal = Terminal()
    try:
        trunk = _trunk(spec, store, terminal, name)
        if trunk:
            # Only now: until training begins, a signal may end the process at once.
            with _signals() as trunk.stop_signal:
                trunk.run()
            terminal.experiment_finished()
    except Interrupted as stop:
        terminal.close()
        again = shlex.join(["python", *command])
        print(f"stopped at {stop.where}, and saved; to go on: {again}", file=sys.stderr)
        return 128 + stop.signum
    finally:
        terminal.close()
        store.close()
        for problem in store.problems:
            print(f"warning: {problem}; it was not used", file=sys.stderr)
    show_results(store, spec, name)
    return 0


def _show_log() -> None:
    """Our own notes, such as that a dataset is being prepared, go to standard error as lines."""
    # Orbax logs every array that it writes, and what it raises, which we report ourselves.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    log = logging.getLogger("lth_jax")
    if not log.handlers:
        log.addHandler(logging.StreamHandler())
        log.setLevel(logging.INFO)


def _trunk(
    spec: specs.Spec,
    store: RunDirectory,
    terminal: Observer,
    name: str,
) -> Trunk | None:
    """The experiment, announced and ready to go; None where nothing is left to train."""
    from lth_jax.plan import planned_runs

    if all(id in store.rows for id in planned_runs(spec)):
        return None
    import jax

    from lth_jax.build import build
    from lth_jax.trunk import Trunk, pending_runs, run_steps

    if spec.execution.compilation_cache:
        from lth_jax.data import places

        folder = Path(places.resolve("", "", spec.data.cache_dir).cache_dir) / "xla"
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    experiment = build(spec)
    planned = planned_runs(spec)
    pending = set(pending_runs(spec, store, experiment.rewind_step))
    device = jax.devices()[0]
    terminal.experiment_started(
        name=name,
        identity=specs.identity(spec),
        workdir=str(store.path),
        device=f"{jax.device_count()} × {device.device_kind}, jax {jax.__version__}",
        data=experiment.data,
        parameters=experiment.parameters,
        total_steps=sum(run_steps(experiment, id) for id in planned),
        done_steps=sum(run_steps(experiment, id) for id in planned if id not in pending),
    )
    return Trunk(experiment, store, terminal)


def show_results(store: RunDirectory, spec: specs.Spec, name: str) -> None:
    """Draws the figures, and prints the table, what was found, and where the files are."""
    from lth_jax.plan import planned_runs
    from lth_jax.report.figures import write_figures
    from lth_jax.report.terminal import make_console, print_results
    from lth_jax.store.files import writing

    planned = set(planned_runs(spec))
    rows = [row for row in store.sorted_rows() if row.run_id in planned]
    with writing(store.path / "figures"):
        figures = write_figures(rows, store.path / "figures", title=name)
    print_results(make_console(), rows, spec.branches, store.path, figures)


@contextmanager
def _signals() -> Iterator[Callable[[], int]]:
    """A function that gives the number of a signal that came (Ctrl-C, SIGTERM), or 0.

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
