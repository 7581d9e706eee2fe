"""The run directory: what an experiment leaves on disk, and how it is found again.

spec.json, results.csv, metrics/<branch>/level_03.csv, figures/…
checkpoints/replicate_0/{initial,rewind,level_03}   what is kept of the trunk
checkpoints/progress_000007                         the level that is running
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lth_jax import config as specs
from lth_jax.disk.files import write_json, write_text
from lth_jax.errors import StoreError
from lth_jax.pruning.trees import PyTree
from lth_jax.store import checkpoints
from lth_jax.store.lock import Lock, held_by
from lth_jax.store.record import (
    SPEC_FILE,
    branch_records,
    check_same,
    new_record,
    read_record,
    spec_of,
)
from lth_jax.store.tables import CURVES, RESULTS, CurvePoint, ResultRow, RunId, sort_rows

LOCK, RESULTS_FILE, METRICS, CHECKPOINTS = "lock", RESULTS.name, "metrics", "checkpoints"
# The files that are replaced atomically, as patterns. The report writes the last two.
WRITTEN = (SPEC_FILE, RESULTS_FILE, f"{METRICS}/*/level_*.csv", "report.html", "figures/*")


class RunDirectory:
    """Keeps what an experiment leaves: anyone may read it, only the process that opened it writes.

    Attributes:
      path: the folder.
      rows: the finished runs.
      problems: one line for each damaged thing that was met and not used.
    """

    def __init__(self, path: Path):
        self.path = path
        self.rows: dict[RunId, ResultRow] = {}
        self.problems: list[str] = []
        self._lock: Lock | None = None
        self._order: Sequence[str] = ()

    # Opening

    @classmethod
    def open(cls, path: Path, spec: specs.Spec, name: str, command: Sequence[str]) -> RunDirectory:
        """Opens the directory of `spec` for writing, whether it is new or was begun before.

        Raises:
          StoreError: it belongs to another experiment (names the differing fields), is in use,
            cannot be written, or is of another format.
        """
        run = cls(path)
        run._lock = Lock(path / LOCK)
        try:
            run._clean()
            run._read_rows()
            record = run.record_of_spec() if (path / SPEC_FILE).exists() else None
            known = check_same(path, record, spec) if record and run._holds_work() else {}
            branches = {**known, **branch_records(spec)}
            run._order = tuple({**dict.fromkeys(spec.branches), **dict.fromkeys(known)})
            write_json(path / SPEC_FILE, new_record(spec, name, branches, command))
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def read(cls, path: Path) -> RunDirectory:
        """Reads the directory as it is and changes nothing; it may be running or damaged.

        Raises:
          StoreError: there is no run, it is damaged, or it is of another version.
        """
        run = cls(path)
        record = run.record_of_spec()
        named = dict.fromkeys(spec_of(path / SPEC_FILE, record).branches)
        run._order = tuple({**named, **record["branches"]})
        run._read_rows()
        return run

    def close(self) -> None:
        """Gives the lock back."""
        if self._lock:
            self._lock.release()
            self._lock = None

    def record_of_spec(self) -> dict[str, Any]:
        """Returns the content of `spec.json`.

        Raises:
          StoreError: it is missing, damaged, or of another format.
        """
        return read_record(self.path)

    def spec(self) -> specs.Spec:
        """Returns the spec that the directory was last started with.

        Raises:
          StoreError: this version does not know one of its fields.
        """
        return spec_of(self.path / SPEC_FILE, self.record_of_spec())

    def holder(self) -> str:
        """Returns who is running it now (`process 12 on host`), or an empty string."""
        return held_by(self.path / LOCK)

    def _read_rows(self) -> None:
        file = self.path / RESULTS_FILE
        if file.exists():
            try:
                self.rows = {row.run_id: row for row in RESULTS.from_csv(file.read_text("utf-8"))}
            except ValueError as error:
                raise StoreError(f"{file} is damaged: {error}") from error

    def _holds_work(self) -> bool:
        """Returns whether anything was drawn or trained; a start that failed leaves only a spec."""
        return bool(self.rows) or any(self.path.glob(f"{CHECKPOINTS}/*/*"))

    def _clean(self) -> None:
        """Removes what a killed save left behind, and nothing else: the folder may hold more."""
        for folder in (self.path / CHECKPOINTS, *self.path.glob(f"{CHECKPOINTS}/replicate_*")):
            checkpoints.remove_leftovers(folder)
        for file in map(Path, WRITTEN):
            # The name that `lth_jax.disk.files.replacing` gives to a file that is not whole yet.
            for leftover in self.path.glob(str(file.with_name(f".{file.name}.*.tmp"))):
                leftover.unlink(missing_ok=True)

    def _report(self, problem: object) -> None:
        if str(problem) not in self.problems:
            self.problems.append(str(problem))

    # Results and curves

    def sorted_rows(self) -> list[ResultRow]:
        """Returns the rows in the order of `results.csv`."""
        return sort_rows(self.rows.values(), self._order)

    def record(self, rows: Iterable[ResultRow]) -> None:
        """Adds rows (or replaces those of the same run) and writes `results.csv`."""
        self.rows.update({row.run_id: row for row in rows})
        write_text(self.path / RESULTS_FILE, RESULTS.to_csv(self.sorted_rows()))

    def curve(self, branch: str, level: int) -> list[CurvePoint]:
        """Returns the evaluations of a branch's runs at a level so far; an empty list if none."""
        file = self._curve_file(branch, level)
        try:
            return CURVES.from_csv(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            self._report(f"{file} is damaged: {error}")
            return []

    def write_curve(self, branch: str, level: int, points: Iterable[CurvePoint]) -> None:
        """Replaces the evaluations of a branch at a level."""
        write_text(self._curve_file(branch, level), CURVES.to_csv(sorted(points)))

    def _curve_file(self, branch: str, level: int) -> Path:
        return self.path / METRICS / branch / f"{level_name(level)}.csv"

    # Checkpoints of the trunk

    def checkpoint(self, replicate: int, name: str) -> Path:
        """Returns the path of a replicate's checkpoint `initial`, `rewind` or `level_03`."""
        return self.path / CHECKPOINTS / f"replicate_{replicate}" / name

    def save(
        self, replicate: int, name: str, tree: PyTree, meta: Mapping[str, Any] | None = None
    ) -> None:
        """Writes a checkpoint of the trunk, and `meta`, which is read without the arrays."""
        checkpoints.save(self.checkpoint(replicate, name), tree, meta)

    def load(self, replicate: int, name: str) -> dict[str, np.ndarray] | None:
        """Returns its arrays by name; None if it is missing or damaged (then in `problems`)."""
        path = self.checkpoint(replicate, name)
        if not path.exists():
            return None
        try:
            return checkpoints.load(path)[0]
        except checkpoints.Damaged as error:
            self._report(error)
            return None

    def intact(self, replicate: int, name: str) -> bool:
        """Returns whether every byte of it is there as it was written; loads no arrays."""
        path = self.checkpoint(replicate, name)
        if not path.exists():
            return False
        try:
            checkpoints.verify(path)
        except checkpoints.Damaged as error:
            self._report(error)
            return False
        return True

    # The level that is running

    def save_progress(self, tree: PyTree, meta: Mapping[str, Any]) -> None:
        """Writes the state of the running level; removes the one before once this one is whole."""
        old = self.progress_checkpoints()
        number = int(old[-1].name.split("_")[1]) + 1 if old else 0
        checkpoints.save(self.path / CHECKPOINTS / f"progress_{number:06d}", tree, meta)
        for path in old:
            shutil.rmtree(path, ignore_errors=True)

    def load_progress(self) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """Returns the newest undamaged state of a running level, or None."""
        for path in reversed(self.progress_checkpoints()):
            try:
                return checkpoints.load(path)
            except checkpoints.Damaged as error:
                self._report(error)
        return None

    def clear_progress(self) -> None:
        """Removes the states of the running level: it is finished."""
        for path in self.progress_checkpoints():
            shutil.rmtree(path, ignore_errors=True)

    def progress_checkpoints(self) -> list[Path]:
        """Returns the checkpoints of the running level, oldest first."""
        return sorted((self.path / CHECKPOINTS).glob("progress_*"))


def level_name(level: int) -> str:
    """Returns the name of a level's checkpoint and curve: `level_03`."""
    return f"level_{level:02d}"
