"""How far the level is that is running: a state of its runs, written every few seconds.

Several processes may train a level together, each its share of the runs. Each writes in a folder
of its own, and all read all: whoever goes on with a run takes the state in which it is farthest,
however the runs were shared out before.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lth_jax.disk.files import entries
from lth_jax.pruning.trees import PyTree
from lth_jax.store import checkpoints
from lth_jax.store.tables import RunId

SHARE = "share_"  # how the folder of a share's progress begins
Saved = tuple[dict[str, np.ndarray], dict[str, Any]]


class RunningLevel:
    """Keeps the states of a level that is not finished.

    Args:
      root: the folder of a run directory's checkpoints.
      share: which share of the runs this process trains; None where it trains them all.
      report: takes what is damaged, and so not used.
    """

    def __init__(self, root: Path, share: int | None, report: Callable[[object], None]):
        self._root, self._report = root, report
        self._own = root if share is None else root / f"{SHARE}{share}"

    def save(self, tree: PyTree, meta: Mapping[str, Any]) -> None:
        """Writes a state; removes those before once this one is whole.

        One that holds runs of the level that this one has not stays until the level is finished:
        they are another process's now, which may not have saved yet.

        Args:
          tree: the arrays.
          meta: `level`, and `runs`, each with its `id` among other things.
        """
        old = self.checkpoints()
        number = int(old[-1].name.split("_")[1]) + 1 if old else 0
        checkpoints.save(self._own / f"progress_{number:06d}", tree, meta)
        saved = _runs_in(meta)
        for path in old:
            before = self._meta(path)
            if before.get("level") != meta.get("level") or _runs_in(before) <= saved:
                checkpoints.remove(path)

    def of(self, level: int, runs: Collection[RunId]) -> Iterator[Saved]:
        """Gives the undamaged states of a level that hold any of `runs`, whoever wrote them.

        Of each process it is the newest that holds a run.
        """
        for folder in self._folders():
            wanted = set(runs)
            for path in reversed(_progress_in(folder)):
                meta = self._meta(path)
                there = wanted & _runs_in(meta)
                if meta.get("level") == level and there and (found := self._loaded(path)):
                    wanted -= there
                    yield found

    def clear(self) -> None:
        """Removes the states of all processes: the level is finished."""
        own, *shares = self._folders()
        for folder in (own, *shares):
            for path in _progress_in(folder):
                checkpoints.remove(path)
        for folder in shares:
            with contextlib.suppress(OSError):  # a process that lost the others saves there yet
                folder.rmdir()

    def checkpoints(self) -> list[Path]:
        """Returns those that this process wrote, or one before it in its place; oldest first."""
        return _progress_in(self._own)

    def _folders(self) -> list[Path]:
        shares = [f for f in entries(self._root) if re.fullmatch(rf"{SHARE}\d+", f.name)]
        return [self._root, *shares]

    def _loaded(self, path: Path) -> Saved | None:
        try:
            return checkpoints.load(path)
        except checkpoints.Damaged as error:
            self._report(error)
            return None

    def _meta(self, path: Path) -> Mapping[str, Any]:
        """Returns what a state says of its runs; nothing if it is damaged."""
        try:
            return checkpoints.read_manifest(path).meta
        except checkpoints.Damaged as error:
            self._report(error)
            return {}


def _progress_in(folder: Path) -> list[Path]:
    """Returns the states in a folder, oldest first."""
    return [path for path in entries(folder) if re.fullmatch(r"progress_\d+", path.name)]


def _runs_in(meta: Mapping[str, Any]) -> set[RunId]:
    """Returns the runs whose states a checkpoint holds, as its `meta` says."""
    return {RunId(*run["id"]) for run in meta.get("runs", ())}
