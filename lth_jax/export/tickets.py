"""Tickets of a finished or running experiment, to be trained or looked at elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from lth_jax.errors import StoreError, spans
from lth_jax.export import whole
from lth_jax.export.whole import Origin, spec_of
from lth_jax.lottery.branches import Ticket
from lth_jax.lottery.experiment import optimizer_of
from lth_jax.lottery.plan import source_level
from lth_jax.pruning.trees import PyTree, to_device
from lth_jax.store import RunDirectory, level_name
from lth_jax.store.checkpoints import fill, read_manifest, subtree
from lth_jax.store.results import TRUNK, RunId
from lth_jax.training.states import TrainState, rewind


def load_ticket(run: str | Path, level: int | None = None, replicate: int | None = None) -> Ticket:
    """The ticket of a level: its mask and the rewound state, as the trunk trained it.

    Args:
      run: a run directory, or a file that `python -m lth_jax export` wrote as safetensors or npz.
      level: the number of prunings behind the ticket; 0 is the dense network. A file has one ticket
        alone, whose level (and replicate) may be left out; if given, it must be that.
      replicate: which replicate's; 0 by default.

    Returns:
      `Ticket(mask, state, step)`: `mask` and `state.params` are nested dicts of the parameters'
      names, `state.opt_state` is the optimizer's of the run's spec, and `step` the rewind step.

    Raises:
      StoreError: there is no such run, level or replicate (says what there is), or it is damaged.
    """
    path = Path(run)
    if path.is_file():
        return _ticket_of_file(path, level, replicate)
    store = RunDirectory.read(path)
    replicate = replicate or 0
    level = _given(store, level)
    arrays = _checked(store, replicate, level_name(level))
    optimizer = optimizer_of(store.spec(), steps_per_epoch=1)  # its state is the same
    point, step = _rewind_point(store, replicate, level, optimizer)
    if level > 0 and store.spec().rewind.kind != "weights":
        point, step = _trained_point(store, replicate, level, point, step)
    mask = mask_of(arrays, point.params)
    return Ticket(mask, rewind(point, mask, optimizer), step)


def load_trained(
    run: str | Path, level: int | None = None, replicate: int | None = None
) -> tuple[PyTree, PyTree]:
    """The trained network of a level, after its last step: (parameters, model state), nested dicts.

    Args and errors as `load_ticket`'s.
    """
    path = Path(run)
    if path.is_file():
        arrays, _ = _read_file(path, level, replicate)
        trained = subtree(arrays, "trained/params"), subtree(arrays, "trained/model_state")
        return to_device(trained)
    store = RunDirectory.read(path)
    arrays = _checked(store, replicate or 0, level_name(_given(store, level)))
    trained = subtree(arrays, "params"), subtree(arrays, "model_state")
    return to_device(trained)


def origin(store: RunDirectory, level: int, replicate: int) -> Origin:
    """Where a ticket of a run comes from, for a file of its own.

    Raises:
      StoreError: as `load_ticket`'s.
    """
    arrays = store.checkpoint(replicate, level_name(level))
    if not arrays.exists():
        raise StoreError(_missing(store, replicate, level_name(level)))
    return Origin(
        record=store.record_of_spec(),
        level=level,
        replicate=replicate,
        row=store.rows.get(RunId(TRUNK, level, replicate, 0)),
        layers={name: tuple(pair) for name, pair in read_manifest(arrays).meta["layers"].items()},
    )


def _ticket_of_file(path: Path, level: int | None, replicate: int | None) -> Ticket:
    arrays, metadata = _read_file(path, level, replicate)
    params = subtree(arrays, "rewound/params")
    optimizer = optimizer_of(spec_of(path, metadata), steps_per_epoch=1)
    opt_state = optimizer.init(to_device(params))
    if metadata["step"]:  # at initialization it is what `init` gives
        opt_state = fill(opt_state, arrays, "rewound/opt_state/")
    state = TrainState(params, subtree(arrays, "rewound/model_state"), opt_state)
    return Ticket(to_device(subtree(arrays, "mask")), to_device(state), metadata["step"])


def _read_file(
    path: Path, level: int | None, replicate: int | None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    arrays, metadata = whole.load(path)
    for name, wanted in {"level": level, "replicate": replicate}.items():
        if wanted not in (None, metadata[name]):
            raise StoreError(f"{path} holds {name} {metadata[name]} alone, not {wanted}")
    return arrays, metadata


def _given(store: RunDirectory, level: int | None) -> int:
    if level is None:
        raise StoreError(f"{store.path} is a run: which level? accepted: {_there_is(store)}")
    return level


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
        raise StoreError(_missing(store, replicate, name))
    return arrays


def _missing(store: RunDirectory, replicate: int, name: str) -> str:
    problem = "; ".join(store.problems) or f"accepted: {_there_is(store)}"
    return f"{store.path} has no {name} of replicate {replicate}: {problem}"


def _there_is(store: RunDirectory) -> str:
    levels: dict[int, list[int]] = {}
    for path in store.path.glob("checkpoints/replicate_*/level_*"):
        replicate, level = (int(part.rsplit("_", 1)[1]) for part in path.parts[-2:])
        levels.setdefault(replicate, []).append(level)
    found = [f"levels {spans(levels[r])} of replicate {r}" for r in sorted(levels)]
    return ", ".join(found) or "nothing yet, no level is finished"
