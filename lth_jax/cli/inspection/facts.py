"""A run directory as plain data, whether it is finished, running, killed or damaged."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lth_jax import config as specs
from lth_jax.cli.inspection import damage
from lth_jax.cli.inspection.kept import Kept, find_checkpoints
from lth_jax.errors import StoreError
from lth_jax.lottery.plan import planned_runs
from lth_jax.store.lock import held_by
from lth_jax.store.record import OtherFormat, read_record, spec_of
from lth_jax.store.tables import RESULTS, TRUNK, ResultRow, RunId, sort_rows

LEVEL = re.compile(r"replicate_(\d+)/level_(\d+)")


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a run directory holds.

    Attributes:
      path: the folder.
      record: the content of `spec.json`; empty where that is gone or damaged.
      spec: the resolved spec; None where this version cannot read it.
      rows: the readable rows of `results.csv`, in its order.
      holder: who is running it now, or an empty string.
      checkpoints: what is kept, by name (`replicate_0/level_03`, `progress_000007`).
      problems: one line for each damaged thing.
      leftovers: what a killed save left behind, which the next start removes.
    """

    path: Path
    record: Mapping[str, Any]
    spec: specs.Spec | None
    rows: list[ResultRow]
    holder: str
    checkpoints: dict[str, Kept]
    problems: list[str]
    leftovers: list[str]

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

    def planned(self, branch: str | None = None) -> list[RunId]:
        """The runs that the spec asks for, of one branch or of all; none without a spec."""
        runs = planned_runs(self.spec) if self.spec else []
        return [run_id for run_id in runs if branch in (None, run_id.branch)]

    def pending(self, branch: str | None = None) -> list[RunId]:
        """The planned runs that have no row."""
        done = {row.run_id for row in self.rows}
        return [run_id for run_id in self.planned(branch) if run_id not in done]

    @property
    def branches(self) -> list[str]:
        """The trunk, the spec's branches, and others that the directory knows."""
        names = self.spec.branches if self.spec else ()
        others = (row.branch for row in self.rows)
        return list(dict.fromkeys((TRUNK, *names, *self.record.get("branches", ()), *others)))

    def levels(self) -> dict[int, dict[int, Kept]]:
        """replicate -> level -> its checkpoint, damaged ones too, in order."""
        found: dict[int, dict[int, Kept]] = {}
        for name, kept in self.checkpoints.items():
            if match := LEVEL.fullmatch(name):
                found.setdefault(int(match[1]), {})[int(match[2])] = kept
        return {replicate: dict(sorted(found[replicate].items())) for replicate in sorted(found)}

    def under_way(self) -> list[tuple[RunId, int]]:
        """(run, step at which it was last saved) of the level that is or was being trained."""
        done = {row.run_id for row in self.rows}
        for name in sorted(self.checkpoints, reverse=True):
            kept = self.checkpoints[name]
            if name.startswith("progress_") and not kept.damage:
                runs = [(RunId(*run["id"]), run["step"]) for run in kept.meta.get("runs", ())]
                return [(run_id, step) for run_id, step in runs if run_id not in done]
        return []

    def source(self) -> Path | None:
        """The run directory that transfers take their tickets from, if one is known."""
        if (self.path / "source" / "spec.json").exists():
            return self.path / "source"
        named = self.spec.source.get("run") if self.spec else None
        return Path(named) if named else None

    def age(self) -> float:
        """Seconds since anything of it was last written."""
        files = (self.path / "spec.json", self.path / "results.csv")
        times = [file.stat().st_mtime for file in files if file.exists()]
        times += [kept.saved_at for kept in self.checkpoints.values()]
        return max(0.0, time.time() - max(times, default=0.0))


def is_run(path: Path) -> bool:
    """Whether a folder is a run directory, or what is left of one."""
    remains = (path / "results.csv").is_file() and (path / "checkpoints").is_dir()
    return (path / "spec.json").is_file() or remains


def gather(path: Path, *, verify: bool = True) -> Facts:
    """Reads a run directory, damaged or not; loads no arrays.

    Args:
      path: the folder.
      verify: compare every checkpoint with its checksums; otherwise only whether its files exist.

    Raises:
      StoreError: it holds no run; `OtherFormat`: one of another format.
    """
    if not is_run(path):
        raise StoreError(_no_run(path))
    problems: list[str] = []
    holder = held_by(path / "lock")
    record, spec = _record(path, problems)
    # Rows before checkpoints: a row says that its checkpoint is there, also while it is running.
    rows = _rows(path, problems)
    checkpoints = find_checkpoints(path, verify=verify, running=bool(holder))
    problems += damage.of_checkpoints(checkpoints)
    problems += damage.missing_checkpoints(rows, checkpoints, spec)
    problems += damage.of_curves(path, rows)
    order = [*(spec.branches if spec else ()), *record.get("branches", ())]
    order += [row.branch for row in rows]
    return Facts(
        path=path,
        record=record,
        spec=spec,
        rows=sort_rows(rows, list(dict.fromkeys(order))),
        holder=holder,
        checkpoints=checkpoints,
        problems=problems,
        leftovers=[] if holder else damage.leftovers(path),
    )


def _no_run(path: Path) -> str:
    if not path.exists():
        return f"{path} holds no run: there is no such folder"
    if not path.is_dir():
        return f"{path} holds no run: it is a file; accepted: a run directory"
    within = sorted(str(found.parent) for found in path.glob("*/spec.json"))
    if within:
        return f"{path} holds no run: it has no spec.json; runs in it: {', '.join(within)}"
    if held_by(path / "lock"):
        return f"{path} holds no run yet: one is starting there, and has no spec.json"
    return f"{path} holds no run: it has no spec.json"


def _record(path: Path, problems: list[str]) -> tuple[Mapping[str, Any], specs.Spec | None]:
    """`spec.json`, and the spec that it holds; what is wrong with them joins `problems`."""
    if not (path / "spec.json").exists():
        problems.append("spec.json is missing")
        return {}, None
    try:
        record = read_record(path)
    except OtherFormat:
        raise
    except StoreError as error:
        problems.append(_within(path, error))
        return {}, None
    try:
        spec = spec_of(path, record)
    except StoreError as error:
        problems.append(_within(path, error))
        return record, None
    if specs.identity(spec) != record["identity"]:
        problems.append(
            f"spec.json was changed: its spec has the identity {specs.identity(spec)}, "
            f"and what is here {record['identity']}"
        )
    return record, spec


def _rows(path: Path, problems: list[str]) -> list[ResultRow]:
    try:
        text = (path / "results.csv").read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        if any((path / "checkpoints").glob("replicate_*/level_*")):
            problems.append("results.csv is missing, though levels are finished")
        return []
    except OSError as error:
        problems.append(f"results.csv cannot be read: {error.strerror}")
        return []
    rows, wrong = RESULTS.salvage(text)
    problems += wrong
    return list({row.run_id: row for row in rows}.values())


def _within(path: Path, error: StoreError) -> str:
    """An error's line without the run directory, which the reader knows."""
    return str(error).replace(f"{path}/", "").replace(str(path), "the run directory")


def levels_done(facts: Facts) -> int:
    """The last level up to which every planned run is done; -1 for none."""
    pending = facts.pending()
    if not facts.planned():
        return max((row.level for row in facts.rows), default=-1)
    return min((run_id.level for run_id in pending), default=facts.planned()[-1].level + 1) - 1


def replicates_done(rows: Iterable[ResultRow]) -> int:
    """How many replicates have a row of the trunk."""
    return len({row.replicate for row in rows if row.branch == TRUNK})
