"""The run directory: what an experiment leaves on disk, and how it is found again.

spec.json, config/, results.csv, metrics/<branch>/level_03.csv, figures/…
metrics/<branch>/{masks,curvature}_03.csv           of masks that move, of eigenvalues
checkpoints/replicate_0/{initial,rewind,level_03}   what is kept of the trunk
checkpoints/replicate_0/{step_500,NAME_level_03_0}  of the dense run on its way, of branches
checkpoints/progress_000007                         the level that is running
checkpoints/share_1/progress_000007                 of it, what another process trains
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from lth_jax import config as specs
from lth_jax.config.sources import COPIES
from lth_jax.disk.files import entries, exists, read_bytes, write_bytes, write_json, write_text
from lth_jax.errors import StoreError
from lth_jax.pruning.trees import PyTree
from lth_jax.store import checkpoints
from lth_jax.store.lock import Lock, held_by
from lth_jax.store.progress import SHARE, RunningLevel
from lth_jax.store.record import (
    SPEC_FILE,
    Config,
    branch_records,
    check_data,
    check_same,
    new_record,
    read_record,
    sealed,
    spec_of,
)
from lth_jax.store.table import Row, Table
from lth_jax.store.tables import (
    CURVES,
    METRICS,
    PATHS,
    RESULTS,
    TRUNK,
    CurvePoint,
    PathPoint,
    ResultRow,
    RunId,
    sort_rows,
)
from lth_jax.training.metrics import ACCURACY, Metric, recorded_metric

LOCK, RESULTS_FILE, CHECKPOINTS = "lock", RESULTS.name, "checkpoints"
# The files that are replaced atomically, as patterns. The report writes the last two.
WRITTEN = (
    SPEC_FILE,
    f"{COPIES}/*",
    RESULTS_FILE,
    PATHS.name,
    *(f"metrics/*/{table.stem}_*.csv" for table in METRICS),
    "report.html",
    "claims.md",
    "figures/*",
)


class DamagedTable(StoreError):
    """Is raised where a table is not as it was written; says how it is repaired."""

    def __init__(self, file: Path, problem: str):
        self.problem = f"{file} is damaged: {problem}"
        super().__init__(f"{self.problem}; run.py --repair trains it again")


class RunDirectory:
    """Keeps what an experiment leaves: anyone may read it, only the process that opened it writes.

    Attributes:
      path: the folder.
      rows: the finished runs.
      problems: one line for each damaged thing that was met and not used.
      notes: one line for each thing that a user should know and that harms nothing.
      repair: whether what is damaged is trained again, needed or not.
      again: finished runs whose curves are damaged, where `repair` is set.
      metric: what its networks are measured by.
    """

    def __init__(self, path: Path):
        self.path = path
        self.metric = ACCURACY
        self.rows: dict[RunId, ResultRow] = {}
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.repair = False
        self.again: set[RunId] = set()
        self._before: dict[str, Any] | None = None
        self._made: list[Path] = []  # the folders that were not there
        self._copied: list[str] = []
        self._lock: Lock | None = None
        self._order: Sequence[str] = ()
        self._share: int | None = None

    # Opening

    @classmethod
    def open(
        cls,
        path: Path,
        spec: specs.Spec,
        name: str,
        command: Sequence[str],
        config: Config | None = None,
        *,
        repair: bool = False,
        metric: Metric = ACCURACY,
    ) -> RunDirectory:
        """Opens the directory of `spec` for writing, whether it is new or was begun before.

        Args:
          path: the folder; made if need be.
          spec: the experiment.
          name: what it is called.
          command: the command line that its record keeps, without `python`.
          config: the file that it comes from, which is copied to `config/`; None for none.
          repair: whether to open one whose tables are damaged, to train again what they lost.
          metric: what networks are measured by.

        Raises:
          StoreError: it belongs to another experiment (names the differing fields), is in use, is
            damaged, cannot be written, or is of another format.
        """
        run = cls(path)
        run._made = [folder for folder in (path, *path.parents) if not exists(folder)]
        run._lock = Lock(path / LOCK)
        run.repair = repair
        try:
            run._clean()
            run._read_rows()
            run.check_metrics()
            record = run.record_of_spec() if exists(path / SPEC_FILE) else None
            before = record if record and run._holds_work() else None
            known = check_same(path, before, spec, config) if before else {}
            branches = {**known, **branch_records(spec, config)}
            run._order = tuple({**dict.fromkeys(spec.branches), **dict.fromkeys(known)})
            run.metric = metric
            new = new_record(spec, name, branches, command, config, metric)
            run._keep_config(config, before)
            run._before = before
            if before:  # what this start says nothing of: rows that only earlier branches used
                new = {k: before[k] for k in ("config", "own", "data") if k in before} | new
                if not new.get("own", True):
                    new["own"] = before.get("own", {})
            write_json(path / SPEC_FILE, sealed(new))
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
        run.metric = recorded_metric(record)
        named = dict.fromkeys(spec_of(path / SPEC_FILE, record).branches)
        run._order = tuple({**named, **record["branches"]})
        run._read_rows()
        return run

    def _keep_config(self, config: Config | None, before: Mapping[str, Any] | None) -> None:
        """Copies the config and the modules beside it, to be found wherever the run is moved."""
        if not config:
            return
        for file, content in config.sources.files.items():
            write_bytes(self.path / COPIES / file, content)
            self._copied.append(f"{COPIES}/{file}")
        if config.rows and before and "own" not in before:
            rows = ", ".join(f"{field} '{name}'" for field, name in config.rows.items())
            self.notes.append(
                f"{self.path} was begun before the source of {rows} was recorded; recorded now: "
                f"{config.sources.main} as it is today"
            )

    def record_data(self, content: Mapping[str, str]) -> None:
        """Records the dataset's version and digest, to be compared when the run goes on.

        Args:
          content: `name`, `version` and `digest`.

        Raises:
          StoreError: the directory holds results of other data; it is left as it was found.
        """
        if self._before:
            try:
                check_data(self.path, self._before, content)
            except StoreError:
                write_json(self.path / SPEC_FILE, self._before)
                raise
        record = self.record_of_spec()
        if record.get("data") != content:
            write_json(self.path / SPEC_FILE, sealed({**record, "data": dict(content)}))

    def close(self) -> None:
        """Gives the lock back."""
        if self._lock:
            self._lock.release()
            self._lock = None

    def discard(self) -> None:
        """Closes it after a start that was refused, as for want of data: nothing of it stays.

        What anything was trained in, or was there before, stays as it is.
        """
        nothing = self._lock is not None and bool(self._made) and not self._holds_work()
        self.close()
        if not nothing:
            return
        files = [self.path / file for file in (SPEC_FILE, *self._copied, LOCK)]
        for file in files:
            file.unlink(missing_ok=True)
        within = {file.parent for file in files} - {self.path}
        with contextlib.suppress(OSError):  # a folder holds something else, too
            for folder in (*sorted(within, reverse=True), *self._made):
                folder.rmdir()

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
        """Reads `results.csv`, and checks it against the masks."""
        try:
            rows, problems = salvage_rows(self.path)
        except FileNotFoundError:
            return
        for problem in problems:
            self._meet(DamagedTable(self.path / RESULTS_FILE, problem))
        self.rows = {row.run_id: row for row in rows}

    def check_metrics(self) -> None:
        """Checks the tables of all finished runs under `metrics/`.

        A missing curve is made again only by a repair. Who has other tables, nothing here says.

        Raises:
          DamagedTable: one is damaged, and not to be repaired.
        """
        for branch, level in dict.fromkeys((row.branch, row.level) for row in self.rows.values()):
            try:
                for table in METRICS:
                    needed = self.repair and table is CURVES
                    if needed or exists(self.path / table.file(branch, level)):
                        self.check(table, branch, level, self.points(table, branch, level))
            except DamagedTable as error:
                self._meet(error)
                self.again |= {row.run_id for row in self._rows_of(branch, level)}

    def check(self, table: Table[Row], branch: str, level: int, points: Iterable[Row]) -> None:
        """Raises a DamagedTable where a table does not bear out the rows of its finished runs."""
        if wrong := table.unlike(points, self._rows_of(branch, level)):
            raise DamagedTable(self.path / table.file(branch, level), wrong)

    def _rows_of(self, branch: str, level: int) -> list[ResultRow]:
        return [row for row in self.rows.values() if (row.branch, row.level) == (branch, level)]

    def _meet(self, error: DamagedTable) -> None:
        """Keeps the problem of a table in mind where that is to be repaired, else raises it."""
        if not self.repair:
            raise error
        self._report(error.problem)

    def _holds_work(self) -> bool:
        """Returns whether anything was drawn or trained; a start that failed leaves only a spec."""
        root = self.path / CHECKPOINTS
        return bool(self.rows) or any(entries(folder) for folder in _folders(root))

    def _clean(self) -> None:
        """Removes what a killed save left behind, and nothing else: the folder may hold more."""
        root = self.path / CHECKPOINTS
        ours = [f for f in _folders(root) if f.name.startswith(("replicate_", SHARE))]
        for folder in (root, *ours):
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
        self._keep_lock()
        self.rows.update({row.run_id: row for row in rows})
        write_text(self.path / RESULTS_FILE, RESULTS.to_csv(self.sorted_rows(), self.metric.column))

    def points(self, table: Table[Row], branch: str, level: int) -> list[Row]:
        """Returns what a table has of a branch's runs at a level so far; an empty list if nothing.

        Raises:
          DamagedTable: it is damaged; Unreadable: this machine cannot read it now.
        """
        return _read_table(table, self.path / table.file(branch, level))

    def write_points(
        self, table: Table[Row], branch: str, level: int, points: Iterable[Row]
    ) -> None:
        """Replaces a table of a branch at a level."""
        self._keep_lock()
        text = table.to_csv(sorted(cast(Any, points)), self.metric.column)
        write_text(self.path / table.file(branch, level), text)

    def update_points(
        self, table: Table[Row], branch: str, level: int, points: Iterable[Row]
    ) -> None:
        """Replaces what a table has of some runs of a branch at a level; the others' stays."""
        new = list(points)
        runs = {point[:2] for point in cast(Any, new)}
        try:
            old = self.points(table, branch, level)
        except DamagedTable as error:
            self._report(error.problem)
            old = []
        others = [point for point in old if cast(Any, point)[:2] not in runs]
        self.write_points(table, branch, level, [*others, *new])

    def curve(self, branch: str, level: int) -> list[CurvePoint]:
        """Returns the evaluations of a branch's runs at a level so far, as `points` does."""
        return self.points(CURVES, branch, level)

    def paths(self) -> list[PathPoint]:
        """Returns the networks between trained ones that were measured so far.

        Raises:
          DamagedTable: they are damaged; Unreadable: this machine cannot read them now.
        """
        return _read_table(PATHS, self.path / PATHS.name)

    def write_paths(self, points: Iterable[PathPoint]) -> None:
        """Replaces `paths.csv`; rows by level, pair, replicate, ends, alignment and place."""
        self._keep_lock()
        order = sorted(
            points,
            key=lambda p: (p.level, p.pair, p.replicate, p.first, p.second, p.aligned, p.alpha),
        )
        write_text(self.path / PATHS.name, PATHS.to_csv(order))

    # Checkpoints of the trunk

    def checkpoint(self, replicate: int, name: str) -> Path:
        """Returns the path of a replicate's checkpoint `initial`, `rewind` or `level_03`."""
        return self.path / CHECKPOINTS / f"replicate_{replicate}" / name

    def save(
        self, replicate: int, name: str, tree: PyTree, meta: Mapping[str, Any] | None = None
    ) -> None:
        """Writes a checkpoint of the trunk, and `meta`, which is read without the arrays."""
        self._keep_lock()
        checkpoints.save(self.checkpoint(replicate, name), tree, meta)

    def load(self, replicate: int, name: str) -> dict[str, np.ndarray] | None:
        """Returns its arrays by name; None if it is missing or damaged (then in `problems`)."""
        path = self.checkpoint(replicate, name)
        if not exists(path):
            return None
        try:
            return checkpoints.load(path)[0]
        except checkpoints.Damaged as error:
            self._report(error)
            return None

    def intact(self, replicate: int, name: str) -> bool:
        """Returns whether every byte of it is there as it was written; loads no arrays."""
        path = self.checkpoint(replicate, name)
        if not exists(path):
            return False
        try:
            checkpoints.verify(path)
        except checkpoints.Damaged as error:
            self._report(error)
            return False
        return True

    # The level that is running

    @property
    def _running(self) -> RunningLevel:
        return RunningLevel(self.path / CHECKPOINTS, self._share, self._report)

    def save_progress(self, tree: PyTree, meta: Mapping[str, Any]) -> None:
        """Writes the state of the running level, as `RunningLevel.save` does."""
        self._keep_lock()
        self._running.save(tree, meta)

    def progress_of(
        self, level: int, runs: Collection[RunId]
    ) -> Iterator[tuple[dict[str, np.ndarray], dict[str, Any]]]:
        """Gives the states of a level that hold any of some runs, as `RunningLevel.of` does."""
        return self._running.of(level, runs)

    def clear_progress(self) -> None:
        """Removes the states of the running level, of all processes: it is finished."""
        self._running.clear()

    def progress_checkpoints(self) -> list[Path]:
        """Returns this process's checkpoints of the running level, oldest first."""
        return self._running.checkpoints()

    def _keep_lock(self) -> None:
        """Makes sure before anything is written that this process alone writes here."""
        if self._lock:
            self._lock.keep()


def _read_table(table: Table[Row], file: Path) -> list[Row]:
    """Returns the rows of a table in a file; an empty list without one.

    Raises:
      DamagedTable: it is damaged; Unreadable: this machine cannot read it now.
    """
    try:
        return table.from_csv(read_bytes(file).decode("utf-8"))
    except FileNotFoundError:
        return []
    except StoreError:
        raise
    except ValueError as error:
        raise DamagedTable(file, str(error)) from error


def salvage_rows(path: Path, *, masks: bool = True) -> tuple[list[ResultRow], list[str]]:
    """Returns the rows of a run's `results.csv` that are whole, and what is wrong with the rest.

    Args:
      path: the run directory.
      masks: whether rows are held against the masks of their checkpoints, too.

    Raises:
      FileNotFoundError: there is none; Unreadable: this machine cannot read it now.
    """
    found, problems = RESULTS.salvage(read_bytes(path / RESULTS_FILE).decode("utf-8", "replace"))
    rows = []
    for row in found:
        folder = path / CHECKPOINTS / f"replicate_{row.replicate}" / level_name(row.level)
        if masks and (wrong := _wrong_counts(row, folder)):
            problems.append(f"{RESULTS_FILE}: {wrong}")
        else:
            rows.append(row)
    return rows, problems


def _wrong_counts(row: ResultRow, checkpoint: Path) -> str:
    """Returns what a row of the trunk says otherwise than its mask, or an empty string.

    A checkpoint that is missing or damaged says nothing; nor do those of earlier versions.
    """
    if row.branch != TRUNK:
        return ""
    try:
        layers = checkpoints.read_manifest(checkpoint).meta.get("layers")
    except checkpoints.Damaged:
        return ""
    if not layers:
        return ""
    kept, total = (sum(pair[index] for pair in layers.values()) for index in (0, 1))
    if (row.kept, row.prunable) == (kept, total):
        return ""
    return (
        f"{row.run_id}: {row.kept} of {row.prunable} weights, and its mask keeps {kept} of {total}"
    )


def _folders(folder: Path) -> list[Path]:
    return [path for path in entries(folder) if path.is_dir()]


def checkpoint_name(run: RunId) -> str:
    """Returns the name of a trained network's checkpoint: `level_03`, `sibling_level_03_1`."""
    level = level_name(run.level)
    return level if run.branch == TRUNK else f"{run.branch}_{level}_{run.draw}"


def drawn_name(run: RunId) -> str:
    """Returns the name of the dense network's state that a run was drawn from on its way."""
    return f"{run.branch}_drawn_{run.level:02d}"


def level_name(level: int) -> str:
    """Returns the name of a level's checkpoint and curve: `level_03`."""
    return f"level_{level:02d}"
