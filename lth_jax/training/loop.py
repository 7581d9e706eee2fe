"""The compiled training loop, and its evaluations.

One program trains every run of an experiment. Masks, starting points and keys are its arguments,
and the bounds of the loop are traced, so that no level, branch or chunk compiles anything again.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Int32, Key

from lth_jax.pruning.masks import masked_step
from lth_jax.pruning.trees import PyTree
from lth_jax.training.parameterization import Apply
from lth_jax.training.pixels import Pixels
from lth_jax.training.states import (
    EarlyStop,
    Evaluation,
    Examples,
    Inputs,
    LoopState,
    TrainState,
)


def map_runs(function: Callable[..., Any], group_size: int, shared: int) -> Callable[..., Any]:
    """Returns `function`, which is of one run, over a leading axis of `group_size` runs.

    A group of one calls `function` itself: under `vmap` XLA would choose other kernels for a batch
    axis of one, and a run's bits would depend on how it was grouped. Larger groups are `vmap`ped.

    Args:
      function: takes arguments of one run, then `shared` arguments that all runs have in common.
      group_size: the length of the leading axis of the runs' arguments and results.
      shared: the number of trailing arguments without that axis.
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

    All methods take and give pytrees with a leading axis of runs. States given to `train` and
    `evaluate` are donated, so that no second copy of them is in memory: use only what comes back.

    Args:
      apply: the network, for parameters in the form that the runs have them in.
      optimizer: the Optax transformation.
      batch_size: the number of examples in a training step.
      pixels: how stored images become what the network sees, in training and in evaluation.
      label_smoothing: the share of the training loss's target that is spread over all classes
        (Szegedy et al. 2016, §7).
      group_size: the number of runs in a group; see `map_runs`.
    """

    def __init__(
        self,
        apply: Apply,
        optimizer: optax.GradientTransformation,
        *,
        batch_size: int,
        pixels: Pixels,
        label_smoothing: float = 0.0,
        group_size: int = 1,
    ):
        self.apply, self.optimizer = apply, optimizer
        self.batch_size, self.pixels, self.group_size = batch_size, pixels, group_size
        self.label_smoothing = label_smoothing
        self._compiled: dict[Any, Callable[..., Any]] = {}

    def train(
        self, run: LoopState, inputs: Inputs, examples: Examples, start: int, stop: int
    ) -> LoopState:
        """Returns the runs after updates `start` to `stop`, counted from 0 at initialization."""
        bounds = np.int32(start), np.int32(stop)
        return self._call("train", self._train, 3, run, inputs, examples, *bounds)

    def evaluate(
        self, run: LoopState, examples: Examples, step: int, updates: int
    ) -> tuple[LoopState, Evaluation, Float[Array, " runs"]]:
        """Evaluates the networks on the validation split; each may become its run's early stop.

        Args:
          run: the runs after `step` updates.
          examples: the validation split, in batches.
          step: the number of updates behind the networks.
          updates: the number of updates since the last evaluation.

        Returns:
          The runs; their loss and accuracy, each float32 [runs]; and the mean minibatch loss of the
          `updates` steps, float32 [runs] (NaN for none).
        """
        counts = np.int32(step), np.int32(updates)
        return self._call("evaluate", self._evaluate, 3, run, examples, *counts)

    def test(self, run: LoopState, examples: Examples) -> tuple[Evaluation, Evaluation]:
        """Evaluates the networks of the early stop, and the last ones; values float32 [runs]."""
        return self._call("test", self._test, 1, run, examples)

    def compile(
        self, run: LoopState, inputs: Inputs, train: Examples, validation: Examples, test: Examples
    ) -> None:
        """Compiles the three functions for these shapes where that has not happened yet.

        They are compiled side by side, since XLA compiles each on one core.
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
        """Calls what was compiled ahead, so that no call that is timed hides a compilation."""
        key = _key(name, args[0])
        if key not in self._compiled:
            self._compiled[key] = self._lowered(name, function, shared, args).compile()
        return self._compiled[key](*args)

    def _lowered(
        self, name: str, function: Callable[..., Any], shared: int, args: tuple[Any, ...]
    ) -> jax.stages.Lowered:
        donated = (0,) if name != "test" else ()
        mapped = map_runs(function, self.group_size, shared)
        return jax.jit(mapped, donate_argnums=donated).lower(*args)

    def _train(
        self,
        run: LoopState,
        inputs: Inputs,
        examples: Examples,
        start: Int[Array, ""],
        stop: Int[Array, ""],
    ) -> LoopState:
        """Trains whole epochs in an outer loop, each with its permutation; steps in an inner one.

        The loops are `fori_loop`s with traced bounds, not `scan`s over a chunk: a scan of length 1
        is inlined by XLA and gives other bits than one of length 100, and each length is compiled
        anew. So bits do not depend on where chunks begin and end, and one program serves all.
        """
        count = examples.labels.shape[0]
        steps_per_epoch = count // self.batch_size
        order_key = jax.random.fold_in(inputs.key, 0)

        def train_epoch(carry):
            step, run = carry
            epoch = step // steps_per_epoch
            # To draw 55,000 numbers in order takes as long as 10 to 30 steps of LeNet. The order is
            # kept from step to step, and drawn anew where an epoch begins or a run is resumed.
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
                state, loss = self._step(state, inputs, step, chosen, run.constants)
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
        step: Int[Array, ""],
        batch: Examples,
        constants: PyTree = (),
    ) -> tuple[TrainState, Float[Array, ""]]:
        """Does one masked update; returns the new state, and the minibatch loss before it."""
        # Functions of key and step alone, never of a state that is carried: a run that is resumed,
        # and a ticket beside its dense network, drop and move the same.
        rngs = {"dropout": jax.random.fold_in(jax.random.fold_in(inputs.key, 1), step)}
        key = jax.random.fold_in(jax.random.fold_in(inputs.key, 2), step)
        images = self.pixels.prepared(self.pixels.augmented(batch.images, key))

        def loss_of(params):
            variables = {"params": params, **state.model_state}
            logits, model_state = self.apply(constants, variables, images, True, rngs)
            return jnp.mean(self._losses(logits, batch.labels)), model_state

        (loss, model_state), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        params, opt_state = masked_step(
            self.optimizer, grads, state.opt_state, state.params, inputs.mask
        )
        return TrainState(params, model_state, opt_state), loss

    def _losses(
        self, logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]
    ) -> Float[Array, " batch"]:
        """Returns the training loss of each example."""
        if not self.label_smoothing:
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        targets = jax.nn.one_hot(labels, logits.shape[-1])
        targets = optax.smooth_labels(targets, self.label_smoothing)
        return optax.softmax_cross_entropy(logits, targets)

    def _measure(
        self, params: PyTree, model_state: PyTree, examples: Examples, constants: PyTree = ()
    ) -> Evaluation:
        """Returns loss and accuracy over [batches, batch, …] examples; padding counts nowhere."""

        def add_batch(index, totals):
            images, labels = examples.images[index], examples.labels[index]
            variables = {"params": params, **model_state}
            logits, _ = self.apply(constants, variables, self.pixels.prepared(images), False, {})
            valid = labels >= 0
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels * valid)
            correct = valid & (jnp.argmax(logits, -1) == labels)
            loss, hits = totals
            # Selected, not multiplied: what the network says of padding may be NaN.
            return loss + jnp.sum(jnp.where(valid, losses, 0)), hits + jnp.sum(correct)

        zero = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)
        loss, hits = jax.lax.fori_loop(0, examples.labels.shape[0], add_batch, zero)
        total = jnp.sum(examples.labels >= 0)
        return Evaluation(loss / total, hits / total)

    def _evaluate(
        self, run: LoopState, examples: Examples, step: Int[Array, ""], updates: Int[Array, ""]
    ) -> tuple[LoopState, Evaluation, Float[Array, ""]]:
        state = run.state
        result = self._measure(state.params, state.model_state, examples, run.constants)
        now = EarlyStop(result.loss, result.accuracy, step, state.params, state.model_state)
        # Strictly smaller: the earliest of equals stays. NaN compares False; infinity is no less.
        # The network is kept in the carry, so that the test split is looked at once, at the end.
        better = result.loss < run.best.loss
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), now, run.best)
        train_loss = run.loss_sum / updates
        return run._replace(best=best, loss_sum=jnp.zeros_like(run.loss_sum)), result, train_loss

    def _test(self, run: LoopState, examples: Examples) -> tuple[Evaluation, Evaluation]:
        best, last = run.best, run.state
        return (
            self._measure(best.params, best.model_state, examples, run.constants),
            self._measure(last.params, last.model_state, examples, run.constants),
        )


def _key(name: str, run: LoopState) -> tuple[Any, ...]:
    """Returns what tells apart the programs for runs whose parameters are in different forms."""
    constants = run.constants
    return name, jax.tree.structure(constants), tuple(map(jnp.shape, jax.tree.leaves(constants)))


def epoch_order(
    key: Key[Array, ""], epoch: Int[Array, ""] | int, count: int
) -> Int32[Array, " examples"]:
    """Returns the order of `count` examples in an epoch: a fresh permutation, int32 [count]."""
    return jax.random.permutation(jax.random.fold_in(key, epoch), count).astype(jnp.int32)
