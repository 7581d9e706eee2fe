"""What training carries: states, runs and examples as pytrees, and how they are made."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lth_jax.models.base import Model
from lth_jax.native.packing import Packed, Packing
from lth_jax.pruning.masks import apply_mask
from lth_jax.pruning.steps import mask_optimizer_state
from lth_jax.pruning.trees import PyTree, map_named, named_leaves


class TrainState(NamedTuple):
    """Everything that training changes: what a rewind point holds.

    Attributes:
      params: the parameters.
      model_state: the model's other collections, such as batch statistics.
      opt_state: the optimizer's state.
    """

    params: PyTree
    model_state: PyTree
    opt_state: PyTree


class Best(NamedTuple):
    """The evaluation of the smallest validation loss so far (the early stop).

    Attributes:
      loss: float32 [], infinite before the first evaluation.
      accuracy: float32 [], a fraction.
      step: int32 [], the number of updates behind the network.
      params: its parameters.
      model_state: its other collections.
    """

    loss: jax.Array
    accuracy: jax.Array
    step: jax.Array
    params: PyTree
    model_state: PyTree


class Run(NamedTuple):
    """What one training run carries through the loop.

    Attributes:
      state: the training state.
      best: the early stop so far.
      loss_sum: float32 [], the minibatch losses since the last evaluation, summed.
      permutation: int32 [examples], the order of the current epoch.
      epoch: int32 [], the epoch that `permutation` is of; -1 for none yet.
      tables: index tables of the packed kernels by leaf name (`kernels.packing`), which stay the
        same through a run; an empty tuple where nothing is packed.
    """

    state: TrainState
    best: Best
    loss_sum: jax.Array
    permutation: jax.Array
    epoch: jax.Array
    tables: PyTree = ()


class Inputs(NamedTuple):
    """What stays the same through a run.

    Attributes:
      mask: bool, the parameters' structure.
      key: typed key [] of (seed, replicate): batch order and dropout come from it and the step.
    """

    mask: PyTree
    key: jax.Array


class Examples(NamedTuple):
    """A split on the device.

    Attributes:
      images: uint8 or float [n, height, width, channels].
      labels: int32 [n]; -1 marks padding, which counts nowhere.
    """

    images: jax.Array
    labels: jax.Array


class Evaluation(NamedTuple):
    """One evaluation: mean loss (nats) and accuracy (fraction) over a whole split, float32 []."""

    loss: jax.Array
    accuracy: jax.Array


def new_run(state: TrainState, examples: int) -> Run:
    """A run about to start from `state`, without the axis of runs.

    Args:
      state: the training state to start from.
      examples: the number of training examples.
    """
    best = Best(
        jnp.array(jnp.inf, jnp.float32),
        jnp.zeros((), jnp.float32),
        jnp.array(-1, jnp.int32),
        jax.tree.map(jnp.zeros_like, state.params),
        jax.tree.map(jnp.zeros_like, state.model_state),
    )
    return Run(
        state,
        best,
        jnp.zeros((), jnp.float32),
        jnp.zeros((examples,), jnp.int32),
        jnp.array(-1, jnp.int32),
    )


@partial(jax.jit, static_argnums=(0, 1))
def new_state(
    model: Model, optimizer: optax.GradientTransformation, key: jax.Array, x: jax.Array
) -> TrainState:
    """A freshly initialized training state.

    Args:
      model: the network.
      optimizer: the Optax transformation.
      key: typed key [] of the initialization.
      x: an example input, float [1, height, width, channels].
    """
    variables = dict(model.init(key, x))
    params = variables.pop("params")
    return TrainState(params, variables, optimizer.init(params))


@partial(jax.jit, static_argnames="optimizer")
def rewind(point: TrainState, mask: PyTree, optimizer: optax.GradientTransformation) -> TrainState:
    """The state that a ticket starts from: the rewind point, pruned weights at zero.

    Survivors, biases, norm parameters and batch statistics are the point's own, bit for bit; the
    optimizer's moments of pruned weights are zero too.
    """
    return TrainState(
        apply_mask(point.params, mask),
        point.model_state,
        mask_optimizer_state(optimizer, point.opt_state, mask),
    )


def pack_run(run: Run, packing: Packing, optimizer: optax.GradientTransformation) -> Run:
    """A run with its kernels packed: parameters, best parameters and the optimizer's moments."""
    return _repacked(run, packing, optimizer, Packed.pack)._replace(tables=packing.tables)


def unpack_run(run: Run, packing: Packing, optimizer: optax.GradientTransformation) -> Run:
    """The inverse of `pack_run`."""
    return _repacked(run, packing, optimizer, Packed.unpack)._replace(tables=())


def _repacked(run: Run, packing: Packing, optimizer: Any, function: Callable[..., Any]) -> Run:
    if not packing:
        return run

    def leaf(value: Any, name: str) -> Any:
        return packing.leaf(function, name, value)

    names = map_named(lambda name, _: name, run.state.params)
    state = run.state._replace(
        params=jax.tree.map(leaf, run.state.params, names),
        opt_state=optax.tree_map_params(optimizer, leaf, run.state.opt_state, names),
    )
    best = run.best._replace(params=jax.tree.map(leaf, run.best.params, names))
    return run._replace(state=state, best=best)


def zero_where_pruned(
    optimizer: optax.GradientTransformation, state: TrainState, mask: PyTree
) -> Callable[[str], bool]:
    """Says of a leaf by its name whether it and its moments are +0.0 wherever `mask` is False."""
    masks = {name: np.asarray(leaf) for name, leaf in named_leaves(mask).items()}

    @cache
    def is_zero(name: str) -> bool:
        found: list[bool] = []

        def look(leaf: Any, leaf_name: str) -> Any:
            if leaf_name == name:
                pruned = np.asarray(leaf)[~masks[name]]
                found.append(not np.any(pruned) and not np.any(np.signbit(pruned)))
            return leaf

        names = map_named(lambda leaf_name, _: leaf_name, state.params)
        jax.tree.map(look, state.params, names)
        optax.tree_map_params(optimizer, look, state.opt_state, names)
        return all(found)

    return is_zero


@jax.jit
def stack_runs(runs: list[PyTree]) -> PyTree:
    """Pytrees of single runs as one with a leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *runs)


@jax.jit
def unstack_run(runs: PyTree, index: int) -> PyTree:
    """Run `index` of a pytree with a leading axis of runs."""
    return jax.tree.map(lambda leaf: leaf[index], runs)


def in_batches(images: np.ndarray, labels: np.ndarray, batch_size: int) -> Examples:
    """A split for evaluation: [batches, batch, …], the last one padded with label -1.

    No example is dropped, and none counts twice.
    """
    size = min(batch_size, len(labels))
    padding = -len(labels) % size
    images = np.concatenate([images, np.zeros((padding, *images.shape[1:]), images.dtype)])
    labels = np.concatenate([labels.astype(np.int32), np.full(padding, -1, np.int32)])
    return Examples(
        jnp.asarray(images.reshape(-1, size, *images.shape[1:])),
        jnp.asarray(labels.reshape(-1, size)),
    )
