"""The report of an experiment while it runs: the page after each level, TensorBoard's files always.

Whatever goes wrong here is told in one line, and the experiment goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lth_jax.disk.files import write_text
from lth_jax.lottery.observer import Observer
from lth_jax.report.contents import Contents
from lth_jax.report.page import PAGE, render
from lth_jax.report.tensorboard import write_level
from lth_jax.store import RunDirectory
from lth_jax.store.tables import TRUNK, ResultRow

if TYPE_CHECKING:
    from lth_jax.report.figures import Rendered

SHARE = 0.05  # of an experiment's time that may go into figures
SECONDS_BETWEEN_EVENTS = 10.0


class LiveReport(Observer):
    """An observer that keeps `report.html` and the event files of a run up to date.

    Figures of masks, which need checkpoints, and figures as files are left to the end of the
    experiment. Where levels take little longer than figures do, the page after a level shows its
    table with the figures of an earlier level, and says so.

    Args:
      store: the open run directory.
      tell: takes one line about what went wrong.
      clock: seconds from any origin; time in tests.
    """

    def __init__(
        self,
        store: RunDirectory,
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ):
        self._store, self._tell, self._clock = store, tell, clock
        self._told: set[str] = set()
        self._figures: list[Rendered] = []
        self._notes: list[str] = []
        self._drawn = self._level = -1
        self._next_figures = self._next_events = clock()

    def advanced(
        self, level: int, steps: int, loss: float | None, val_accuracy: float | None
    ) -> None:
        """Brings the event files up to the curves, now and then."""
        del steps, loss
        if val_accuracy is not None and self._clock() >= self._next_events:
            self._safely("TensorBoard's files", lambda: self._write_events(level))

    def level_finished(self, level: int, rows: Sequence[ResultRow], seconds: float) -> None:
        """Writes the page, and the last events of the level."""
        del rows, seconds
        self._level = level
        self._safely("TensorBoard's files", lambda: self._write_events(level, finished=True))
        self._safely("the report", lambda: self._write_page(Contents(self._store)))

    def close(self) -> None:
        """Leaves no page that says the experiment were running."""
        if self._level >= 0:
            self._safely("the report", self._say_stopped)

    def _write_events(self, level: int, *, finished: bool = False) -> None:
        first = Contents(self._store).first if finished else None
        for branch in (TRUNK, *self._store.spec().branches):
            write_level(self._store, branch, level, first)
        self._next_events = self._clock() + SECONDS_BETWEEN_EVENTS

    def _write_page(self, contents: Contents) -> None:
        start = self._clock()
        if contents.status != "stopped" and start >= self._next_figures:
            from lth_jax.report.figures import render_figures  # takes seconds, see `write_report`

            self._notes = []
            self._figures = render_figures({contents.name: contents}, self._notes, files=False)
            self._drawn = self._level
            now = self._clock()
            self._next_figures = now + (now - start) * (1 / SHARE - 1)
        stale = ""
        if self._drawn != self._level:
            stale = f"As of level {self._drawn}; drawn again as time allows, and at the end."
        notes = [*self._notes, *contents.notes]
        runs, folder = {contents.name: contents}, self._store.path
        write_text(folder / PAGE, render(runs, self._figures, folder, notes, stale=stale))

    def _say_stopped(self) -> None:
        contents = Contents(self._store, status="stopped")
        if contents.status != "finished":  # the last page is written by who asked for the run
            self._write_page(contents)

    def _safely(self, what: str, write: Callable[[], None]) -> None:
        """Calls `write`; what goes wrong is told once."""
        try:
            write()
        except Exception as error:  # no report is worth an experiment
            message = f"warning: {what} could not be written: {type(error).__name__}: {error}"
            if message not in self._told:
                self._told.add(message)
                self._tell(message)
