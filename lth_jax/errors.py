"""Errors meant for the person at the terminal: one clear line, and an exit status."""

from collections.abc import Iterable


class UserError(ValueError):
    """Something the user can mend. Commands print the message alone and exit with `exit_status`."""

    exit_status = 2


class SpecError(UserError):
    """A wrong field, value or combination in a config or on the command line (exit status 2)."""


class DataError(UserError):
    """A dataset that does not exist, cannot be had, or is damaged (exit status 2)."""


class StoreError(UserError):
    """A run directory that is missing, locked, damaged, or belongs to another experiment."""

    exit_status = 2


class RunError(UserError):
    """A run that failed although its spec was fine, such as one that diverged (exit status 1)."""

    exit_status = 1


class Interrupted(Exception):
    """A signal asked the experiment to stop, and everything done so far is on disk.

    Attributes:
      signum: the signal's number.
      where: the level and step that were reached, for people.
    """

    def __init__(self, signum: int, where: str):
        super().__init__(where)
        self.signum = signum
        self.where = where


def nearest(name: str, known) -> str:
    """What to say of an unknown `name`: `did you mean 'x'? accepted: …`."""
    import difflib

    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}accepted: {', '.join(known)}"


def spans(numbers: Iterable[int]) -> str:
    """Numbers for people: `0 to 3, 5, 7 to 9`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's text that is not empty, else the name of its type."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)
