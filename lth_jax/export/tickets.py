"""Tickets of a finished or running experiment, to be trained or looked at elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optax

from lth_jax.config import Spec
from lth_jax.errors import StoreError
from lth_jax.export import containers, whole
from lth_jax.export.whole import Origin
from lth_jax.lottery.custom import recall
from lth_jax.lottery.optimizing import keeps_optimizer_state, optimizer_like
from lth_jax.lottery.paths import stored_network
from lth_jax.lottery.rewinding import StoredTrunk, missing, there_is
from lth_jax.lottery.start_points import StartPoint
from lth_jax.pruning.trees import PyTree, to_device
from lth_jax.store import RunDirectory, checkpoint_name
from lth_jax.store.checkpoints import fill, read_manifest, subtree
from lth_jax.store.record import spec_of
from lth_jax.store.tables import TRUNK, RunId
from lth_jax.training.states import TrainState


def load_ticket(
    run: str | Path,
    level: int | None = None,
    replicate: int | None = None,
    *,
    branch: str = TRUNK,
    draw: int = 0,
    config: str = "",
    trust: bool = False,
) -> StartPoint:
    """Returns the ticket of a level: its mask and the rewound state, as the trunk trained it.

    Of a branch whose networks are kept it is the mask that one ended with, over the same state.

    Args:
      run: a run directory, or a file that `python -m lth_jax export` wrote as safetensors or npz.
      level: the number of prunings behind the ticket; 0 is the dense network. A file has one ticket
        alone, whose level (and replicate) may be left out; if given, it must be that.
      replicate: which replicate's; 0 by default.
      branch, draw: of a run directory, which branch's instead of the ticket's.
      config: a config file with the run's optimizer, where that is a user's own: it is run.
      trust: whether the copy that a run directory keeps of its config may be run instead. By
        default nothing that lies there is run.

    Returns:
      `StartPoint(mask, state, step)`: `mask` and `state.params` are nested dicts of the parameters'
      names, `state.opt_state` is the optimizer's of the run's spec, and `step` the rewind step.

    Raises:
      StoreError: there is no such run, level or replicate (says what there is), or it is damaged.
      SpecError: its optimizer is needed, and neither `config` nor `trust` is given.
    """
    path, spec, record = _opened(Path(run))
    asking = "config=FILE that has it" + ("" if path.is_file() else ", or trust=True")
    recall(path, record, spec, "ticket", config=config, trust=trust, asking=asking)
    if path.is_file():
        return _ticket_of_file(path, level, replicate)
    trunk, network = _network(path, level, replicate, branch, draw, optimizer_like(spec))
    return trunk.start(network.level, trunk.mask_of(network))


def ticket_to_export(run: Path, network: RunId, *, config: str, trust: bool) -> StartPoint:
    """Returns a ticket of a run directory, to be written to a file.

    At initialization a ticket has no optimizer's state of its own: none is in it then, and no code
    is run. Args and errors as `load_ticket`'s.
    """
    _, spec, record = _opened(run)
    optimizer = optax.identity()
    if keeps_optimizer_state(spec):
        recall(run, record, spec, "ticket", config=config, trust=trust)
        optimizer = optimizer_like(spec)
    branch, level, replicate, draw = network
    trunk, _ = _network(run, level, replicate, branch, draw, optimizer)
    return trunk.start(network.level, trunk.mask_of(network))


def load_trained(
    run: str | Path,
    level: int | None = None,
    replicate: int | None = None,
    *,
    branch: str = TRUNK,
    draw: int = 0,
) -> tuple[PyTree, PyTree]:
    """Returns the trained network of a level, after its last step: (parameters, model state).

    Both are nested dicts. Nothing that lies there is run. Args and errors as `load_ticket`'s.
    """
    path = Path(run)
    if path.is_file():
        arrays, _ = _read_file(path, level, replicate)
        trained = subtree(arrays, "trained/params"), subtree(arrays, "trained/model_state")
        return to_device(trained)
    # The optimizer's state is not read.
    trunk, network = _network(path, level, replicate, branch, draw, optax.identity())
    return stored_network(trunk.store, network, (trunk.initial.params, trunk.initial.model_state))


def origin(store: RunDirectory, network: RunId) -> Origin:
    """Returns where a network of a run comes from, for a file of its own.

    Raises:
      StoreError: as `load_ticket`'s.
    """
    arrays = store.checkpoint(network.replicate, checkpoint_name(network))
    if not arrays.exists():
        raise StoreError(missing(store, network.replicate, checkpoint_name(network)))
    return Origin(
        record=store.record_of_spec(),
        network=network,
        row=store.rows.get(network),
        layers={name: tuple(pair) for name, pair in read_manifest(arrays).meta["layers"].items()},
    )


def _opened(path: Path) -> tuple[Path, Spec, Mapping[str, Any]]:
    """Returns the spec and the record of a run directory, or of an exported file."""
    if path.is_file():
        _, record = whole.load(path)
        with containers.understanding(path):
            return path, spec_of(path, record), record
    store = RunDirectory.read(path)
    return path, store.spec(), store.record_of_spec()


def _network(
    path: Path,
    level: int | None,
    replicate: int | None,
    branch: str,
    draw: int,
    optimizer: optax.GradientTransformation,
) -> tuple[StoredTrunk, RunId]:
    """Returns the trunk that a network of a run directory belongs to, and which network it is."""
    store = RunDirectory.read(path)
    if level is None:
        raise StoreError(f"{store.path} is a run: which level? accepted: {there_is(store)}")
    network = RunId(branch, level, replicate or 0, draw)
    if not store.checkpoint(network.replicate, checkpoint_name(network)).exists():
        raise StoreError(missing(store, network.replicate, checkpoint_name(network)))
    return StoredTrunk(store, store.spec(), network.replicate, optimizer), network


def _ticket_of_file(path: Path, level: int | None, replicate: int | None) -> StartPoint:
    arrays, metadata = _read_file(path, level, replicate)
    with containers.understanding(path):
        params = subtree(arrays, "rewound/params")
        opt_state = optimizer_like(spec_of(path, metadata)).init(to_device(params))
        if metadata["step"]:  # at initialization it is what `init` gives
            try:
                opt_state = fill(opt_state, arrays, "rewound/opt_state/")
            except StoreError as error:
                raise StoreError(f"{path}: {error}") from error
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
