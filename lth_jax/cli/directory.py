"""A run directory as plain data, whether it is finished, running, killed or damaged.

`inspect` and `list` show it. JAX and Orbax are not imported, so that the answer is there at once,
and no arrays are loaded but those of one level's layers, where these are asked for.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from lth_jax import config as specs
from lth_jax.analysis.verdicts import Standard
from lth_jax.disk.files import read_bytes
from lth_jax.errors import RunError, StoreError, Unreadable
from lth_jax.lottery.plan import is_drawn, is_kept, reachable_runs
from lth_jax.store import checkpoint_name, drawn_name
from lth_jax.store.checkpoints import Manifest, array_bytes, read_manifest, verify
from lth_jax.store.lock import held_by
from lth_jax.store.record import SPEC_FILE, OtherFormat, is_changed, read_record, spec_of
from lth_jax.store.rundir import salvage_rows
from lth_jax.store.table import Table
from lth_jax.store.tables import CURVES, METRICS, RESULTS, TRUNK, ResultRow, RunId, sort_rows
from lth_jax.system.machine import cores
from lth_jax.training.metrics import ACCURACY, Metric, recorded_metric

# How long a checkpoint that looks damaged may take to be replaced or removed by who is running.
PATIENCE_SECONDS = 0.3
LEFTOVERS = (
    ".*.tmp", "config/.*.tmp", "checkpoints/.*.tmp", "checkpoints/*/.*.tmp", "metrics/*/.*.tmp",
    "figures/.*.tmp",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says of itself, without its arrays.

    Attributes:
      name: such as `replicate_0/level_03` or `progress_000007`.
      path: its folder.
      arrays: name -> (shape, dtype's name).
      meta: the writer's own JSON object.
      saved_at: when it was written, in seconds since the epoch.
      damage: what is wrong with it, or an empty string.
    """

    name: str
    path: Path
    arrays: Mapping[str, tuple[tuple[int, ...], str]]
    meta: Mapping[str, Any]
    saved_at: float
    damage: str = ""

    def sizes(self) -> dict[str, int]:
        """Returns the bytes in memory of each array, by name."""
        return {name: array_bytes(*kind) for name, kind in self.arrays.items()}


@dataclasses.dataclass(frozen=True)
class Directory:
    """What a run directory holds.

    Attributes:
      path: the folder.
      record: the content of `spec.json`; empty where that is gone or damaged.
      spec: the resolved spec; None where this version cannot read it.
      rows: the readable rows of `results.csv`, in its order.
      holder: who is running it now, or an empty string.
      checkpoints: what is kept, by name.
      problems: one line for each damaged thing.
      tables: those of the problems that are about tables: not all numbers are there to be shown.
      leftovers: what a killed save left behind, which the next start removes.
      metric: what its networks are measured by.
    """

    path: Path
    record: Mapping[str, Any]
    spec: specs.Spec | None
    rows: list[ResultRow]
    holder: str
    checkpoints: dict[str, Checkpoint]
    problems: list[str]
    tables: list[str]
    leftovers: list[str]
    metric: Metric = ACCURACY

    @property
    def status(self) -> str:
        """`running`, `finished`, `stopped`, `damaged`, or `unknown` (a spec of another version)."""
        if self.holder:
            return "running"
        if self.record and self.spec is None:
            return "unknown"
        if self.problems:
            return "damaged"
        return "stopped" if self.pending() else "finished"

    @property
    def standard(self) -> Standard:
        """By what its levels are judged."""
        if self.spec is None:
            return Standard(metric=self.metric)
        return Standard.of(self.spec, self.metric)

    def planned(self, branch: str | None = None) -> list[RunId]:
        """Returns the runs that the spec asks for, of one branch or of all; none without a spec.

        Those that no ticket is left for, since one diverged before, are not among them.
        """
        runs = reachable_runs(self.spec, self.rows, self.source()) if self.spec else []
        return [run_id for run_id in runs if branch in (None, run_id.branch)]

    def pending(self, branch: str | None = None) -> list[RunId]:
        """Returns the planned runs that have no row."""
        done = {row.run_id for row in self.rows}
        return [run_id for run_id in self.planned(branch) if run_id not in done]

    @property
    def branches(self) -> list[str]:
        """The trunk, the spec's branches, and others that the directory knows."""
        names = self.spec.branches if self.spec else ()
        others = (row.branch for row in self.rows)
        return list(dict.fromkeys((TRUNK, *names, *self.record.get("branches", ()), *others)))

    def levels(self) -> dict[int, dict[int, Checkpoint]]:
        """Returns replicate -> level -> its checkpoint, damaged ones too, in order."""
        found: dict[int, dict[int, Checkpoint]] = {}
        for name, checkpoint in self.checkpoints.items():
            if match := re.fullmatch(r"replicate_(\d+)/level_(\d+)", name):
                found.setdefault(int(match[1]), {})[int(match[2])] = checkpoint
        return {replicate: dict(sorted(found[replicate].items())) for replicate in sorted(found)}

    def under_way(self, branch: str | None = None) -> list[tuple[RunId, int]]:
        """Returns (run, step at which it was last saved) of the level that is or was trained."""
        done = {row.run_id for row in self.rows}
        for name in sorted(self.checkpoints, reverse=True):
            checkpoint = self.checkpoints[name]
            if name.startswith("progress_") and not checkpoint.damage:
                runs = [(RunId(*run["id"]), run["step"]) for run in checkpoint.meta.get("runs", ())]
                return [
                    (run_id, step)
                    for run_id, step in runs
                    if run_id not in done and branch in (None, run_id.branch)
                ]
        return []

    def source(self) -> Path | None:
        """Returns the run directory that transfers take their tickets from, if one is known."""
        if (self.path / "source" / "spec.json").exists():
            return self.path / "source"
        named = self.spec.source.get("run") if self.spec else None
        return Path(named) if named else None

    def age(self) -> float:
        """Returns the seconds since anything of it was last written."""
        files = [self.path / name for name in ("spec.json", "results.csv", "checkpoints")]
        times = [file.stat().st_mtime for file in files if file.exists()]
        times += [checkpoint.saved_at for checkpoint in self.checkpoints.values()]
        return max(0.0, time.time() - max(times, default=0.0))


def is_run(path: Path) -> bool:
    """Tells whether a folder is a run directory, or what is left of one."""
    remains = (path / "results.csv").is_file() and (path / "checkpoints").is_dir()
    return (path / "spec.json").is_file() or remains


def read_directory(path: Path, *, whole: bool = True) -> Directory:
    """Reads a run directory, damaged or not.

    Args:
      path: the folder.
      whole: whether every curve and checkpoint is read, too, and compared with its checksums.
        Otherwise the record, the table and the lock are all that is opened.

    Raises:
      StoreError: it holds no run; `OtherFormat`: one of another format.
    """
    if not is_run(path):
        raise StoreError(f"{path} holds no run{_why_no_run(path)}")
    problems: list[str] = []
    holder = held_by(path / "lock")
    record, spec = _read_record(path, problems)
    # Rows before checkpoints: a row says that its checkpoint is there, also while it is running.
    tables: list[str] = []
    rows = _read_rows(path, tables, masks=whole)
    problems += tables
    checkpoints: dict[str, Checkpoint] = {}
    leftovers: list[Path] = []
    if whole:
        checkpoints = _read_checkpoints(path, patience=PATIENCE_SECONDS if holder else 0.0)
        leftovers = [] if holder else [found for name in LEFTOVERS for found in path.glob(name)]
        for problem, damaged in _problems_of_work(path, rows, spec, checkpoints, bool(holder)):
            problems.append(problem)
            tables += [problem] if damaged else []
    order = [*(spec.branches if spec else ()), *record.get("branches", ())]
    order += [row.branch for row in rows]
    return Directory(
        path=path,
        record=record,
        spec=spec,
        rows=sort_rows(rows, list(dict.fromkeys(order))),
        holder=holder,
        checkpoints=checkpoints,
        problems=problems,
        tables=tables,
        leftovers=sorted(found.relative_to(path).as_posix() for found in leftovers),
        metric=_metric(path, record),
    )


def _problems_of_work(
    path: Path,
    rows: Sequence[ResultRow],
    spec: specs.Spec | None,
    checkpoints: Mapping[str, Checkpoint],
    running: bool,
) -> Iterator[tuple[str, bool]]:
    """Names what is wrong with checkpoints and curves; yields as `_problems_of_metrics`."""
    for one in checkpoints.values():
        if one.damage:
            yield f"checkpoints/{one.name}: {one.damage}", False
    for name in _promised_checkpoints(rows, spec):
        if name not in checkpoints:
            yield f"checkpoints/{name} is missing, though results.csv has its run", False
    yield from _problems_of_metrics(path, rows, running)


def refuse_damaged_tables(runs: Iterable[Directory]) -> None:
    """Raises a RunError where not all numbers could be shown, since a table is damaged."""
    for run in runs:
        for problem in run.tables:
            raise RunError(f"{run.path}: {problem}")


def _why_no_run(path: Path) -> str:
    if not path.exists():
        return ": there is no such folder"
    if not path.is_dir():
        return ": it is a file; accepted: a run directory"
    within = sorted(str(found.parent) for found in path.glob("*/spec.json"))
    if within:
        return f": it has no spec.json; runs in it: {', '.join(within)}"
    if held_by(path / "lock"):
        return " yet: one is starting there, and has no spec.json"
    return ": it has no spec.json"


def _read_record(path: Path, problems: list[str]) -> tuple[Mapping[str, Any], specs.Spec | None]:
    """Reads `spec.json` and the spec in it; what is wrong with them joins `problems`."""
    if not (path / "spec.json").exists():
        problems.append("spec.json is missing")
        return {}, None
    record: Mapping[str, Any] = {}
    try:
        record = read_record(path)
        spec = spec_of(path / SPEC_FILE, record)
    except (OtherFormat, Unreadable):
        raise
    except StoreError as error:
        # Without the run directory, which the reader knows.
        line = str(error).replace(f"{path}/", "").replace(str(path), "the run directory")
        problems.append(line)
        return record, None
    if specs.identity(spec) != record["identity"]:
        problems.append(
            f"spec.json was changed: its spec has the identity {specs.identity(spec)}, "
            f"and what is here {record['identity']}"
        )
    elif is_changed(record):
        problems.append("spec.json was changed; the next start writes it anew")
    return record, spec


def _metric(path: Path, record: Mapping[str, Any]) -> Metric:
    """Returns the metric that is recorded; without a record what the columns call it."""
    if record:
        return recorded_metric(record)
    try:
        name = RESULTS.metric(read_bytes(path / RESULTS.name).decode("utf-8", "replace"))
    except (OSError, StoreError):
        return ACCURACY
    return ACCURACY if name == ACCURACY.column else Metric(name.replace("_", " "))


def _read_rows(path: Path, problems: list[str], *, masks: bool) -> list[ResultRow]:
    """Reads the rows that are whole, by their masks too; what is wrong joins `problems`."""
    try:
        rows, wrong = salvage_rows(path, masks=masks)
    except FileNotFoundError:
        # Checkpoints come before rows: that of level 0 may be there without any.
        if any((path / "checkpoints").glob("replicate_*/level_*[1-9]*")):
            problems.append("results.csv is missing, though levels are finished")
        return []
    problems += wrong
    return rows


def _promised_checkpoints(rows: Sequence[ResultRow], spec: specs.Spec | None) -> list[str]:
    """Returns the names of the checkpoints that rows promise: networks, and where they began."""
    names = []
    rewound = spec is not None and not re.fullmatch(r"0+(ep)?", spec.rewind.step)
    for row in rows:
        run, own = row.run_id, list[str]()
        if run.branch == TRUNK:
            own = ["initial", "rewind"] if rewound else ["initial"]
        if run.branch == TRUNK or (spec and is_kept(spec, run)):
            own.append(checkpoint_name(run))
        if spec and is_drawn(spec, run):
            own.append(drawn_name(run))
        names += [f"replicate_{run.replicate}/{name}" for name in own]
    return list(dict.fromkeys(names))


def _problems_of_metrics(
    path: Path, rows: Sequence[ResultRow], running: bool
) -> Iterator[tuple[str, bool]]:
    """Names tables under `metrics/` that are damaged, and curves of rows that are not there.

    Yields:
      The problem, and whether it is damage.
    """
    for table in METRICS:
        promised: dict[str, list[ResultRow]] = {}
        for row in rows:
            name = table.file(row.branch, row.level)
            # A row promises a curve alone: most masks stay.
            if table is CURVES or (path / name).exists():
                promised.setdefault(name, []).append(row)
        yield from _problems_of_tables(path, promised, table, running)


def _problems_of_tables(
    path: Path,
    promised: Mapping[str, Sequence[ResultRow]],
    table: Table[Any],
    running: bool,
) -> Iterator[tuple[str, bool]]:
    """Names tables of one kind that are damaged, or promised and not there.

    Args:
      path: the run directory.
      promised: the rows that each table must bear out, by its name.
      table: reads them.
      running: whether a process is at work, which writes these tables before their rows.
    """
    files = path.glob(f"metrics/*/{table.stem}_*.csv")
    found = sorted(file.relative_to(path).as_posix() for file in files)
    for name in dict.fromkeys((*promised, *found)):
        try:
            points = table.from_csv(read_bytes(path / name).decode("utf-8"))
        except FileNotFoundError:
            if name in promised:
                yield f"{name} is missing, though results.csv has its runs", False
        except StoreError:
            raise
        except ValueError as error:
            yield f"{name} is damaged: {error}", True
        else:
            wrong = "" if running else table.unlike(points, promised.get(name, ()))
            if wrong:
                yield f"{name} is damaged: {wrong}", True


def _read_checkpoints(path: Path, patience: float) -> dict[str, Checkpoint]:
    """Returns every checkpoint by its name, in order; `patience` in seconds, see `_read`."""
    root = path / "checkpoints"
    folders = sorted(root.glob("replicate_*/[!.]*"), key=_natural)
    folders += sorted(root.glob("progress_*"))
    folders = [folder for folder in folders if folder.is_dir()]
    read = partial(_read, root=root, patience=patience)
    with ThreadPoolExecutor(cores()) as pool:  # hashing leaves Python's lock alone
        found = [checkpoint for checkpoint in pool.map(read, folders) if checkpoint]
    return {checkpoint.name: checkpoint for checkpoint in found}


def _natural(folder: Path) -> list[tuple[int, str]]:
    """Orders `level_99` before `level_100`."""
    parts = re.split(r"(\d+)", f"{folder.parent.name}/{folder.name}")
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _read(folder: Path, *, root: Path, patience: float) -> Checkpoint | None:
    """Reads one checkpoint; None if it is gone, as the progress of a running level goes.

    Where a process is running, it may be replacing what looks damaged: it is looked at again after
    `patience` seconds, unless that is 0.
    """
    name = folder.relative_to(root).as_posix()
    try:
        saved_at = folder.stat().st_mtime
    except FileNotFoundError:
        return None
    try:
        manifest = verify(folder)
        return Checkpoint(name, folder, manifest.arrays, manifest.meta, saved_at)
    except Unreadable:
        raise
    except StoreError as error:
        if patience:
            time.sleep(patience)
            return _read(folder, root=root, patience=0.0)
        if not folder.exists():
            return None
        damage = str(error).replace(f"checkpoint {folder}", "").removeprefix(":").strip()
    try:
        manifest = read_manifest(folder)  # which may be whole all the same
    except Unreadable:
        raise
    except StoreError:
        manifest = Manifest({}, {}, {})
    return Checkpoint(name, folder, manifest.arrays, manifest.meta, saved_at, damage)
