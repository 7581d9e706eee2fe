"""Signals that ask a process to end, and what has to be undone when one does.

A process of ours answers them at any instant, in one line and with exit status 128 + the signal's
number (130 for Ctrl-C, 143 for SIGTERM). Python calls its own handlers in the main thread alone,
which may be importing or compiling for half a minute; so a thread waits for them. Training asks to
be told instead (see `listening`), since it has something to save.

Nothing heavy is imported here: this is the first thing that a process of ours does.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

TYPE_CHECKING = False  # as in `typing`, whose import takes as long as the start of Python
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import NoReturn

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
INTERRUPTED = "interrupted; nothing that was done is lost"
SAVING = "stopping: what is done is being saved; a third signal ends at once, without that"
INSISTED = "ended at once, without saving; the same command goes on from what was saved before"
WRITE_SECONDS = 1  # how long the last line may wait for a terminal that is stopped

_lock = threading.RLock()
_undo: dict[object, Callable[[], object]] = {}  # in the order in which they began
_requests: list[int] | None = (
    None  # the signals that came while training listened; None: it did not
)
_watched = False


def end_in_one_line() -> None:
    """Makes the signals that ask for an end do so from now on, in this process's own way.

    To be called once, by the main thread of a process that is ours alone. A signal that is ignored
    (`nohup`, jobs in a shell's background) stays so.
    """
    global _watched
    reader, writer = os.pipe()
    if fcntl is not None:
        # Above the standard streams, one of which may be closed and its number free.
        above = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3) for end in (reader, writer)]
        os.close(reader)
        os.close(writer)
        reader, writer = above
    if hasattr(os, "set_blocking"):  # Windows has it from Python 3.12 on, and needs it for sockets
        os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for signum in SIGNALS:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, _left_to_the_thread)
    threading.Thread(target=_watch, args=(reader,), name="signals", daemon=True).start()
    _watched = True


@contextlib.contextmanager
def listening() -> Iterator[Callable[[], int]]:
    """Gives a function that returns the number of a signal that came (Ctrl-C, SIGTERM), or 0.

    The first signal asks for a stop, which is granted once what is done is saved. A second one, of
    whatever kind, changes nothing: schedulers send several, and people press twice. A third one
    ends the process at once. A signal that nobody obeyed within counts again after it.
    """
    global _requests
    before = {}
    if not _watched:
        handlers = {signum: signal.getsignal(signum) for signum in SIGNALS}
        before = {s: handler for s, handler in handlers.items() if handler is not signal.SIG_IGN}
    _requests = requests = []
    try:
        for signum in before:
            signal.signal(signum, _came)
        yield lambda: requests[0] if requests else 0
    finally:
        with _lock:
            _requests = None
        for signum, handler in before.items():
            signal.signal(signum, handler)
    if requests:
        signal.raise_signal(requests[0])


@contextlib.contextmanager
def undone_if_ended(undo: Callable[[], object]) -> Iterator[None]:
    """Calls `undo` if a signal ends the process before the block within has ended.

    It is called from another thread, at any instant of the block: it finds all, something or
    nothing of what the block does, and what it raises is ignored.
    """
    key = object()
    with _lock:
        _undo[key] = undo
    try:
        yield
    finally:
        with _lock:  # which is never free again once the process is ending
            del _undo[key]


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Lets no signal end the process within the block, which is one call that has to be whole."""
    with _lock:
        yield


def _left_to_the_thread(signum: int, frame: object) -> None:
    """Does nothing: the number of the signal lies in the pipe already."""


def _watch(reader: int) -> None:
    while True:
        for signum in os.read(reader, 64):
            if signum in SIGNALS:
                _came(signum)


def _came(signum: int, _frame: object = None) -> None:
    with _lock:
        requests = _requests
        if requests is None:
            _end(signum, INTERRUPTED)
        requests.append(signum)
    if len(requests) == 2:
        _write("\n" * os.isatty(2) + SAVING)  # below the bar, which is drawn again
    elif len(requests) > 2:
        _end(signum, INSISTED)


def _end(signum: int, line: str) -> NoReturn:
    """Ends the process: no exception that code of others could catch, and no thread is waited for.

    The lock is kept, so that the main thread begins nothing that would have to be undone, and
    says nothing of what is taken away from it.
    """
    _lock.acquire()
    for undo in reversed(list(_undo.values())):
        with contextlib.suppress(Exception):
            undo()
    _write(line)
    os._exit(128 + signum)


def _write(line: str) -> None:
    """Writes a line to standard error, past all buffers, unless nothing takes it."""
    with contextlib.suppress(OSError, ValueError):
        # Windows waits for sockets alone.
        if os.name == "nt" or select.select((), (2,), (), WRITE_SECONDS)[1]:
            os.write(2, f"{line}\n".encode())
