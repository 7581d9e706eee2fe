"""Training: the compiled loop over steps, its evaluation, and the state they carry.

One program trains any run of an experiment: masks, starting points and keys are arguments, and
the loop's bounds are traced, so no level, branch or chunk compiles anything again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lth_jax.models.base import Model
from lth_jax.pruning.masks import apply_mask
from lth_jax.pruning.steps import mask_optimizer_state, masked_step
from lth_jax.trees import PyTree


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
    """

    state: TrainState
    best: Best
    loss_sum: jax.Array
    permutation: jax.Array
    epoch: jax.Array


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


def map_runs(function: Callable[..., Any], group_size: int, shared: int) -> Callable[..., Any]:
    """`function` of one run, over a leading axis of `group_size` runs.

    A group of one calls `function` itself, so that its bits do not depend on a batch axis;
    larger groups are `vmap`ped. The last `shared` arguments have no axis of runs.

    Args:
      function: takes per-run arguments, then `shared` arguments common to all runs.
      group_size: length of the leading axis of the per-run arguments and results.
      shared: number of trailing arguments without that axis.
    """

    def sequential(*args):
        runs, common = args[: len(args) - shared], args[len(args) - shared :]
        single = jax.tree.map(lambda leaf: leaf[0], runs)
        return jax.tree.map(lambda leaf: leaf[None], function(*single, *common))

    def vmapped(*args):
        axes = (0,) * (len(args) - shared) + (None,) * shared
        return jax.vmap(function, in_axes=axes)(*args)

    return sequential if group_size == 1 else vmapped


class Program:
    """The compiled program of an experiment, for groups of `group_size` runs.

    Args:
      model: the network.
      optimizer: the Optax transformation.
      batch_size: examples in a training step.
      scale: what images are multiplied with (in float32) before the model sees them.
      group_size: runs in a group; see `map_runs`.

    All methods take and give pytrees with a leading axis of runs. Runs given to `train` and
    `evaluate` are donated: use only what comes back.
    """

    def __init__(
        self,
        model: Model,
        optimizer: optax.GradientTransformation,
        *,
        batch_size: int,
        scale: float,
        group_size: int = 1,
    ):
        self.model, self.optimizer = model, optimizer
        self.batch_size, self.scale, self.group_size = batch_size, scale, group_size
        self._compiled: dict[Any, Callable[..., Any]] = {}

    def train(self, run: Run, inputs: Inputs, examples: Examples, start: int, stop: int) -> Run:
        """The runs after updates `start` to `stop` (counted from 0 at initialization)."""
        bounds = np.int32(start), np.int32(stop)
        return self._call("train", self._train, 3, run, inputs, examples, *bounds)

    def evaluate(
        self, run: Run, examples: Examples, step: int, updates: int
    ) -> tuple[Run, Evaluation, jax.Array]:
        """An evaluation on the validation split after `step`, which may become the early stop.

        Returns:
          The runs; their loss and accuracy, each float32 [runs]; and the mean minibatch loss of
          the `updates` steps since the last evaluation, float32 [runs] (NaN for none).
        """
        counts = np.int32(step), np.int32(updates)
        return self._call("evaluate", self._evaluate, 3, run, examples, *counts)

    def test(self, run: Run, examples: Examples) -> tuple[Evaluation, Evaluation]:
        """The early stop and the last network on a split, values float32 [runs]."""
        return self._call("test", self._test, 1, run, examples)

    def compile(
        self, run: Run, inputs: Inputs, train: Examples, validation: Examples, test: Examples
    ) -> None:
        """Compiles all three functions for these shapes, where that has not happened yet."""
        zero = np.int32(0)
        self._executable("train", self._train, 3, (run, inputs, train, zero, zero))
        self._executable("evaluate", self._evaluate, 3, (run, validation, zero, zero))
        self._executable("test", self._test, 1, (run, test))

    def _call(self, name: str, function: Callable[..., Any], shared: int, *args: Any) -> Any:
        return self._executable(name, function, shared, args)(*args)

    def _executable(
        self, name: str, function: Callable[..., Any], shared: int, args: tuple[Any, ...]
    ) -> Callable[..., Any]:
        """Ahead-of-time compiled, so that compilation never hides in a timed call."""
        if name not in self._compiled:
            donated = (0,) if name != "test" else ()
            mapped = jax.jit(map_runs(function, self.group_size, shared), donate_argnums=donated)
            self._compiled[name] = mapped.lower(*args).compile()
        return self._compiled[name]

    def _images(self, images: jax.Array) -> jax.Array:
        return images.astype(jnp.float32) * self.scale

    def _train(
        self, run: Run, inputs: Inputs, examples: Examples, start: jax.Array, stop: jax.Array
    ) -> Run:
        """Whole epochs in an outer loop, each with its permutation; steps in an inner one.

        `fori_loop` with traced bounds: its bits do not depend on where chunks begin and end, as
        those of a `scan` do.
        """
        count = examples.labels.shape[0]
        steps_per_epoch = count // self.batch_size
        order_key = jax.random.fold_in(inputs.key, 0)

        def train_epoch(carry):
            step, run = carry
            epoch = step // steps_per_epoch
            permutation = jax.lax.cond(
                run.epoch == epoch,
                lambda: run.permutation,
                lambda: epoch_order(order_key, epoch, count),
            )
            end = jnp.minimum(stop, (epoch + 1) * steps_per_epoch)

            def train_step(step, carry):
                state, loss_sum = carry
                offset = (step - epoch * steps_per_epoch) * self.batch_size
                batch = jax.lax.dynamic_slice(permutation, (offset,), (self.batch_size,))
                state, loss = self._step(
                    state, inputs, step, Examples(examples.images[batch], examples.labels[batch])
                )
                return state, loss_sum + loss

            state, loss_sum = jax.lax.fori_loop(step, end, train_step, (run.state, run.loss_sum))
            return end, run._replace(
                state=state, loss_sum=loss_sum, permutation=permutation, epoch=epoch
            )

        _, run = jax.lax.while_loop(lambda carry: carry[0] < stop, train_epoch, (start, run))
        return run

    def _step(
        self, state: TrainState, inputs: Inputs, step: jax.Array, batch: Examples
    ) -> tuple[TrainState, jax.Array]:
        """One masked update, and the minibatch loss before it."""
        rngs = {"dropout": jax.random.fold_in(jax.random.fold_in(inputs.key, 1), step)}

        def loss_of(params):
            variables = {"params": params, **state.model_state}
            logits, model_state = self.model.apply(
                variables, self._images(batch.images), True, rngs
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
            return jnp.mean(losses), model_state

        (loss, model_state), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        params, opt_state = masked_step(
            self.optimizer, grads, state.opt_state, state.params, inputs.mask
        )
        return TrainState(params, model_state, opt_state), loss

    def _measure(self, params: PyTree, model_state: PyTree, examples: Examples) -> Evaluation:
        """Loss and accuracy over [batches, batch, …] examples; padding counts nowhere."""

        def add_batch(index, totals):
            images, labels = examples.images[index], examples.labels[index]
            logits, _ = self.model.apply(
                {"params": params, **model_state}, self._images(images), False, {}
            )
            valid = labels >= 0
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels * valid)
            correct = valid & (jnp.argmax(logits, -1) == labels)
            loss, hits = totals
            return loss + jnp.sum(jnp.where(valid, losses, 0)), hits + jnp.sum(correct)

        zero = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)
        loss, hits = jax.lax.fori_loop(0, examples.labels.shape[0], add_batch, zero)
        total = jnp.sum(examples.labels >= 0)
        return Evaluation(loss / total, hits / total)

    def _evaluate(
        self, run: Run, examples: Examples, step: jax.Array, updates: jax.Array
    ) -> tuple[Run, Evaluation, jax.Array]:
        state = run.state
        result = self._measure(state.params, state.model_state, examples)
        now = Best(result.loss, result.accuracy, step, state.params, state.model_state)
        # Strictly smaller: the earliest of equals stays. NaN compares False; infinity is no less.
        better = result.loss < run.best.loss
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), now, run.best)
        train_loss = run.loss_sum / updates
        return run._replace(best=best, loss_sum=jnp.zeros_like(run.loss_sum)), result, train_loss

    def _test(self, run: Run, examples: Examples) -> tuple[Evaluation, Evaluation]:
        best, last = run.best, run.state
        return (
            self._measure(best.params, best.model_state, examples),
            self._measure(last.params, last.model_state, examples),
        )


def epoch_order(key: jax.Array, epoch: jax.Array, count: int) -> jax.Array:
    """A fresh permutation of `count` examples for an epoch, int32 [count]."""
    return jax.random.permutation(jax.random.fold_in(key, epoch), count).astype(jnp.int32)


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
