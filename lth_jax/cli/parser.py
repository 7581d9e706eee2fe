"""What command lines share: errors of one line, and a quiet end where nobody reads on."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from lth_jax.errors import SpecError, UserError


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line, as everywhere here, and whose flags are spelled out."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raises a SpecError that names the command."""
        raise SpecError(f"{self.prog}: {message}")


def exit_status(command: Callable[[], None]) -> int:
    """Runs `command`; gives its exit status, a user's error being one line on standard error."""
    try:
        command()
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # as `| head` leaves it; Python would try, and complain, again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:  # what may not be read
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return UserError.exit_status
    return 0
