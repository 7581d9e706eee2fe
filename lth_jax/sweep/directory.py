"""The folder of a sweep: what was asked for, how far each experiment is, and one table of all.

sweep.json             the experiments that were ever asked for, each with its spec
sweep.csv              what they found, a line for each branch and level
NAME-IDENTITY/         a run directory each
failed/NAME-IDENTITY   why the last start of one failed, in one line
logs/NAME-IDENTITY.log what its workers said
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from lth_jax import config as specs
from lth_jax._version import __version__
from lth_jax.analysis.summary import summarize
from lth_jax.disk.files import read_bytes, write_json, write_text
from lth_jax.errors import StoreError
from lth_jax.lottery.paths import missing_pairs
from lth_jax.lottery.plan import is_done, reachable_runs, source_path
from lth_jax.store import RunDirectory
from lth_jax.store.lock import held_by
from lth_jax.store.table import column_of
from lth_jax.store.tables import ResultRow
from lth_jax.sweep.grid import Cell
from lth_jax.training.metrics import ACCURACY, Metric

RECORD, TABLE, FAILED, LOGS = "sweep.json", "sweep.csv", "failed", "logs"
FORMAT = 1
WAITING, RUNNING, STOPPED, FINISHED = "waiting", "running", "stopped", "finished"
FAILURE, DAMAGED = "failed", "damaged"
MEASURED = ("early_stop_step", "early_stop_test_accuracy", "final_test_accuracy")


class Member(NamedTuple):
    """An experiment of a sweep, as its folder tells of it.

    Attributes:
      name: of its run directory.
      fields: the values of the fields in which the sweep's experiments differ.
      status: `waiting`, `running`, `stopped`, `finished`, `failed` or `damaged`.
      why: it failed or is damaged; empty else.
      done, planned: how many of its runs have a row, of how many.
      rows: its results so far.
      metric: what its networks are measured by.
      spec: its spec.
    """

    name: str
    fields: Mapping[str, Any]
    status: str
    why: str
    done: int
    planned: int
    rows: Sequence[ResultRow]
    metric: Metric
    spec: specs.Spec


class SweepDirectory:
    """Knows the experiments of a sweep; their run directories are the truth about them.

    Args:
      path: the folder.
    """

    def __init__(self, path: Path):
        self.path = path

    @cached_property
    def specs(self) -> dict[str, specs.Spec]:
        """The spec of each experiment that was ever asked for, by name.

        Raises:
          StoreError: `sweep.json` is damaged or of another version.
        """
        return _read_record(self.path / RECORD)

    def add(self, cells: Iterable[Cell]) -> None:
        """Records experiments that are asked for; those of earlier commands stay."""
        new = {cell.name: cell.chosen.spec for cell in cells}
        if new.items() <= self.specs.items():
            return
        self.specs.update(new)
        record = {name: specs.to_dict(specs.settled(spec)) for name, spec in self.specs.items()}
        value = {"format": FORMAT, "version": __version__, "experiments": record}
        write_json(self.path / RECORD, value)

    def varied(self) -> list[str]:
        """Returns the fields in which the experiments differ, in the order of the spec."""
        flat = [specs.flatten(specs.to_dict(spec)) for spec in self.specs.values()]
        names = dict.fromkeys(name for one in flat for name in one)
        return [name for name in names if len({repr(one.get(name)) for one in flat}) > 1]

    def members(self) -> list[Member]:
        """Returns all experiments as they are now, in the order in which they were asked for."""
        varied = self.varied()
        found = []
        for name, spec in self.specs.items():
            flat = specs.flatten(specs.to_dict(spec))
            fields = {field: flat.get(field) for field in varied}
            found.append(_member(self.path, name, spec, fields))
        return found

    def fail(self, name: str, why: str) -> None:
        """Keeps why an experiment failed, until it is started again."""
        write_text(self.path / FAILED / name, why + "\n")

    def forget_failure(self, name: str) -> None:
        """Forgets why an experiment failed, since it is started again."""
        (self.path / FAILED / name).unlink(missing_ok=True)

    def log(self, name: str) -> Path:
        """Returns the file of what an experiment's workers say."""
        return self.path / LOGS / f"{name}.log"

    def write_table(self, members: Sequence[Member]) -> None:
        """Writes `sweep.csv`: equal experiments give equal bytes, however they were run.

        Raises:
          StoreError: they are measured by different metrics.
        """
        write_text(self.path / TABLE, table_csv(members, metric_of(members)))


def _read_record(file: Path) -> dict[str, specs.Spec]:
    try:
        record = json.loads(read_bytes(file))
        if record["format"] != FORMAT:
            raise StoreError(f"{file} is of format {record['format']}; accepted: {FORMAT}")
        return {name: specs.from_record(spec) for name, spec in record["experiments"].items()}
    except FileNotFoundError:
        return {}
    except StoreError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{file} is damaged ({error}); remove it, and no run is lost") from None


def is_sweep(path: Path) -> bool:
    """Tells whether a folder is that of a sweep."""
    return (path / RECORD).is_file()


def _member(folder: Path, name: str, spec: specs.Spec, fields: Mapping[str, Any]) -> Member:
    path = folder / name
    failure = _failure(folder / FAILED / name)
    status, why, rows, metric, planned = WAITING, "", [], ACCURACY, []
    holder = held_by(path / "lock") if path.exists() else ""
    try:
        if (path / "spec.json").exists():
            store = RunDirectory.read(path)
            metric = store.metric
            planned = reachable_runs(spec, store.rows.values(), source_path(spec, path))
            wanted = set(planned)
            rows = [row for row in store.sorted_rows() if row.run_id in wanted]
            whole = is_done(spec, store, planned) and not missing_pairs(spec, store)[0]
            status = FINISHED if whole else STOPPED
    except StoreError as error:
        status, why = DAMAGED, str(error)
    if holder:
        status, why = RUNNING, ""
    elif failure and status != FINISHED:
        status, why = FAILURE, failure
    planned = planned or reachable_runs(spec, ())
    return Member(name, fields, status, why, len(rows), len(planned), rows, metric, spec)


def _failure(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def metric_of(members: Sequence[Member]) -> Metric:
    """Returns what the networks of experiments that have results are measured by.

    Raises:
      StoreError: by different metrics.
    """
    metrics = {member.metric: member.name for member in members if member.rows}
    if len(metrics) > 1:
        (one, first), (other, second), *_ = ((m.title(), name) for m, name in metrics.items())
        raise StoreError(
            f"{first} is measured by {one}, {second} by {other}; accepted: runs of one metric"
        )
    return next(iter(metrics), ACCURACY)


def table_csv(members: Sequence[Member], metric: Metric) -> str:
    """Returns the table of all results: a line for each experiment, branch and level.

    Means and 95% t-intervals are over replicates and draws, as in each experiment's own report.
    """
    fields = list(members[0].fields) if members else []
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    measured = [column_of(name, metric.column) for name in MEASURED]
    spans = [f"{name}{end}" for name in measured for end in ("", "_low", "_high")]
    writer.writerow(
        ["experiment", *fields, "branch", "level", "density", "runs", "diverged", *spans]
    )
    for member in members:
        values = [member.fields[field] for field in fields]
        for one in summarize(member.rows):
            stats = [getattr(one, name) for name in MEASURED]
            numbers = [repr(x) for stat in stats for x in (stat.mean, stat.low, stat.high)]
            place = [one.branch, one.level, repr(one.density), one.runs, one.diverged]
            writer.writerow([member.name, *values, *place, *numbers])
    return out.getvalue()
