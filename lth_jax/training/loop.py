"""Training: the compiled loop over steps and its evaluation.

One program trains any run of an experiment: masks, starting points and keys are arguments, and
the loop's bounds are traced, so no level, branch or chunk compiles anything again.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lth_jax.models.base import Model
from lth_jax.native.choice import XLA, Kernels
from lth_jax.native.serving import packed_layers
from lth_jax.pruning.steps import masked_step
from lth_jax.pruning.trees import PyTree
from lth_jax.training.pixels import Pixels
from lth_jax.training.states import Best, Evaluation, Examples, Inputs, Run, TrainState


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
      pixels: how stored images become what the model sees, in training and in evaluation.
      label_smoothing: of the training loss (Szegedy et al. 2016): the share of the target that is
        spread over all classes.
      group_size: runs in a group; see `map_runs`.
      kernels: what computes the network's layers.

    All methods take and give pytrees with a leading axis of runs. Runs given to `train` and
    `evaluate` are donated: use only what comes back.
    """

    def __init__(
        self,
        model: Model,
        optimizer: optax.GradientTransformation,
        *,
        batch_size: int,
        pixels: Pixels,
        label_smoothing: float = 0.0,
        group_size: int = 1,
        kernels: Kernels = XLA,
    ):
        self.kernels = kernels
        self.model, self.optimizer = model, optimizer
        self.batch_size, self.pixels, self.group_size = batch_size, pixels, group_size
        self.label_smoothing = label_smoothing
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
        """Compiles all three functions for these shapes, where that has not happened yet.

        Side by side: XLA compiles each on one core.
        """
        zero = np.int32(0)
        calls = (
            ("train", self._train, 3, (run, inputs, train, zero, zero)),
            ("evaluate", self._evaluate, 3, (run, validation, zero, zero)),
            ("test", self._test, 1, (run, test)),
        )
        lowered = {
            _key(name, args[0]): self._lowered(name, function, shared, args)
            for name, function, shared, args in calls
            if _key(name, args[0]) not in self._compiled
        }
        with ThreadPoolExecutor(len(calls)) as pool:
            compiled = pool.map(lambda program: program.compile(), lowered.values())
            self._compiled.update(zip(lowered, compiled, strict=True))

    def _call(self, name: str, function: Callable[..., Any], shared: int, *args: Any) -> Any:
        """Calls what was compiled ahead: no timed call hides a compilation."""
        key = _key(name, args[0])
        if key not in self._compiled:
            self._compiled[key] = self._lowered(name, function, shared, args).compile()
        return self._compiled[key](*args)

    def _lowered(
        self, name: str, function: Callable[..., Any], shared: int, args: tuple[Any, ...]
    ) -> jax.stages.Lowered:
        donated = (0,) if name != "test" else ()
        mapped = jax.jit(map_runs(function, self.group_size, shared), donate_argnums=donated)
        with self.kernels.tracing():
            return mapped.lower(*args)

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
                chosen = Examples(examples.images[batch], examples.labels[batch])
                state, loss = self._step(state, inputs, step, chosen, run.tables)
                return state, loss_sum + loss

            state, loss_sum = jax.lax.fori_loop(step, end, train_step, (run.state, run.loss_sum))
            return end, run._replace(
                state=state, loss_sum=loss_sum, permutation=permutation, epoch=epoch
            )

        _, run = jax.lax.while_loop(lambda carry: carry[0] < stop, train_epoch, (start, run))
        return run

    def _step(
        self,
        state: TrainState,
        inputs: Inputs,
        step: jax.Array,
        batch: Examples,
        tables: PyTree = (),
    ) -> tuple[TrainState, jax.Array]:
        """One masked update, and the minibatch loss before it."""
        rngs = {"dropout": jax.random.fold_in(jax.random.fold_in(inputs.key, 1), step)}
        key = jax.random.fold_in(jax.random.fold_in(inputs.key, 2), step)
        images = self.pixels.prepared(self.pixels.augmented(batch.images, key))

        def loss_of(params):
            variables = {"params": params, **state.model_state}
            with packed_layers(tables):
                logits, model_state = self.model.apply(variables, images, True, rngs)
            return jnp.mean(self._losses(logits, batch.labels)), model_state

        (loss, model_state), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        params, opt_state = masked_step(
            self.optimizer, grads, state.opt_state, state.params, inputs.mask
        )
        return TrainState(params, model_state, opt_state), loss

    def _losses(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """The training losses, float32 [batch]."""
        if not self.label_smoothing:
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        targets = jax.nn.one_hot(labels, logits.shape[-1])
        targets = optax.smooth_labels(targets, self.label_smoothing)
        return optax.softmax_cross_entropy(logits, targets)

    def _measure(
        self, params: PyTree, model_state: PyTree, examples: Examples, tables: PyTree = ()
    ) -> Evaluation:
        """Loss and accuracy over [batches, batch, …] examples; padding counts nowhere."""

        def add_batch(index, totals):
            images, labels = examples.images[index], examples.labels[index]
            with packed_layers(tables):
                logits, _ = self.model.apply(
                    {"params": params, **model_state}, self.pixels.prepared(images), False, {}
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
        result = self._measure(state.params, state.model_state, examples, run.tables)
        now = Best(result.loss, result.accuracy, step, state.params, state.model_state)
        # Strictly smaller: the earliest of equals stays. NaN compares False; infinity is no less.
        better = result.loss < run.best.loss
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), now, run.best)
        train_loss = run.loss_sum / updates
        return run._replace(best=best, loss_sum=jnp.zeros_like(run.loss_sum)), result, train_loss

    def _test(self, run: Run, examples: Examples) -> tuple[Evaluation, Evaluation]:
        best, last = run.best, run.state
        return (
            self._measure(best.params, best.model_state, examples, run.tables),
            self._measure(last.params, last.model_state, examples, run.tables),
        )


def _key(name: str, run: Run) -> tuple[Any, ...]:
    """What tells apart the programs for runs that are packed differently."""
    tables = run.tables
    return name, jax.tree.structure(tables), tuple(map(jnp.shape, jax.tree.leaves(tables)))


def epoch_order(key: jax.Array, epoch: jax.Array, count: int) -> jax.Array:
    """A fresh permutation of `count` examples for an epoch, int32 [count]."""
    return jax.random.permutation(jax.random.fold_in(key, epoch), count).astype(jnp.int32)
