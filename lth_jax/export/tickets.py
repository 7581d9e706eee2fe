"""Tickets of a finished or running experiment, to be trained or looked at elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lth_jax.errors import StoreError
from lth_jax.export import whole
from lth_jax.export.whole import Origin
from lth_jax.lottery.branches import StartPoint
from lth_jax.lottery.experiment import optimizer_of
from lth_jax.lottery.rewinding import StoredTrunk, missing, there_is
from lth_jax.pruning.trees import PyTree, to_device
from lth_jax.store import RunDirectory, level_name
from lth_jax.store.checkpoints import fill, read_manifest, subtree
from lth_jax.store.record import spec_of
from lth_jax.store.tables import TRUNK, RunId
from lth_jax.training.states import TrainState


def load_ticket(
    run: str | Path, level: int | None = None, replicate: int | None = None
) -> StartPoint:
    """Returns the ticket of a level: its mask and the rewound state, as the trunk trained it.

    Args:
      run: a run directory, or a file that `python -m lth_jax export` wrote as safetensors or npz.
      level: the number of prunings behind the ticket; 0 is the dense network. A file has one ticket
        alone, whose level (and replicate) may be left out; if given, it must be that.
      replicate: which replicate's; 0 by default.

    Returns:
      `StartPoint(mask, state, step)`: `mask` and `state.params` are nested dicts of the parameters'
      names, `state.opt_state` is the optimizer's of the run's spec, and `step` the rewind step.

    Raises:
      StoreError: there is no such run, level or replicate (says what there is), or it is damaged.
    """
    path = Path(run)
    if path.is_file():
        return _ticket_of_file(path, level, replicate)
    trunk, level = _trunk(path, level, replicate)
    return trunk.start(level, trunk.mask(level))


def load_trained(
    run: str | Path, level: int | None = None, replicate: int | None = None
) -> tuple[PyTree, PyTree]:
    """Returns the trained network of a level, after its last step: (parameters, model state).

    Both are nested dicts. Args and errors as `load_ticket`'s.
    """
    path = Path(run)
    if path.is_file():
        arrays, _ = _read_file(path, level, replicate)
        trained = subtree(arrays, "trained/params"), subtree(arrays, "trained/model_state")
        return to_device(trained)
    trunk, level = _trunk(path, level, replicate)
    state = trunk.trained(level)
    return state.params, state.model_state


def origin(store: RunDirectory, level: int, replicate: int) -> Origin:
    """Returns where a ticket of a run comes from, for a file of its own.

    Raises:
      StoreError: as `load_ticket`'s.
    """
    arrays = store.checkpoint(replicate, level_name(level))
    if not arrays.exists():
        raise StoreError(missing(store, replicate, level_name(level)))
    return Origin(
        record=store.record_of_spec(),
        level=level,
        replicate=replicate,
        row=store.rows.get(RunId(TRUNK, level, replicate, 0)),
        layers={name: tuple(pair) for name, pair in read_manifest(arrays).meta["layers"].items()},
    )


def _trunk(path: Path, level: int | None, replicate: int | None) -> tuple[StoredTrunk, int]:
    store = RunDirectory.read(path)
    if level is None:
        raise StoreError(f"{store.path} is a run: which level? accepted: {there_is(store)}")
    replicate = replicate or 0
    if not store.checkpoint(replicate, level_name(level)).exists():
        raise StoreError(missing(store, replicate, level_name(level)))
    # The structure of the optimizer's state does not depend on when a schedule drops.
    optimizer = optimizer_of(store.spec(), steps_per_epoch=1)
    return StoredTrunk(store, store.spec(), replicate, optimizer), level


def _ticket_of_file(path: Path, level: int | None, replicate: int | None) -> StartPoint:
    arrays, metadata = _read_file(path, level, replicate)
    params = subtree(arrays, "rewound/params")
    optimizer = optimizer_of(spec_of(path, metadata), steps_per_epoch=1)
    opt_state = optimizer.init(to_device(params))
    if metadata["step"]:  # at initialization it is what `init` gives
        opt_state = fill(opt_state, arrays, "rewound/opt_state/")
    state = TrainState(params, subtree(arrays, "rewound/model_state"), opt_state)
    return StartPoint(to_device(subtree(arrays, "mask")), to_device(state), metadata["step"])


def _read_file(
    path: Path, level: int | None, replicate: int | None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    arrays, metadata = whole.load(path)
    for name, wanted in {"level": level, "replicate": replicate}.items():
        if wanted not in (None, metadata[name]):
            raise StoreError(f"{path} holds {name} {metadata[name]} alone, not {wanted}")
    return arrays, metadata
