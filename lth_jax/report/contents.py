"""What a report tells of one run, read from its directory once; what cannot be read is named."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lth_jax import config as specs
from lth_jax.analysis.layers import FirstLayer, LayerCounts, first_layer
from lth_jax.analysis.overlap import PackedMask
from lth_jax.data import facts
from lth_jax.errors import StoreError
from lth_jax.lottery.plan import planned_runs
from lth_jax.pruning.masks import is_kernel
from lth_jax.report.curves import shown_levels
from lth_jax.store import CurvePoint, RunDirectory, level_name
from lth_jax.store.checkpoints import Manifest, read_manifest
from lth_jax.store.results import TRUNK, ResultRow


@dataclasses.dataclass(frozen=True)
class Contents:
    """A run as its report sees it.

    Attributes:
      path: the run directory.
      record: its `spec.json`; spec: the spec in it.
      rows: those of the runs that the spec plans, in the order of `results.csv`.
      planned: how many runs the spec plans.
      status: `finished`, `running` or `stopped`.
      curves: (branch, level) -> evaluations, of the levels that are drawn.
      counts: (replicate, level) -> layer -> (kept, total).
      first: the layer that sees the image, if the kernels' shapes tell.
      remark: what else the directory holds, or an empty string.
      notes: a line for everything that should be here and is left out.
    """

    path: Path
    record: Mapping[str, Any]
    spec: specs.Spec
    rows: Sequence[ResultRow]
    planned: int
    status: str
    curves: Mapping[tuple[str, int], Sequence[CurvePoint]]
    counts: LayerCounts
    first: FirstLayer | None
    remark: str
    notes: list[str]

    @property
    def name(self) -> str:
        """What the experiment is called."""
        return self.record["name"]

    @property
    def identity(self) -> str:
        """8 hex digits of the trunk's science."""
        return self.record["identity"]

    @property
    def densities(self) -> dict[int, float]:
        """Level -> mean density of its tickets."""
        found: dict[int, list[float]] = {}
        for row in self.rows:
            if row.branch == TRUNK:
                found.setdefault(row.level, []).append(row.density)
        return {level: sum(values) / len(values) for level, values in found.items()}

    @property
    def tickets(self) -> list[tuple[int, int]]:
        """(replicate, level) of the finished tickets."""
        return [(row.replicate, row.level) for row in self.rows if row.branch == TRUNK]


def read_contents(store: RunDirectory, status: str = "") -> Contents:
    """Reads a run directory without loading an array.

    Args:
      store: the directory, which may be running or damaged.
      status: of an unfinished run; found out by its lock if it is not given.

    Raises:
      StoreError: its `spec.json` cannot be read.
    """
    record, spec = store.record_of_spec(), store.spec()
    planned = set(planned_runs(spec))
    everything = store.sorted_rows()
    rows = [row for row in everything if row.run_id in planned]
    densities = {row.level: row.density for row in rows if row.branch == TRUNK}
    problems = len(store.problems)
    curves = {
        (branch, level): store.curve(branch, level)
        for branch in (TRUNK, *spec.branches)
        for level in shown_levels(densities)
    }
    notes = [f"{problem}; it is left out" for problem in store.problems[problems:]]
    tickets = [(row.replicate, row.level) for row in rows if row.branch == TRUNK]
    manifests = _manifests(store, tickets, notes)
    return Contents(
        path=store.path,
        record=record,
        spec=spec,
        rows=rows,
        planned=len(planned),
        status=_status(store, len(rows) == len(planned), status),
        curves={key: points for key, points in curves.items() if points},
        counts={key: manifest.meta["layers"] for key, manifest in manifests.items()},
        first=first_layer(_kernels(manifests), _image(spec)),
        remark=_remark(len(everything) - len(rows)),
        notes=notes,
    )


def _remark(further: int) -> str:
    if not further:
        return ""
    return (
        f"{further} rows of results.csv are not of this spec, which asks for less than the "
        "directory holds; they are not shown"
    )


def _status(store: RunDirectory, done: bool, unfinished: str) -> str:
    if done:
        return "finished"
    return unfinished or ("running" if store.holder() else "stopped")


def _manifests(
    store: RunDirectory, tickets: Sequence[tuple[int, int]], notes: list[str]
) -> dict[tuple[int, int], Manifest]:
    """Of the tickets' checkpoints, those that are whole."""
    found = {}
    gone = []
    for replicate, level in tickets:
        path = store.checkpoint(replicate, level_name(level))
        if not path.exists():
            gone.append(f"replicate {replicate} level {level}")
            continue
        try:
            found[replicate, level] = read_manifest(path)
        except StoreError as error:
            notes.append(f"{error}; it is left out of the figures of masks")
    if gone:
        some = ", ".join(gone[:3]) + (f" and {len(gone) - 3} more" if len(gone) > 3 else "")
        notes.append(f"checkpoints are gone, and left out of the figures of masks: {some}")
    return found


def _kernels(manifests: Mapping[tuple[int, int], Manifest]) -> dict[str, tuple[int, ...]]:
    """Every kernel's shape, whether it may be pruned or not; they are those of any checkpoint."""
    for manifest in manifests.values():
        params = {
            name.removeprefix("params/"): shape
            for name, (shape, _) in manifest.arrays.items()
            if name.startswith("params/")
        }
        return {n: s for n, s in params.items() if is_kernel(n, np.broadcast_to(0, s))}
    return {}


def _image(spec: specs.Spec) -> tuple[int, int, int] | None:
    """The shape of the images, where it is known before they are loaded.

    Networks that pad their images begin with a convolution, to which only the channels matter.
    """
    known = facts(spec.data.name)
    if known is None:
        return None
    height, width, channels = known.shape
    side = spec.data.side
    return side or height, side or width, spec.data.channels or channels


@dataclasses.dataclass(frozen=True)
class Tickets:
    """The arrays that figures of masks are made of.

    Attributes:
      masks: (replicate, level) -> prunable layer -> its mask.
      initial: replicate -> prunable layer -> float32 initial weights.
    """

    masks: Mapping[tuple[int, int], Mapping[str, PackedMask]]
    initial: Mapping[int, Mapping[str, np.ndarray]]


def read_tickets(store: RunDirectory, contents: Contents) -> Tickets:
    """Loads the masks and the initial weights that are whole; the others are added to the notes."""
    masks = {}
    for (replicate, level), layers in contents.counts.items():
        arrays = store.load(replicate, level_name(level))
        if arrays is not None:
            masks[replicate, level] = {n: PackedMask.of(arrays[f"mask/{n}"]) for n in layers}
    initial = {}
    for replicate, layers in {r: masks[r, level] for r, level in masks}.items():
        arrays = store.load(replicate, "initial")
        if arrays is not None:
            initial[replicate] = {name: arrays[f"params/{name}"] for name in layers}
    for problem in store.problems:
        if not any(note.startswith(problem) for note in contents.notes):
            contents.notes.append(f"{problem}; it is left out of the figures of masks")
    return Tickets(masks, initial)
