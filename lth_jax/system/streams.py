"""The standard streams of a process: always there, no reason to stop, and with text alone."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

from lth_jax.system.signals import undone_if_ended

# What a terminal obeys instead of showing it, what turns the direction of a line's other letters,
# what ends a line or a paragraph, and what is no character at all.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_ERASED = "\r\x1b[2K"  # a line of a terminal
_BREAKS = str.maketrans("\t\n", "\u2409\u240a")


def printable(text: str, *, line: bool = False) -> str:
    """Returns text that shows every character and has none that a terminal would obey.

    A control character becomes its picture, such as ␛ for ESC, and what has none �. No other
    letter changes, and no length.

    Args:
      text: from wherever it comes.
      line: whether it is one line, so that its tabs and ends of lines are shown, too.
    """
    return _OBEYED.sub(_picture, text.translate(_BREAKS) if line else text)


def _picture(found: re.Match[str]) -> str:
    code = ord(found[0])
    return "\u2421" if code == 0x7F else chr(0x2400 + code) if code < 0x20 else "\ufffd"


class Quiet:
    """A text stream that nobody has to read: once it fails, it takes what comes, and is quiet.

    A disk may be full, a terminal closed, a reader gone; none of that is worth an experiment.
    """

    def __init__(self, stream: TextIO):
        self._stream, self._failed = stream, False

    def write(self, text: str) -> int:
        """Writes text, while the stream takes it; returns its length."""
        if not self._failed:
            try:
                self._stream.write(text)
            except (OSError, ValueError):
                self._fail()
        return len(text)

    def flush(self) -> None:
        """Brings what was written on its way, while the stream takes it."""
        if not self._failed:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._fail()

    def writelines(self, lines: Any) -> None:
        """Writes several texts."""
        for text in lines:
            self.write(text)

    def _fail(self) -> None:
        self._failed = True
        silence(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def quiet(stream: TextIO) -> TextIO:
    """Returns `stream` as one that never fails, see `Quiet`."""
    return stream if isinstance(stream, Quiet) else cast(TextIO, Quiet(stream))


def open_standard() -> None:
    """Makes the standard streams such as a process of ours needs them.

    One that was closed leads nowhere from now on, before the first file that is opened takes its
    number and gets what others print. Standard error carries progress and warnings: it is `Quiet`.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number: this one
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    for stream in (sys.stdout, sys.stderr):  # what an encoding lacks is no reason to stop either
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    sys.stderr = quiet(sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False))


def say(line: str) -> None:
    """Writes one line to standard error, whatever is in it; a stream that fails is let be."""
    stream = quiet(sys.stderr)
    stream.write(printable(line, line=True) + "\n")
    stream.flush()


@contextlib.contextmanager
def meanwhile(what: str) -> Iterator[None]:
    """Shows on a terminal what is done within the block, and nothing of it afterwards."""
    stream = quiet(sys.stderr)
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        yield
        return

    def put(text: str) -> None:
        stream.write(text)
        stream.flush()

    with undone_if_ended(lambda: put(_ERASED)):
        put(f"{what} …")
        try:
            yield
        finally:
            put(_ERASED)


def show(line: str) -> None:
    """Prints one line to standard output, whatever is in it."""
    print(printable(line, line=True))


def settled(stream: TextIO) -> OSError | None:
    """Flushes a stream; returns what is wrong with it, and then silences it."""
    try:
        stream.flush()
    except OSError as error:
        silence(stream)
        return error
    return None


def silence(stream: TextIO) -> None:
    """Lets a stream that failed lead nowhere: Python would try, and complain, again at its end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()
