"""What training carries: states and examples as pytrees, and how they are made."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Int32, Key, Shaped

from lth_jax.pruning.masks import apply_mask, mask_optimizer_state
from lth_jax.pruning.trees import PyTree


class TrainState(NamedTuple):
    """Everything that training changes: this is what a rewind point holds.

    Attributes:
      params: the parameters.
      model_state: the model's other collections, such as batch statistics.
      opt_state: the optimizer's state.
    """

    params: PyTree
    model_state: PyTree
    opt_state: PyTree


class EarlyStop(NamedTuple):
    """The evaluation with the smallest validation loss so far, and the network that it was of.

    Attributes:
      loss: float32 [], in nats; infinite before the first evaluation.
      accuracy: float32 [], a fraction; of other tasks than classification their metric, which has
        no name of its own in checkpoints.
      step: int32 [], the number of updates behind the network; -1 before the first evaluation.
      params: the network's parameters.
      model_state: its other collections.
    """

    loss: Float[Array, ""]
    accuracy: Float[Array, ""]
    step: Int[Array, ""]
    params: PyTree
    model_state: PyTree


class LoopState(NamedTuple):
    """What the compiled loop carries of one run.

    Attributes:
      state: the training state.
      best: the early stop so far.
      loss_sum: float32 [], the sum of the minibatch losses since the last evaluation.
      permutation: int32 [examples], the order of the examples in the current epoch.
      epoch: int32 [], the epoch that `permutation` is of; -1 for none yet.
      constants: what the form of the parameters needs (`training.parameterization`); it stays the
        same through a run.
    """

    state: TrainState
    best: EarlyStop
    loss_sum: Float[Array, ""]
    permutation: Int32[Array, " examples"]
    epoch: Int[Array, ""]
    constants: PyTree = ()


class Inputs(NamedTuple):
    """What the loop is told of one run, and does not change.

    Attributes:
      mask: bool, of the parameters' structure.
      key: typed key []; the order of the batches, augmentation and dropout are functions of this
        key and of the step alone.
    """

    mask: PyTree
    key: Key[Array, ""]


# A split as a program takes it: `Examples` that lie on the devices, or where they are streamed what
# `training.streamed` has for them.
Placed = Any


class Examples(NamedTuple):
    """A split of the data on the device.

    Attributes:
      inputs: [n, …], as they are stored: uint8 or float images [n, height, width, channels],
        int32 tokens [n, tokens], or floats of any shape.
      targets: int32 labels [n], or int32 or float [n, …].
      valid: bool [n], False for padding, which counts nowhere; None for a split without any.
    """

    inputs: Shaped[Array, "*n ..."]
    targets: Shaped[Array, "*n ..."]
    valid: Bool[Array, "*n"] | None = None


class Evaluation(NamedTuple):
    """The mean loss (nats) and the accuracy (fraction) over a whole split, float32 [].

    Of other tasks than classification, `accuracy` is their metric.
    """

    loss: Float[Array, "*runs"]
    accuracy: Float[Array, "*runs"]


class Sums(NamedTuple):
    """What an evaluation has added up so far.

    Attributes:
      each: the sum of the losses, float32 [], and of what the metric is made of.
      examples: int32 [], over how many.
    """

    each: PyTree
    examples: Int[Array, "*runs"]


def new_loop_state(state: TrainState, examples: int) -> LoopState:
    """Returns what the loop carries of a run that is about to start from `state`.

    Args:
      state: the training state to start from, without an axis of runs.
      examples: the number of training examples.
    """
    return LoopState(
        state,
        EarlyStop(
            # Any finite loss is smaller. A loop's carry keeps its structure, so that there is a
            # network here from the start, if only of zeros.
            jnp.array(jnp.inf, jnp.float32),
            jnp.zeros((), jnp.float32),
            jnp.array(-1, jnp.int32),
            jax.tree.map(jnp.zeros_like, state.params),
            jax.tree.map(jnp.zeros_like, state.model_state),
        ),
        jnp.zeros((), jnp.float32),
        jnp.zeros((examples,), jnp.int32),
        # Of no epoch: the first step draws its order.
        jnp.array(-1, jnp.int32),
    )


def for_gradients(run: LoopState) -> LoopState:
    """Returns of a run, or of runs, what gradients depend on: neither moments nor early stop."""
    return run._replace(state=run.state._replace(opt_state=()), best=(), loss_sum=())


# Compiled once for each `init` and `optimizer` as an object, and jitted, as are the small functions
# below: eagerly, each operation on each shape would be a program of its own.
@partial(jax.jit, static_argnums=(0, 1))
def new_state(
    init: Callable[..., Any],
    optimizer: optax.GradientTransformation,
    key: Key[Array, ""],
    x: Shaped[Array, "1 ..."],
) -> TrainState:
    """Returns a freshly initialized training state.

    Args:
      init: the network's `init(key, x) -> variables`.
      optimizer: the Optax transformation.
      key: typed key [] of the initialization.
      x: an example input, such as float32 [1, height, width, channels].
    """
    variables = dict(init(key, x))
    params = variables.pop("params")
    return TrainState(params, variables, optimizer.init(params))


@partial(jax.jit, static_argnames="optimizer")
def rewind(point: TrainState, mask: PyTree, optimizer: optax.GradientTransformation) -> TrainState:
    """Returns the state that a ticket starts from: the rewind point, pruned weights at zero.

    Survivors, biases, norm parameters and batch statistics are those of the point, bit for bit.
    The optimizer's moments of pruned weights become zero too: a moment that stayed would enter the
    clipping of gradients by their norm.
    """
    return TrainState(
        apply_mask(point.params, mask),
        point.model_state,
        mask_optimizer_state(optimizer, point.opt_state, mask),
    )


@jax.jit
def stack_runs(runs: list[PyTree]) -> PyTree:
    """Returns the pytrees of single runs as one pytree with a leading axis of runs."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *runs)


@jax.jit
def unstack_run(runs: PyTree, index: int) -> PyTree:
    """Returns run `index` of a pytree with a leading axis of runs."""
    # The index is traced: one program for all runs of a group.
    return jax.tree.map(lambda leaf: leaf[index], runs)


def examples_at(examples: Examples, chosen: Int[Array, " n"] | slice) -> Examples:
    """Returns some examples, on the device; the rest may be on the host."""
    if isinstance(examples.targets, jax.Array):
        return Examples(examples.inputs[chosen], examples.targets[chosen])
    host: Any = chosen if isinstance(chosen, slice) else np.asarray(chosen)
    # Images on disk are decoded here.
    return Examples(*(jnp.asarray(np.asarray(array[host])) for array in examples[:2]))


def in_batches(
    inputs: Shaped[np.ndarray, "n ..."],
    targets: Shaped[np.ndarray, "n ..."],
    batch_size: int,
    multiple: int = 1,
) -> Examples:
    """Returns a split for evaluation as [batches, batch, …], the last batch padded with zeros.

    No example is left out and none counts twice: a perfect predictor scores exactly 100%.

    Args:
      inputs, targets: of the split.
      batch_size: how many examples a batch has, at most,
      multiple: but for what it takes to be a multiple of this, the devices that share it.
    """
    size = -(-min(batch_size, len(targets)) // multiple) * multiple
    padding = -len(targets) % size
    valid = np.arange(len(targets) + padding) < len(targets)

    def batches(array: np.ndarray) -> Array:
        whole = np.concatenate([array, np.zeros((padding, *array.shape[1:]), array.dtype)])
        return jnp.asarray(whole.reshape(-1, size, *array.shape[1:]))

    return Examples(batches(inputs), batches(targets), jnp.asarray(valid.reshape(-1, size)))
