"""The run directory as a process has it that trains some runs of a level for another process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from lth_jax.disk.files import exists
from lth_jax.errors import StoreError
from lth_jax.store.rundir import RunDirectory
from lth_jax.store.table import Row, Table
from lth_jax.store.tables import ResultRow, RunId

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


def wait_to_see(path: Path, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Waits until `path`, which another machine wrote, is seen here, too.

    Args:
      path: a file or a folder.
      meanwhile: is called again and again; what it raises ends this.

    Raises:
      StoreError: it is not there after `SEEN_SECONDS`: the folder is none that both see.
    """
    until = time.monotonic() + SEEN_SECONDS
    while not exists(path):
        meanwhile()
        if time.monotonic() > until:
            raise StoreError(f"{path} is not there: all processes must see one run directory")
        time.sleep(PAUSE_SECONDS)
