"""What a report needs of one run directory; what cannot be read is named and left out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from lth_jax import config as specs
from lth_jax.analysis.layers import FirstLayer, LayerCounts, first_layer, layer_order
from lth_jax.analysis.overlap import PackedMask
from lth_jax.data import facts
from lth_jax.errors import StoreError
from lth_jax.lottery.plan import reachable_runs, source_path
from lth_jax.pruning.masks import is_kernel
from lth_jax.store import RunDirectory, level_name
from lth_jax.store.checkpoints import Manifest, read_manifest
from lth_jax.store.table import Table
from lth_jax.store.tables import (
    CURVATURE,
    DISTANCES,
    MASKS,
    TRUNK,
    CurvaturePoint,
    MaskDistance,
    MaskPoint,
    PathPoint,
)


class Contents:
    """A run directory as its report sees it: rows at once, the rest when a figure asks for it.

    Args:
      store: the directory, which may be running or damaged.
      status: of an unfinished experiment; found out by its lock if it is not given.

    Attributes:
      store: the directory.
      record: its `spec.json`.
      spec: the spec in it.
      name: what the experiment is called.
      metric: what its networks are measured by.
      rows: those of the runs that the spec plans, in the order of `results.csv`.
      planned: how many runs the spec plans, without those that no ticket is left for.
      status: `finished`, `running` or `stopped`.
      remark: what else the directory holds, or an empty string.
      densities: level -> mean density of its tickets.

    Raises:
      StoreError: `spec.json` or `results.csv` cannot be read.
    """

    def __init__(self, store: RunDirectory, status: str = ""):
        self.store = store
        self.record: Mapping[str, Any] = store.record_of_spec()
        self.spec: specs.Spec = store.spec()
        self.name: str = self.record["name"]
        self.metric = store.metric
        rows = store.sorted_rows()
        planned = set(reachable_runs(self.spec, rows, source_path(self.spec, store.path)))
        self.rows = [row for row in rows if row.run_id in planned]
        self.planned = len(planned)
        further = len(rows) - len(self.rows)
        self.remark = (
            f"{further} rows of results.csv are not of this spec, which asks for less than the "
            "directory holds; they are not shown"
            if further
            else ""
        )
        if len(self.rows) == self.planned:
            self.status = "finished"
        else:
            self.status = status or ("running" if store.holder() else "stopped")
        found: dict[int, list[float]] = {}
        for row in self.rows:
            if row.branch == TRUNK:
                found.setdefault(row.level, []).append(row.density)
        self.densities = {level: sum(each) / len(each) for level, each in found.items()}
        self._notes: list[str] = []

    @property
    def notes(self) -> list[str]:
        """A line for everything that should be here and was left out so far."""
        return [*(f"{problem}; it is left out" for problem in self.store.problems), *self._notes]

    @cached_property
    def manifests(self) -> dict[tuple[int, int], Manifest]:
        """(replicate, level) -> what the ticket's checkpoint says of itself, where it is whole."""
        found, gone = {}, []
        for row in self.rows:
            path = self.store.checkpoint(row.replicate, level_name(row.level))
            if row.branch != TRUNK:
                continue
            if not path.exists():
                gone.append(f"replicate {row.replicate} level {row.level}")
                continue
            try:
                found[row.replicate, row.level] = read_manifest(path)
            except StoreError as error:
                self._notes.append(f"{error}; it is left out")
        if gone:
            some = ", ".join(gone[:3]) + (f" and {len(gone) - 3} more" if len(gone) > 3 else "")
            line = f"checkpoints are gone, and left out of the figures of masks: {some}"
            self._notes.append(line)
        return found

    @cached_property
    def counts(self) -> LayerCounts:
        """(replicate, level) -> prunable layer -> (kept, total)."""
        return {key: manifest.meta["layers"] for key, manifest in self.manifests.items()}

    @property
    def of_images(self) -> bool:
        """Whether inputs are images, as far as is known: older runs do not say."""
        sides = str(self.record.get("data", {}).get("inputs", "?×?×?")).split("×")
        return len(sides) == 3 and "1" not in sides[:2]

    @cached_property
    def first(self) -> FirstLayer | None:
        """The layer that sees the image, if the kernels' shapes tell."""
        manifest = next(iter(self.manifests.values()), None)
        arrays = manifest.arrays if manifest else {}
        shapes = {
            name.removeprefix("params/"): shape
            for name, (shape, _) in arrays.items()
            if name.startswith("params/") and is_kernel(name, np.broadcast_to(0, shape))
        }
        data, known = self.spec.data, facts(self.spec.data.name)
        if not self.of_images:
            return None
        if known is None:
            return first_layer(shapes)
        # Networks that pad their images begin with a convolution, to which only channels matter.
        height, width, channels = known.shape
        image = data.side or height, data.side or width, data.channels or channels
        return first_layer(shapes, image)

    @cached_property
    def layers(self) -> list[str]:
        """The prunable layers in the order of the data."""
        first = self.first.name if self.first else ""
        return layer_order(next(iter(self.counts.values()), {}), first)

    @cached_property
    def paths(self) -> list[PathPoint]:
        """The networks on the paths between trained ones, where `paths.csv` is whole."""
        try:
            return self.store.paths()
        except StoreError as error:
            self._notes.append(f"{error}; it is left out")
            return []

    @cached_property
    def masks_on_their_way(self) -> dict[tuple[str, int], list[MaskPoint]]:
        """(branch, level) -> its masks that move, where their file is whole."""
        return self._tables(MASKS)

    @cached_property
    def curvature(self) -> dict[tuple[str, int], list[CurvaturePoint]]:
        """(branch, level) -> its eigenvalues, where their file is whole."""
        return self._tables(CURVATURE)

    @cached_property
    def mask_distances(self) -> dict[tuple[str, int], list[MaskDistance]]:
        """(branch, level) -> the distances of its epochs' masks, where their file is whole."""
        return self._tables(DISTANCES)

    def _tables(self, table: Table[Any]) -> dict[tuple[str, int], list[Any]]:
        found: dict[tuple[str, int], list[Any]] = {}
        for key in dict.fromkeys((row.branch, row.level) for row in self.rows):
            try:
                found[key] = self.store.points(table, *key)
            except StoreError as error:
                self._notes.append(f"{error}; it is left out")
        return {key: points for key, points in found.items() if points}

    @cached_property
    def masks(self) -> dict[tuple[int, int], dict[str, PackedMask]]:
        """(replicate, level) -> prunable layer -> its mask, of the checkpoints that are whole."""
        found = {}
        for replicate, level in self.counts:
            arrays = self.store.load(replicate, level_name(level))
            if arrays is not None:
                masks = {name: PackedMask.of(arrays[f"mask/{name}"]) for name in self.layers}
                found[replicate, level] = masks
        return found

    @cached_property
    def initial(self) -> dict[int, dict[str, np.ndarray]]:
        """Replicate -> prunable layer -> float32 initial weights, of those that have masks."""
        found = {}
        for replicate in {replicate: None for replicate, _ in self.masks}:
            arrays = self.store.load(replicate, "initial")
            if arrays is not None:
                found[replicate] = {name: arrays[f"params/{name}"] for name in self.layers}
        return found
