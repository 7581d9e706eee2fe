"""What is held against a command that met a fault."""

from __future__ import annotations

import builtins
import re

from lth_jax.errors import StoreError

from .scenarios import Answer

LONGEST_LINE = 200


class Wrong(Exception):
    """A command says something else than the undamaged run, or a run ends with other bits."""


class Lost(Exception):
    """Something that was computed already is gone."""


class Traceback(Exception):
    """A command ended in one."""


def check(answer: Answer) -> None:
    """Checks that a command ended as one of ours does: well, or in one line."""
    if answer.status is None or "Traceback" in answer.err:
        raise Traceback(answer.err)
    for line in answer.err.splitlines():
        if "was not written: " in line or "could not be written: " in line:
            kind = line.partition("written: ")[2].partition(":")[0]
            error = getattr(builtins, kind, StoreError)
            if not issubclass(error, OSError | StoreError):
                raise Traceback(line)
    if answer.status in (1, 2):
        if len(answer.errors) != 1:
            raise Wrong(f"exit {answer.status} without one line: {answer.err[-500:]}")
        check_line(answer.errors[0])


def check_line(line: str) -> None:
    """Checks that a refusal is one line, and not too long; how long a path is, is not ours."""
    if len(line.splitlines()) > 1 or any(ord(letter) < 32 for letter in line):
        raise Wrong(f"more than a line: {line!r}")
    if len(re.sub(r"/\S+", "/…", line)) >= LONGEST_LINE:
        raise Wrong(f"a line of {len(line)} characters: {line}")
