"""`run.py` and `python -m lth_jax run`: an experiment from its config to its table and figures."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from lth_jax import config as specs
from lth_jax.config.files import (
    DEFAULT,
    config_name,
    load_config,
    override,
    read_config,
    split_arguments,
)
from lth_jax.errors import SpecError, UserError, nearest

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
        print("interrupted; nothing that was done is lost", file=sys.stderr)
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
    from lth_jax.cli.running import run_experiment

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
    from lth_jax.config.custom import register  # which imports JAX, as do the branches
    from lth_jax.lottery.branches import BRANCHES

    file = read_config(config_file)
    register(file)
    return specs.from_config(override(file.config, overrides, list(BRANCHES)))


def help_text(config_file: str, overrides: Sequence[str]) -> str:
    """The usage, and every field of the config with its value there."""
    config = load_config(config_file, overrides)
    fields = specs.flatten(config.to_dict())
    lines = [f"  --config.{name}={value!r}" for name, value in fields.items()]
    options = ", ".join(specs.to_dict(specs.BranchSpec()))
    lines.append(f"  --config.branch.<name>.<option>: options of a branch: {options}")
    return f"{HELP}\nfields of {config_file}:\n" + "\n".join(lines)
