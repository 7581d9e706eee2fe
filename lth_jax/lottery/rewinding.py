"""Rewinding: what a level of the trunk starts from, out of what the run directory keeps of it.

After a level is pruned its survivors go back to the *rewind point*: the whole training state at
`rewind.step`, which is initialization by default (Frankle & Carbin 2019) or some steps later
(Frankle et al. 2019). With `rewind.kind` `learning_rate` the trained weights stay and the rest goes
back; with `finetune` nothing does (Renda et al. 2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import jax
import numpy as np
import optax

from lth_jax.config import Spec, duration_steps
from lth_jax.errors import StoreError, spans
from lth_jax.lottery.plan import source_level
from lth_jax.lottery.start_points import StartPoint
from lth_jax.pruning.trees import PyTree, to_device
from lth_jax.store import RunDirectory, checkpoint_name, level_name
from lth_jax.store.checkpoints import fill, read_manifest, subtree
from lth_jax.store.tables import TRUNK, RunId
from lth_jax.training.states import TrainState, rewind


class StoredTrunk:
    """One replicate's trunk as its run directory keeps it.

    What is read is kept on the host, since each level asks for the initialization and the rewind
    point again; what is given is on the device, for as long as it is used.

    Args:
      store: the run directory.
      spec: its spec.
      replicate: which one.
      optimizer: the spec's; only the structure of its state matters here.
      initial: the state at initialization, if it is known; read from the directory by default.

    Raises:
      StoreError: from every method, where something is missing (it says what there is) or damaged.
    """

    def __init__(
        self,
        store: RunDirectory,
        spec: Spec,
        replicate: int,
        optimizer: optax.GradientTransformation,
        initial: TrainState | None = None,
    ):
        self.store, self.spec, self.replicate, self.optimizer = store, spec, replicate, optimizer
        if initial is not None:
            self._initial = jax.device_get(initial)

    @property
    def initial(self) -> TrainState:
        """The dense state at initialization."""
        return to_device(self._initial)

    @cached_property
    def _initial(self) -> TrainState:
        arrays = self._load("initial")
        params = subtree(arrays, "params")
        # An optimizer begins as a function of the parameters, so that its state is not on disk.
        state = TrainState(params, subtree(arrays, "model_state"), self.optimizer.init(params))
        return jax.device_get(state)

    @cached_property
    def _late_point(self) -> tuple[TrainState, int] | None:
        """The dense state at a rewind step after initialization, and that step; None for none."""
        # The spec says whether there is one, not the disk: one that is lost is no initialization.
        if not duration_steps(self.spec.rewind.step, steps_per_epoch=1):
            return None
        state = fill(self._initial, self._load("rewind"))
        path = self.store.checkpoint(self.replicate, "rewind")
        return state, read_manifest(path).meta["step"]

    def kept_state(self, name: str) -> TrainState:
        """Returns the dense run's state on its way, as it was kept: `rewind`, `step_500`."""
        return to_device(fill(self._initial, self._load(name)))

    def kept(self, name: str) -> tuple[TrainState, int]:
        """Returns such a state, and the updates behind it."""
        path = self.store.checkpoint(self.replicate, name)
        return self.kept_state(name), read_manifest(path).meta["step"]

    def rewind_point(self, level: int) -> tuple[TrainState, int]:
        """Returns the dense state that a level goes back to, and its step.

        Level 0 is the uninterrupted dense run, so that its point is initialization.
        """
        point, step = self._point(level)
        return to_device(point), step

    def _point(self, level: int) -> tuple[TrainState, int]:
        late = self._late_point if level > 0 else None
        return late or (self._initial, 0)

    def mask(self, level: int) -> PyTree:
        """Returns the mask that a finished level was trained with."""
        return self._mask_of(self._load(level_name(level)))

    def mask_of(self, run: RunId) -> PyTree:
        """Returns the mask of the network in which a run of this replicate ended that is kept."""
        return self._mask_of(self._load(checkpoint_name(run)))

    def kept_mask(self, level: int) -> PyTree | None:
        """Returns the same; None where its checkpoint is missing or damaged."""
        arrays = self.store.load(self.replicate, level_name(level))
        return None if arrays is None else self._mask_of(arrays)

    def _mask_of(self, arrays: Mapping[str, np.ndarray]) -> PyTree:
        bools = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.bool_), self._initial.params
        )
        return to_device(fill(bools, arrays, "mask/"))

    def trained(self, level: int) -> TrainState:
        """Returns the state in which a level ended; the optimizer's is the rewind point's.

        Only fine-tuning goes on with the trained optimizer, and only there it is kept.
        """
        # That which the next level returns to; level 0's own is initialization, always.
        point, _ = self._point(max(level, 1))
        wanted: dict[str, Any] = {"params": point.params, "model_state": point.model_state}
        if self.spec.rewind.kind == "finetune":
            wanted["opt_state"] = point.opt_state
        return to_device(point._replace(**fill(wanted, self._load(level_name(level)))))

    def start(self, level: int, mask: PyTree) -> StartPoint:
        """Returns the ticket of a level: its mask, and the state that its survivors start from."""
        point, step = self.rewind_point(level)
        if level > 0 and self.spec.rewind.kind != "weights":
            source = source_level(self.spec, level)
            point = self.trained(source)
            if self.spec.rewind.kind == "finetune":
                step = self.steps_behind(source)
        return StartPoint(mask, rewind(point, mask, self.optimizer), step)

    def steps_behind(self, level: int) -> int:
        """Returns the updates behind a level's trained network, counted from initialization."""
        _, before = self._point(level)
        if level and self.spec.rewind.kind == "finetune":  # each goes on from the last
            before = self.steps_behind(source_level(self.spec, level))
        return before + self.store.rows[RunId(TRUNK, level, self.replicate, 0)].steps

    def _load(self, name: str) -> dict[str, np.ndarray]:
        arrays = self.store.load(self.replicate, name)
        if arrays is None:
            raise StoreError(missing(self.store, self.replicate, name))
        return arrays


def missing(store: RunDirectory, replicate: int, name: str) -> str:
    """Returns one line that says that a checkpoint is not there, and which ones are."""
    problem = "; ".join(store.problems) or f"accepted: {there_is(store)}"
    return f"{store.path} has no {name} of replicate {replicate}: {problem}"


def there_is(store: RunDirectory) -> str:
    """Returns which levels of which replicates a run directory keeps, for people."""
    levels: dict[int, list[int]] = {}
    for path in store.path.glob("checkpoints/replicate_*/level_*"):
        replicate, level = (int(part.rsplit("_", 1)[1]) for part in path.parts[-2:])
        levels.setdefault(replicate, []).append(level)
    found = [f"levels {spans(levels[r])} of replicate {r}" for r in sorted(levels)]
    return ", ".join(found) or "nothing yet, no level is finished"
