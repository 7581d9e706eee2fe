"""What every command has: the parser of its arguments, and an exit status for what went wrong."""

from __future__ import annotations

import argparse
import re
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from lth_jax._version import __version__
from lth_jax.errors import Interrupted, RunError, SpecError, UserError, first_line, nearest
from lth_jax.system.signals import INTERRUPTED
from lth_jax.system.streams import say, settled

SCRIPT = "lth-jax"
_LONG = re.compile(r"[^\s/]{101,}")  # what somebody typed, and no file's name
VERSION = f"lth_jax {__version__}"


def typed() -> list[str]:
    """Returns what is typed before the name of a command: as it was for this one, if it was."""
    return [SCRIPT] if Path(sys.argv[0]).stem == SCRIPT else ["python", "-m", "lth_jax"]


class Parser(argparse.ArgumentParser):
    """Parses the arguments of a command, flags and others in any order.

    Flags are spelled out, and what is wrong is a `SpecError`, one line as everywhere here.

    Args:
      command: its name.
      options: of `ArgumentParser`.
    """

    def __init__(self, command: str, **options):
        options.setdefault("prog", " ".join((*typed(), command)))
        super().__init__(allow_abbrev=False, **options)
        self.add_argument("--version", action="version", version=VERSION, help="print the version")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Returns the values of `arguments`.

        Raises:
          SpecError: an unknown argument, a value that does not parse, or one that is missing.
        """
        if any("\0" in argument for argument in arguments):  # from Python alone: no shell has it
            raise SpecError(f"{self.prog}: a NUL in an argument; accepted: text without")
        options, unknown = self.parse_known_intermixed_args(list(arguments))
        if unknown:
            name = unknown[0].partition("=")[0]
            shown = [action for action in self._actions if action.help != argparse.SUPPRESS]
            known = [flag for action in shown for flag in action.option_strings if flag[:2] == "--"]
            raise SpecError(f"{name}: no such flag; {nearest(name, known)}")
        return options

    def error(self, message: str) -> NoReturn:
        """Raises a SpecError that names the command."""
        raise SpecError(f"{self.prog}: {message}")


def add_own_rows(parser: Parser) -> None:
    """Adds the flags by which a user lets a run's own code be run: a stranger's never is."""
    parser.add_argument(
        "--config",
        default="",
        metavar="FILE",
        help="the config with the run's network or dataset, where these are not the package's: "
        "this file is run",
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="run the copy that the run keeps of its config instead: only of people you trust",
    )


def _cut(found: re.Match[str]) -> str:
    return f"{found[0][:50]}…"


def exit_status(command: Callable[[], int | None], again: Sequence[str] = ()) -> int:
    """Calls `command`, says in one line on standard error what went wrong, and returns the status.

    0 done (or what `command` returns); 2 a wrong command or config; 1 a run that failed; 128 + its
    number after a signal, such as 130 (Ctrl-C) or 143 (SIGTERM); 141 nobody reads what is printed.

    Args:
      command: does the work.
      again: what is to be typed to go on with an interrupted experiment.
    """
    try:
        status = command() or 0
        sys.stdout.flush()
        return status
    except UserError as error:
        say(f"error: {_LONG.sub(_cut, str(error))}")
        return error.exit_status
    except Interrupted as stop:
        say(f"stopped at {stop.where}, and saved; to go on: {shlex.join(again)}")
        return 128 + stop.signum
    except KeyboardInterrupt:
        say(INTERRUPTED)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # as `| head` leaves it
        return 128 + signal.SIGPIPE
    except MemoryError as error:
        say(f"error: the memory ran out: {first_line(error)}")
        return RunError.exit_status
    except OSError as error:  # a file that may not be read; without a name, a stream that failed
        what = error.strerror or first_line(error)
        line = f"error: {error.filename}: {what}" if error.filename else f"error: {what}"
        say(_LONG.sub(_cut, line))
        return UserError.exit_status if error.filename else RunError.exit_status
    finally:
        settled(sys.stdout)
