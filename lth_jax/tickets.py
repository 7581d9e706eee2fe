"""Tickets of a finished or running experiment, to be trained or looked at elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
import optax

from lth_jax.branches import Ticket
from lth_jax.errors import StoreError
from lth_jax.experiment import optimizer_of
from lth_jax.plan import source_level
from lth_jax.results import TRUNK, RunId
from lth_jax.states import TrainState, rewind
from lth_jax.store import RunDirectory, level_name
from lth_jax.store.checkpoints import fill, read_manifest, subtree
from lth_jax.trees import PyTree, to_device


def load_ticket(run: str | Path, level: int, replicate: int = 0) -> Ticket:
    """The ticket of a level: its mask and the rewound state, as the trunk trained it.

    Args:
      run: the run directory.
      level: the number of prunings behind the ticket; 0 is the dense network.
      replicate: which replicate's.

    Returns:
      `Ticket(mask, state, step)`: `mask` and `state.params` are nested dicts of the parameters'
      names, `state.opt_state` is the optimizer's of the run's spec, and `step` the rewind step.

    Raises:
      StoreError: there is no such run, level or replicate (says what there is), or it is damaged.
    """
    store = RunDirectory.read(Path(run))
    arrays = _checked(store, replicate, level_name(level))
    optimizer = optimizer_of(store.spec(), steps_per_epoch=1)  # its state is the same
    point, step = _rewind_point(store, replicate, level, optimizer)
    if level > 0 and store.spec().rewind.kind != "weights":
        point, step = _trained_point(store, replicate, level, point, step)
    mask = mask_of(arrays, point.params)
    return Ticket(mask, rewind(point, mask, optimizer), step)


def load_trained(run: str | Path, level: int, replicate: int = 0) -> tuple[PyTree, PyTree]:
    """The trained network of a level: (parameters, model state), as nested dicts.

    Args and errors as `load_ticket`'s.
    """
    store = RunDirectory.read(Path(run))
    arrays = _checked(store, replicate, level_name(level))
    trained = subtree(arrays, "params"), subtree(arrays, "model_state")
    return to_device(trained)


def _rewind_point(
    store: RunDirectory, replicate: int, level: int, optimizer: optax.GradientTransformation
) -> tuple[TrainState, int]:
    """The dense state that a level starts from, and its step."""
    initial = _checked(store, replicate, "initial")
    params = subtree(initial, "params")
    state = TrainState(params, subtree(initial, "model_state"), optimizer.init(params))
    later = store.checkpoint(replicate, "rewind")
    if level == 0 or not later.exists():
        return to_device(state), 0
    arrays = _checked(store, replicate, "rewind")
    return to_device(fill(state, arrays)), read_manifest(later).meta["step"]


def _trained_point(
    store: RunDirectory, replicate: int, level: int, point: TrainState, step: int
) -> tuple[TrainState, int]:
    """What a level goes on from where trained weights are kept, and its step."""
    spec = store.spec()
    source = source_level(spec, level)
    arrays = _checked(store, replicate, level_name(source))
    if spec.rewind.kind == "finetune":
        path = [source]
        while path[-1]:
            path.append(source_level(spec, path[-1]))
        updates = [store.rows[RunId(TRUNK, behind, replicate, 0)].steps for behind in path]
        return to_device(fill(point, arrays)), sum(updates)
    kept = fill({"params": point.params, "model_state": point.model_state}, arrays)
    return point._replace(**to_device(kept)), step


def mask_of(arrays: Mapping[str, np.ndarray], params: PyTree) -> PyTree:
    """The mask that a level's checkpoint holds, on the device, in the structure of `params`."""
    bools = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.bool_), params)
    return to_device(fill(bools, arrays, "mask/"))


def _checked(store: RunDirectory, replicate: int, name: str) -> dict[str, np.ndarray]:
    arrays = store.load(replicate, name)
    if arrays is None:
        problem = "; ".join(store.problems) or f"accepted: {_there_is(store)}"
        raise StoreError(f"{store.path} has no {name} of replicate {replicate}: {problem}")
    return arrays


def _there_is(store: RunDirectory) -> str:
    found = sorted(store.path.glob("checkpoints/replicate_*/level_*"))
    names = [f"{path.parent.name}/{path.name}" for path in found]
    return ", ".join(names) or "no level is finished"
