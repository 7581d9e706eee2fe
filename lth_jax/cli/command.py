"""What every command has: the parser of its arguments, and an exit status for what went wrong."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from lth_jax.errors import Interrupted, SpecError, UserError, first_line, nearest


class Parser(argparse.ArgumentParser):
    """Parses the arguments of a command, flags and others in any order.

    Flags are spelled out, and what is wrong is a `SpecError`, one line as everywhere here.
    """

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Returns the values of `arguments`.

        Raises:
          SpecError: an unknown argument, a value that does not parse, or one that is missing.
        """
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


def exit_status(command: Callable[[], int | None], again: Sequence[str] = ()) -> int:
    """Calls `command`, says in one line on standard error what went wrong, and returns the status.

    0 done (or what `command` returns); 2 a wrong command or config; 1 a run that failed; 130
    (Ctrl-C) or 143 (SIGTERM) interrupted; 141 nobody reads what is printed.

    Args:
      command: does the work.
      again: what is to be typed after `python` to go on with an interrupted experiment.
    """
    try:
        status = command() or 0
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except Interrupted as stop:
        line = f"stopped at {stop.where}, and saved; to go on: {shlex.join(['python', *again])}"
        print(line, file=sys.stderr)
        return 128 + stop.signum
    except KeyboardInterrupt:
        print("interrupted; nothing that was done is lost", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # as `| head` leaves it; Python would try, and complain, again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:  # a file that may not be read
        what = f"{error.filename}: {error.strerror}" if error.filename else first_line(error)
        print(f"error: {what}", file=sys.stderr)
        return UserError.exit_status
