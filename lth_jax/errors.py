"""Errors meant for the person at the terminal: one clear line, and an exit status."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager


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


class Unreadable(StoreError):
    """What this machine cannot read now (no memory, no rights, a failing disk), damaged or not."""

    exit_status = 1


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


@contextmanager
def in_one_line(place: str) -> Iterator[None]:
    """Turns whatever code of a user's own raises within into a SpecError: `place`, and its text."""
    try:
        yield
    except MemoryError:  # which says nothing of that code
        raise
    except (Exception, SystemExit) as error:
        line = " ".join(str(error).split())
        if not isinstance(error, SpecError):
            line = f"{type(error).__name__}: {line[:150]}"
        raise SpecError(f"{place}: {line}") from error


def shown(value: object, most: int = 50) -> str:
    """Returns the `repr` of what a user gave, cut to `most` characters, whatever it is."""
    try:
        text = repr(value)
    except Exception:  # an integer of more digits than Python writes, or a user's own class
        text = f"<{type(value).__name__}>"
    return text if len(text) <= most else f"{text[: most - 1]}…"


def nearest(name: str, known) -> str:
    """What to say of an unknown `name`: `did you mean 'x'? accepted: …`, not all where many are."""
    import difflib

    known = sorted(known)
    close = difflib.get_close_matches(name[:100], known, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    fit = len(known)
    while len(", ".join(known[:fit])) > 90 - len(hint):
        fit -= 1
    more = f" and {len(known) - fit} more" if fit < len(known) else ""
    return f"{hint}accepted: {', '.join(known[:fit])}{more}"


def spans(numbers: Iterable[int]) -> str:
    """Numbers for people: `0 to 3, 5, 7 to 9`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def first_line(error: BaseException, most: int = 100) -> str:
    """Returns the first line of an error's text that is not empty, else the name of its type.

    It goes into a line of ours, so that more than `most` characters are cut.
    """
    lines = (line.strip() for line in str(error).splitlines())
    line = next(filter(None, lines), type(error).__name__)
    return line if len(line) <= most else f"{line[: most - 1]}…"
