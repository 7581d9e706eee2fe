"""The run directory as a process has it that trains some runs of a level for another process."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from lth_jax.disk.files import exists
from lth_jax.store.rundir import RunDirectory
from lth_jax.store.tables import ResultRow, Row, RunId, Table

# How long file systems that several machines see may hide from one what another wrote: NFS keeps
# the entries of a folder for up to a minute.
SEEN_SECONDS, PAUSE_SECONDS = 90.0, 0.1


class Share(RunDirectory):
    """A run directory that another process has opened, which joins what is trained here.

    What is saved on the way lies apart from other shares. Tables are written by the other process
    alone; states that the trunk leaves on its way are written here, since one process trains them.

    Args:
      path: the folder.
      index: which share; no two processes at work have the same.
      rows: the finished runs.
    """

    def __init__(self, path: Path, index: int, rows: Iterable[ResultRow] = ()):
        super().__init__(path)
        self._share = index
        self.knows(rows)

    def knows(self, rows: Iterable[ResultRow]) -> None:
        """Takes note of which runs are finished now."""
        self.rows: dict[RunId, ResultRow] = {row.run_id: row for row in rows}

    def update_points(
        self, table: Table[Row], branch: str, level: int, points: Iterable[Row]
    ) -> None:
        """Writes nothing: the points of a run are in its progress, too."""


def waiting_to_see(path: Path) -> Iterator[None]:
    """Gives a turn to its caller as long as `path`, which another machine wrote, is not seen here.

    It ends once it is there, or after `SEEN_SECONDS`, which a folder that is not shared outlasts.
    """
    until = time.monotonic() + SEEN_SECONDS
    while not exists(path) and time.monotonic() < until:
        yield
        time.sleep(PAUSE_SECONDS)
