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

from lth_jax.pruning.trees import PyTree
from lth_jax.training.devices import ONE_DEVICE, RunDevices
from lth_jax.training.operations import FusedNetwork, Operations
from lth_jax.training.parameterization import Apply, at_step
from lth_jax.training.pixels import Pixels
from lth_jax.training.states import (
    EarlyStop,
    Evaluation,
    Examples,
    Inputs,
    LoopState,
    TrainState,
)
from lth_jax.training.tasks import CLASSIFICATION, Objective


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
      objective: what is trained on and measured; by default that of classification.
      group_size: the number of runs in a group, over all devices; see `map_runs`.
      devices: what the axis of runs is spread over.
      block: how many steps stand one after the other in the loop's body. Whether it goes on is
        known on the device and asked by the host, on GPUs once in each turn of it.
      operations: what the loop calls for all but the network.
      fused: what computes the whole network's loss and gradients in one call, for the runs that it
        takes; the loss must be the mean cross-entropy.
    """

    def __init__(
        self,
        apply: Apply,
        optimizer: optax.GradientTransformation,
        *,
        batch_size: int,
        pixels: Pixels,
        objective: Objective = CLASSIFICATION,
        group_size: int = 1,
        devices: RunDevices = ONE_DEVICE,
        block: int = 1,
        operations: Operations | None = None,
        fused: FusedNetwork | None = None,
    ):
        self.apply, self.optimizer = apply, optimizer
        self.operations, self.fused = operations or Operations(), fused
        self.batch_size, self.pixels, self.group_size = batch_size, pixels, group_size
        self.objective, self.devices, self.block = objective, devices, block
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
          The runs; their loss and metric, each float32 [runs]; and the mean minibatch loss of the
          `updates` steps, float32 [runs] (0 for none).
        """
        counts = np.int32(step), np.int32(updates)
        return self._call("evaluate", self._evaluate, 3, run, examples, *counts)

    def test(self, run: LoopState, examples: Examples) -> tuple[Evaluation, Evaluation]:
        """Evaluates the networks of the early stop, and the last ones; values float32 [runs]."""
        return self._call("test", self._test, 1, run, examples)

    def gradients(
        self, run: LoopState, keys: Key[Array, " runs"], examples: Examples, step: int
    ) -> PyTree:
        """Returns the loss's gradients of the batch that update `step` takes, for all weights.

        Rules that move masks look at those of pruned weights. Nothing is changed or donated.

        Args:
          run: the runs after `step` updates, their parameters dense, as `for_gradients` gives them.
          keys: typed keys [runs], those of `Inputs`.
          examples: the training examples.
          step: the number of updates behind the networks.
        """
        return self._call("gradients", self._gradients, 2, run, keys, examples, np.int32(step))

    def compile_gradients(
        self, run: LoopState, keys: Key[Array, " runs"], examples: Examples
    ) -> None:
        """Compiles `gradients` for these shapes where that has not happened yet."""
        args = run, keys, examples, np.int32(0)
        key = _key("gradients", run)
        if key not in self._compiled:
            lowered = self._lowered("gradients", self._gradients, 2, args)
            self._compiled[key] = lowered.compile()

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
        # Traced one after the other: that is Python's work, which threads would not make faster.
        lowered = {
            _key(name, args[0]): self._lowered(name, function, shared, args)
            for name, function, shared, args in calls
            if _key(name, args[0]) not in self._compiled
        }
        with ThreadPoolExecutor(len(calls)) as pool:
            compiled = pool.map(lambda program: program.compile(), lowered.values())
            self._compiled.update(zip(lowered, compiled, strict=True))

    def is_compiled(self, run: LoopState, *names: str) -> bool:
        """Returns whether the functions of these names, by default the three, are compiled."""
        names = names or ("train", "evaluate", "test")
        return all(_key(name, run) in self._compiled for name in names)

    def _call(self, name: str, function: Callable[..., Any], shared: int, *args: Any) -> Any:
        """Calls what was compiled ahead, so that no call that is timed hides a compilation."""
        key = _key(name, args[0])
        if key not in self._compiled:
            self._compiled[key] = self._lowered(name, function, shared, args).compile()
        return self._compiled[key](*self._on_devices(args))

    def _on_devices(self, args: tuple[Any, ...]) -> list[Any]:
        """Returns arguments with the examples on every device; runs are there already."""
        return [self.devices.copies(arg) if isinstance(arg, Examples) else arg for arg in args]

    def _lowered(
        self, name: str, function: Callable[..., Any], shared: int, args: tuple[Any, ...]
    ) -> jax.stages.Lowered:
        # What `test` and `gradients` look at is used afterwards.
        donated = (0,) if name in ("train", "evaluate") else ()
        mapped = map_runs(function, self.group_size // self.devices.count, shared)
        on_all = self.devices.map(mapped, shared)
        return jax.jit(on_all, donate_argnums=donated).lower(*self._on_devices(args))

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
        # The rest that fills no batch is left out: another one in each epoch.
        count = examples.targets.shape[0]
        steps_per_epoch = count // self.batch_size
        # 0 is the stream of the order; 1 and 2, in `_seen`, are those of dropout and augmentation.
        # Other numbers would be other experiments.
        order_key = jax.random.fold_in(inputs.key, 0)

        def train_epoch(carry):
            step, run = carry
            epoch = step // steps_per_epoch
            # To draw 55,000 numbers in order takes as long as 10 to 30 steps of LeNet. The order is
            # kept from step to step, and drawn anew where an epoch begins or a run is resumed.
            permutation = self._order(run, order_key, epoch, count)
            # A chunk may begin and end anywhere in an epoch.
            end = jnp.minimum(stop, (epoch + 1) * steps_per_epoch)

            def train_step(step, carry):
                state, loss_sum = carry
                chosen = self._batch(examples, permutation, step - epoch * steps_per_epoch)
                state, loss = self._step(state, inputs, step, chosen, run.constants)
                return state, loss_sum + loss

            state, loss_sum = self._steps(step, end, train_step, (run.state, run.loss_sum))
            return end, run._replace(
                state=state, loss_sum=loss_sum, permutation=permutation, epoch=epoch
            )

        _, run = jax.lax.while_loop(lambda carry: carry[0] < stop, train_epoch, (start, run))
        return run

    def _steps(
        self,
        start: Int[Array, ""],
        stop: Int[Array, ""],
        train_step: Callable[[Any, Any], Any],
        carry: Any,
    ) -> Any:
        """Returns the carry after `train_step` of each step: in blocks, then one by one."""
        if self.block == 1:
            return jax.lax.fori_loop(start, stop, train_step, carry)
        blocks = (stop - start) // self.block

        def train_block(number, carry):
            for index in range(self.block):
                carry = train_step(start + number * self.block + index, carry)
            return carry

        carry = jax.lax.fori_loop(0, blocks, train_block, carry)
        return jax.lax.fori_loop(start + blocks * self.block, stop, train_step, carry)

    def _gradients(
        self, run: LoopState, key: Key[Array, ""], examples: Examples, step: Int[Array, ""]
    ) -> PyTree:
        count = examples.targets.shape[0]
        steps_per_epoch = count // self.batch_size
        epoch = step // steps_per_epoch
        permutation = self._order(run, jax.random.fold_in(key, 0), epoch, count)
        batch = self._batch(examples, permutation, step - epoch * steps_per_epoch)
        stored, rngs = self._seen(key, step, batch)
        _, _, grads = self._loss_and_gradients(run.state, run.constants, stored, rngs)
        return grads

    def _order(
        self, run: LoopState, key: Key[Array, ""], epoch: Int[Array, ""], count: int
    ) -> Int32[Array, " examples"]:
        """Returns the order of the examples in an epoch: the one that the run has, or a new one."""
        return jax.lax.cond(
            run.epoch == epoch,
            lambda: run.permutation,
            lambda: epoch_order(key, epoch, count, self.operations),
        )

    def _batch(
        self,
        examples: Examples,
        permutation: Int32[Array, " examples"],
        number: Int[Array, ""],
    ) -> Examples:
        """Returns a batch of an epoch, by its number from 0."""
        offset = number * self.batch_size
        batch = jax.lax.dynamic_slice(permutation, (offset,), (self.batch_size,))
        rows = self.operations.gather_rows(examples.inputs, batch)
        return Examples(rows, examples.targets[batch])

    def _seen(
        self, key: Key[Array, ""], step: Int[Array, ""], batch: Examples
    ) -> tuple[Examples, dict[str, jax.Array]]:
        """Returns a batch as it is augmented in a step, and the keys of the network's layers."""
        # Functions of key and step alone, never of a state that is carried: a run that is resumed,
        # and a ticket beside its dense network, drop and move the same.
        rngs = {"dropout": jax.random.fold_in(jax.random.fold_in(key, 1), step)}
        moved = jax.random.fold_in(jax.random.fold_in(key, 2), step)
        return Examples(self.pixels.augmented(batch.inputs, moved), batch.targets), rngs

    def _step(
        self,
        state: TrainState,
        inputs: Inputs,
        step: Int[Array, ""],
        batch: Examples,
        constants: PyTree = (),
    ) -> tuple[TrainState, Float[Array, ""]]:
        """Does one masked update; returns the new state, and the minibatch loss before it."""
        stored, rngs = self._seen(inputs.key, step, batch)
        if fused := self._fused(constants):
            loss, grads = fused.loss_and_gradients(
                constants, state.params, stored.inputs, stored.targets, self.pixels
            )
            model_state = state.model_state
        else:
            now = at_step(constants, step)
            loss, model_state, grads = self._loss_and_gradients(state, now, stored, rngs)
        params, opt_state = self.operations.masked_step(
            self.optimizer, grads, state.opt_state, state.params, inputs.mask
        )
        return TrainState(params, model_state, opt_state), loss

    def _fused(self, constants: PyTree) -> FusedNetwork | None:
        """Returns what computes such a run in one call, if anything does; the form decides."""
        return self.fused if self.fused and self.fused.takes(constants) else None

    def _loss_and_gradients(
        self, state: TrainState, constants: PyTree, batch: Examples, rngs: dict[str, jax.Array]
    ) -> tuple[Float[Array, ""], PyTree, PyTree]:
        """Returns the minibatch loss of stored inputs, the model's new state, and gradients."""
        seen = self.pixels.prepared(batch.inputs)

        def loss_of(params):
            variables = {"params": params, **state.model_state}
            outputs, model_state = self.apply(constants, variables, seen, True, rngs)
            return jnp.mean(self.objective.train_loss(outputs, batch.targets)), model_state

        (loss, model_state), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        return loss, model_state, grads

    def _outputs(
        self, params: PyTree, model_state: PyTree, inputs: jax.Array, constants: PyTree
    ) -> jax.Array:
        """Returns what the network says of stored inputs in evaluation."""
        if fused := self._fused(constants):
            return fused.logits(constants, params, inputs, self.pixels)
        variables = {"params": params, **model_state}
        outputs, _ = self.apply(constants, variables, self.pixels.prepared(inputs), False, {})
        return outputs

    def measure(
        self, params: PyTree, model_state: PyTree, examples: Examples, constants: PyTree = ()
    ) -> Evaluation:
        """Returns loss and metric over [batches, batch, …] examples; padding counts nowhere."""
        assert examples.valid is not None, "splits to evaluate are in batches"
        batches = examples.targets.shape[0]

        def sums(index):
            inputs, targets, valid = jax.tree.map(lambda array: array[index], examples)
            outputs = self._outputs(params, model_state, inputs, constants)
            each = self.objective.loss(outputs, targets), self.objective.measure(outputs, targets)

            def total(values):
                # Selected, not multiplied: what the network says of padding may be NaN.
                kept = valid.reshape(-1, *[1] * (values.ndim - 1))
                return jnp.sum(jnp.where(kept, values, jnp.zeros_like(values)), 0)

            return jax.tree.map(total, each)

        def add_batch(index, totals):
            return jax.tree.map(jnp.add, totals, sums(index))

        # Hits are counted as integers, which are exact; the rest is summed as it comes.
        zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(sums, 0))
        loss, measured = jax.lax.fori_loop(0, batches, add_batch, zero)
        total = jnp.sum(examples.valid)
        value = self.objective.value(measured, total)
        return Evaluation(loss / total, jnp.asarray(value, jnp.float32).reshape(()))

    def _evaluate(
        self, run: LoopState, examples: Examples, step: Int[Array, ""], updates: Int[Array, ""]
    ) -> tuple[LoopState, Evaluation, Float[Array, ""]]:
        state = run.state
        result = self.measure(state.params, state.model_state, examples, run.constants)
        now = EarlyStop(result.loss, result.accuracy, step, state.params, state.model_state)
        # Strictly smaller: the earliest of equals stays. NaN compares False; infinity is no less.
        # The network is kept in the carry, so that the test split is looked at once, at the end.
        better = result.loss < run.best.loss
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), now, run.best)
        train_loss = run.loss_sum / jnp.maximum(updates, 1)
        return run._replace(best=best, loss_sum=jnp.zeros_like(run.loss_sum)), result, train_loss

    def _test(self, run: LoopState, examples: Examples) -> tuple[Evaluation, Evaluation]:
        best, last = run.best, run.state
        return (
            self.measure(best.params, best.model_state, examples, run.constants),
            self.measure(last.params, last.model_state, examples, run.constants),
        )


def _key(name: str, run: LoopState) -> tuple[Any, ...]:
    """Returns what tells apart the programs for runs whose parameters are in different forms."""
    # Packed leaves have lengths of their own, narrow networks smaller layers. All other shapes are
    # the experiment's.
    constants = run.constants
    leaves = jax.tree.leaves((constants, run.state.params))
    return name, jax.tree.structure(constants), tuple(tuple(leaf.shape) for leaf in leaves)


def epoch_order(
    key: Key[Array, ""],
    epoch: Int[Array, ""] | int,
    count: int,
    operations: Operations | None = None,
) -> Int32[Array, " examples"]:
    """Returns the order of `count` examples in an epoch: a fresh permutation, int32 [count]."""
    permutation = (operations or Operations()).permutation
    return permutation(jax.random.fold_in(key, epoch), count).astype(jnp.int32)
