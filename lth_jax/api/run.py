"""`lth_jax.run`: an experiment from Python, in a notebook, a thread or a worker.

The command is the same call at a terminal: both choose an experiment here, and `running` runs it.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from lth_jax.api.choice import choose
from lth_jax.api.results import Results, read
from lth_jax.api.running import Running
from lth_jax.errors import Interrupted
from lth_jax.lottery.observer import Observer
from lth_jax.report.terminal import Terminal
from lth_jax.system.streams import say

_log = logging.getLogger("lth_jax")
_log.addHandler(logging.NullHandler())  # or Python would print warnings that nobody asked for


def run(
    config: Any,  # a name, a path or a ConfigDict, which is no type that a checker knows
    workdir: str | Path | None = None,
    *,
    progress: bool = False,
    rows: str | Path | None = None,
    repair: bool = False,
) -> Results:
    """Runs an experiment to its end, as `lth-jax run` does, and returns its results.

    It goes on from what `workdir` holds, and trains nothing that is done already. Several may run
    in one process, one after another or each in a thread and a directory of its own. It prints
    nothing and handles no signals; what is worth a line goes to the logger `lth_jax`. Ctrl-C in the
    main thread (a notebook's stop) raises KeyboardInterrupt once what is done is saved, so that
    the same call goes on from there.

    Args:
      config: a config file's name or path, `lenet_digits` or `my_configs/mine.py:variant`; or a
        `ConfigDict`, as `default_config`, `get_config` and a config file's own function give it,
        which is not changed.
      workdir: the run directory; `runs/<name>-<identity>` by default, where the name is the config
        file's, or `experiment`.
      progress: whether to show on standard error what the command shows there.
      rows: the config file whose own rows (`MODELS`, `DATASETS`, …) a `ConfigDict` names; a config
        that is a file brings its own.
      repair: whether to train again, bit for bit, finished runs whose row, curve or checkpoint is
        damaged.

    Returns:
      The results, as `read` gives them.

    Raises:
      UserError: a wrong field or a config that cannot be had (SpecError), data that cannot be had
        (DataError), a directory of another experiment, damaged, or in use (StoreError), or training
        that failed (RunError).
      KeyboardInterrupt: Ctrl-C in the main thread; everything done so far is on disk.
    """
    chosen = choose(config, rows=rows)
    path = chosen.path(workdir)

    def work(signal_came: Callable[[], int]) -> None:
        Running(
            command=chosen.command(path),
            config=chosen.file,
            observe=Terminal if progress else _Logged,
            warn=warn if progress else _log.warning,
            listen=lambda: nullcontext(signal_came),
            repair=repair,
        ).run(chosen.spec, name=chosen.name, path=path)

    with log_shown() if progress else nullcontext():
        _stopped_by_ctrl_c(work)
    return read(path)


def _stopped_by_ctrl_c(work: Callable[[Callable[[], int]], object]) -> None:
    """Calls `work` in a thread of its own, which is told where Ctrl-C asks for a stop.

    In the main thread, where it arrives, an exception could fall at any instant of the work, and
    leave half of something behind. `work` takes a function that gives the signal's number, or 0.
    """
    if threading.current_thread() is not threading.main_thread():
        work(lambda: 0)
        return
    came: list[int] = []
    with ThreadPoolExecutor(1, thread_name_prefix="lth_jax") as pool:
        done = pool.submit(contextvars.copy_context().run, work, lambda: came[0] if came else 0)
        try:
            done.result()
        except KeyboardInterrupt:
            came.append(signal.SIGINT)
            with contextlib.suppress(Interrupted):
                done.result()
            raise


class _Logged(Observer):
    """Tells the logger of what is worth a line."""

    def note(self, message: str) -> None:
        """Logs it."""
        _log.info(message)


def warn(line: str) -> None:
    """Says a warning on standard error."""
    say(f"warning: {line}")


class _Said(logging.Handler):
    """Says what is logged, a line each."""

    def emit(self, record: logging.LogRecord) -> None:
        """Says it."""
        say(self.format(record))


@contextlib.contextmanager
def log_shown() -> Iterator[None]:
    """Lets notes, such as that a dataset is being prepared, go to standard error within."""
    handler, level, propagate = _Said(logging.INFO), _log.level, _log.propagate
    _log.addHandler(handler)
    _log.propagate = False  # libraries give the root logger a handler of its own
    _log.setLevel(min(level, logging.INFO) if level else logging.INFO)
    try:
        yield
    finally:
        _log.removeHandler(handler)
        _log.propagate = propagate
        _log.setLevel(level)
