"""The compiled training loop, and its evaluations.

One program trains every run of an experiment. Masks, starting points and keys are its arguments,
and the bounds of the loop are traced, so that no level, branch or chunk compiles anything again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Int32, Key

from lth_jax.pruning.trees import PyTree
from lth_jax.training.devices import ONE_DEVICE, Memory, RunDevices, memory_of
from lth_jax.training.groups import gradients_over_runs, in_parts, map_runs, over_runs
from lth_jax.training.operations import FusedNetwork, Operations
from lth_jax.training.order import AUGMENTATION, DROPOUT, ORDER, epoch_order
from lth_jax.training.parameterization import Apply, at_step
from lth_jax.training.pixels import Pixels
from lth_jax.training.states import (
    EarlyStop,
    Evaluation,
    Examples,
    Inputs,
    LoopState,
    Placed,
    Sums,
    TrainState,
)
from lth_jax.training.tasks import CLASSIFICATION, Objective

# (name, function, how many trailing arguments runs have in common, arguments)
Call = tuple[str, Callable[..., Any], int, tuple[Any, ...]]
# (a batch of a split) -> the sums over it.
SumsOf = Callable[[Examples], tuple[jax.Array, PyTree]]


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
      together: how the networks of several runs are computed, one of `groups.TOGETHER`.
      parts: in how many parts a batch of an evaluation is computed, where memory is short.
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
        together: str = "vmap",
        parts: int = 1,
        block: int = 1,
        operations: Operations | None = None,
        fused: FusedNetwork | None = None,
    ):
        self.apply, self.optimizer = apply, optimizer
        self.operations, self.fused = operations or Operations(), fused
        self.batch_size, self.pixels, self.group_size = batch_size, pixels, group_size
        self.objective, self.devices = objective, devices
        self.parts, self.block = parts, block
        self._value_and_gradients = jax.value_and_grad(self._loss, has_aux=True)
        self._logits_of = self._logits
        if group_size > devices.count:  # a device has several runs
            self._value_and_gradients = gradients_over_runs(self._loss, together)
            self._logits_of = over_runs(self._logits, together)
        self._compiled: dict[Any, jax.stages.Compiled] = {}
        self._memory: dict[Any, Memory] = {}  # of those that were asked for

    def train(
        self, run: LoopState, inputs: Inputs, examples: Placed, start: int, stop: int
    ) -> LoopState:
        """Returns the runs after updates `start` to `stop`, counted from 0 at initialization."""
        bounds = np.int32(start), np.int32(stop)
        return self._call("train", self._train, 3, run, inputs, examples, *bounds)

    def evaluate(
        self, run: LoopState, examples: Placed, step: int, updates: int | Sequence[int]
    ) -> tuple[LoopState, Evaluation, Float[Array, " runs"]]:
        """Evaluates the networks on the validation split; each may become its run's early stop.

        Args:
          run: the runs after `step` updates.
          examples: the validation split, in batches.
          step: the number of updates behind the networks.
          updates: the number of updates since the last evaluation, of all runs or of each. A run
            with -1 has no evaluation now: it comes back as it was, and its numbers mean nothing.

        Returns:
          The runs; their loss and metric, each float32 [runs]; and the mean minibatch loss of the
          `updates` steps, float32 [runs] (0 for none).
        """
        each = np.broadcast_to(np.asarray(updates, np.int32), self.group_size)
        return self._call("evaluate", self._evaluate, 2, run, each, examples, np.int32(step))

    def test(self, run: LoopState, examples: Placed) -> tuple[Evaluation, Evaluation]:
        """Evaluates the networks of the early stop, and the last ones; values float32 [runs]."""
        return self._call("test", self._test, 1, run, examples)

    def gradients(
        self, run: LoopState, keys: Key[Array, " runs"], examples: Placed, step: int
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

    def compile_gradients(self, run: LoopState, keys: Any, examples: Placed) -> None:
        """Compiles `gradients` where that has not happened yet; arrays' shapes are enough."""
        self._compile(("gradients", self._gradients, 2, (run, keys, examples, np.int32(0))))

    def compile(
        self, run: LoopState, inputs: Inputs, train: Placed, validation: Placed, test: Placed
    ) -> None:
        """Compiles the three functions where that has not happened yet; shapes of runs are enough.

        They are compiled side by side, since XLA compiles each on one core.
        """
        self._compile(*self._calls(run, inputs, train, validation, test))

    def lowered(
        self, run: LoopState, inputs: Inputs, train: Placed, validation: Placed, test: Placed
    ) -> dict[str, jax.stages.Lowered]:
        """Returns what `compile` compiles as it is handed to XLA, by name; compiles nothing.

        Arrays may be shapes, with the device that is compiled for (`jax.ShapeDtypeStruct`).
        """
        calls = self._calls(run, inputs, train, validation, test)
        return {call[0]: self._lowered(*call) for call in calls}

    def _calls(
        self, run: LoopState, inputs: Inputs, train: Placed, validation: Placed, test: Placed
    ) -> tuple[Call, ...]:
        """Returns the calls of what every experiment needs."""
        zero, none = np.int32(0), np.zeros(self.group_size, np.int32)
        return (
            ("train", self._train, 3, (run, inputs, train, zero, zero)),
            ("evaluate", self._evaluate, 2, (run, none, validation, zero)),
            ("test", self._test, 1, (run, test)),
        )

    def _compile(self, *calls: Call) -> None:
        """Compiles what these calls need and is not compiled yet, side by side."""
        # Traced one after the other: that is Python's work, which threads would not make faster.
        lowered = {
            key: self._lowered(name, function, shared, args)
            for name, function, shared, args in calls
            if (key := _key(name, args[0].constants)) not in self._compiled
        }
        with ThreadPoolExecutor(len(calls)) as pool:
            compiled = pool.map(lambda program: program.compile(), lowered.values())
            self._compiled.update(zip(lowered, compiled, strict=True))

    def is_compiled(self, constants: PyTree, *names: str) -> bool:
        """Returns whether functions are compiled for one run's form.

        Args:
          constants: of the form.
          names: of the functions; by default the three that `compile` compiles.
        """
        names = names or ("train", "evaluate", "test")
        return all((name, *form_key(constants)) in self._compiled for name in names)

    def memory(self, constants: PyTree) -> dict[str, Memory]:
        """Returns what the functions take that are compiled for one run's form, by name.

        Args:
          constants: of the form.
        """
        names = ("train", "evaluate", "test", "gradients")
        keys = {name: (name, *form_key(constants)) for name in names}
        for key in keys.values():  # an answer takes milliseconds, and every group asks
            if key in self._compiled and key not in self._memory:
                self._memory[key] = memory_of(self._compiled[key])
        return {name: self._memory[key] for name, key in keys.items() if key in self._memory}

    def _call(self, name: str, function: Callable[..., Any], shared: int, *args: Any) -> Any:
        """Calls what was compiled ahead, so that no call that is timed hides a compilation."""
        key = _key(name, args[0].constants)
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
        order_key = jax.random.fold_in(inputs.key, ORDER)

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
        permutation = self._order(run, jax.random.fold_in(key, ORDER), epoch, count)
        batch = self._batch(examples, permutation, step - epoch * steps_per_epoch)
        return self._batch_gradients(run, key, batch, step)

    def _batch_gradients(
        self, run: LoopState, key: Key[Array, ""], batch: Examples, step: Int[Array, ""]
    ) -> PyTree:
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
            lambda: epoch_order(key, epoch, count, self.operations.permutation),
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
        batch = self.devices.spread(batch)
        rows = self.operations.gather_rows(examples.inputs, batch)
        return Examples(rows, examples.targets[batch])

    def _seen(
        self, key: Key[Array, ""], step: Int[Array, ""], batch: Examples
    ) -> tuple[Examples, dict[str, jax.Array]]:
        """Returns a batch as it is augmented in a step, and the keys of the network's layers."""
        # Functions of key and step alone, never of a state that is carried: a run that is resumed,
        # and a ticket beside its dense network, drop and move the same.
        rngs = {"dropout": jax.random.fold_in(jax.random.fold_in(key, DROPOUT), step)}
        moved = jax.random.fold_in(jax.random.fold_in(key, AUGMENTATION), step)
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
        (loss, model_state), grads = self._value_and_gradients(
            state.params, state.model_state, constants, seen, batch.targets, rngs
        )
        return loss, model_state, grads

    def _loss(
        self,
        params: PyTree,
        model_state: PyTree,
        constants: PyTree,
        seen: jax.Array,
        targets: jax.Array,
        rngs: dict[str, jax.Array],
    ) -> tuple[Float[Array, ""], PyTree]:
        """Returns the mean loss of a minibatch in training, and the model's new state."""
        variables = {"params": params, **model_state}
        outputs, model_state = self.apply(constants, variables, seen, True, rngs)
        return jnp.mean(self.objective.train_loss(outputs, targets)), model_state

    def _logits(
        self, params: PyTree, model_state: PyTree, constants: PyTree, inputs: jax.Array
    ) -> jax.Array:
        variables = {"params": params, **model_state}
        outputs, _ = self.apply(constants, variables, self.pixels.prepared(inputs), False, {})
        return outputs

    def _outputs(
        self, params: PyTree, model_state: PyTree, inputs: jax.Array, constants: PyTree
    ) -> jax.Array:
        """Returns what the network says of stored inputs in evaluation."""
        if fused := self._fused(constants):
            return fused.logits(constants, params, inputs, self.pixels)
        return self._logits_of(params, model_state, constants, inputs)

    def measure(
        self, params: PyTree, model_state: PyTree, examples: Examples, constants: PyTree = ()
    ) -> Evaluation:
        """Returns loss and metric over [batches, batch, …] examples; padding counts nowhere."""
        sums_of = partial(self._sums, params, model_state, constants)
        return self.evaluation(self.added(sums_of, no_sums(sums_of, examples), examples))

    def _sums(
        self, params: PyTree, model_state: PyTree, constants: PyTree, batch: Examples
    ) -> tuple[jax.Array, PyTree]:
        """Returns the loss and what the metric is made of, each summed over a batch."""
        inputs, targets, valid = batch
        assert valid is not None, "splits to evaluate are in batches"

        def one_by_one(inputs, targets):
            inputs, targets = self.devices.spread((inputs, targets))
            outputs = self._outputs(params, model_state, inputs, constants)
            return self.objective.loss(outputs, targets), self.objective.measure(outputs, targets)

        each = in_parts(one_by_one, self.parts, inputs, targets)

        def total(values):
            # Selected, not multiplied: what the network says of padding may be NaN.
            kept = valid.reshape(-1, *[1] * (values.ndim - 1))
            return jnp.sum(jnp.where(kept, values, jnp.zeros_like(values)), 0)

        return jax.tree.map(total, each)

    @staticmethod
    def added(sums_of: SumsOf, sums: Sums, examples: Examples) -> Sums:
        """Returns `sums` with those of further batches, [batches, batch, …], added in order."""

        def add_batch(index, totals):
            batch = jax.tree.map(lambda array: array[index], examples)
            return jax.tree.map(jnp.add, totals, sums_of(batch))

        each = jax.lax.fori_loop(0, examples.targets.shape[0], add_batch, sums.each)
        return Sums(each, sums.examples + jnp.sum(jnp.asarray(examples.valid)))

    def evaluation(self, sums: Sums) -> Evaluation:
        """Returns the loss and the metric of a split, of the sums over all of it."""
        loss, measured = sums.each
        value = self.objective.value(measured, sums.examples)
        return Evaluation(loss / sums.examples, jnp.asarray(value, jnp.float32).reshape(()))

    def _evaluate(
        self, run: LoopState, updates: Int[Array, ""], examples: Examples, step: Int[Array, ""]
    ) -> tuple[LoopState, Evaluation, Float[Array, ""]]:
        state = run.state
        result = self.measure(state.params, state.model_state, examples, run.constants)
        return self._evaluated(run, updates, result, step)

    @staticmethod
    def _evaluated(
        run: LoopState, updates: Int[Array, ""], result: Evaluation, step: Int[Array, ""]
    ) -> tuple[LoopState, Evaluation, Float[Array, ""]]:
        """Returns what `evaluate` does, of what the validation split said of the networks."""
        state = run.state
        now = EarlyStop(result.loss, result.accuracy, step, state.params, state.model_state)
        # Strictly smaller: the earliest of equals stays. NaN compares False; infinity is no less.
        # The network is kept in the carry, so that the test split is looked at once, at the end.
        due = updates >= 0
        better = due & (result.loss < run.best.loss)
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), now, run.best)
        train_loss = run.loss_sum / jnp.maximum(updates, 1)
        left = jnp.where(due, 0, run.loss_sum)
        return run._replace(best=best, loss_sum=left), result, train_loss

    def _test(self, run: LoopState, examples: Examples) -> tuple[Evaluation, Evaluation]:
        best, last = run.best, run.state
        return (
            self.measure(best.params, best.model_state, examples, run.constants),
            self.measure(last.params, last.model_state, examples, run.constants),
        )


def no_sums(sums_of: SumsOf, examples: Examples) -> Sums:
    """Returns the sums over no batch: hits are integers, which are exact; the rest as it comes."""
    batch = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape[1:], array.dtype), examples)
    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(sums_of, batch))
    return Sums(zero, jnp.zeros((), jnp.int32))


def _key(name: str, constants: PyTree) -> tuple[Any, ...]:
    """Returns what tells apart the programs for runs whose parameters are in different forms.

    Args:
      name: of the function.
      constants: of the form, with a leading axis of runs.
    """
    return name, *form_key(constants, axes=1)


def form_key(constants: PyTree, axes: int = 0) -> tuple[Any, ...]:
    """Returns what tells a form from others, by its constants with `axes` leading axes."""
    # The tables of packed leaves have the leaves' lengths. All other shapes are the experiment's.
    leaves = jax.tree.leaves(constants)
    return jax.tree.structure(constants), tuple(tuple(np.shape(leaf)[axes:]) for leaf in leaves)
