"""The training loop for examples that do not lie on the devices: they come in blocks.

A block holds the batches of some steps in a row, for each run its own, since each replicate has an
order of its own. Steps, batches, evaluations and their bits are those of `Program`; only where a
batch is taken from differs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key, Shaped

from lth_jax.pruning.trees import PyTree
from lth_jax.training.devices import Memory, RunDevices, memory_of
from lth_jax.training.groups import map_runs
from lth_jax.training.loop import Call, Program, form_key, no_sums
from lth_jax.training.states import Evaluation, Examples, Inputs, LoopState, Placed, Sums


class Batches(NamedTuple):
    """The batches of some steps in a row.

    Attributes:
      inputs: [runs, steps, batch, …], as they are stored; targets: [runs, steps, batch, …].
    """

    inputs: Shaped[Array, "*runs steps batch ..."]
    targets: Shaped[Array, "*runs steps batch ..."]


class Feed:
    """The batches of a group of runs, block by block, as far ahead as they are asked for.

    Block n has the steps from n times its length on, whatever step training begins at or goes on
    from: what it holds is a function of its number.

    Args:
      opened: (number) -> the blocks from that number on, on the devices; it can be closed.
      steps: how many a block has.
      shapes: of a block, with its place on the devices.
    """

    def __init__(self, opened: Callable[[int], Any], steps: int, shapes: Batches):
        self.steps, self.shapes = steps, shapes
        self._opened = opened
        self._blocks: Any = None
        self._current: tuple[int, Batches] | None = None

    def block(self, step: int) -> tuple[Batches, int]:
        """Returns the block with the batch of `step`, and the step that it begins with."""
        number = step // self.steps
        if self._current is None or number != self._current[0]:
            follows = self._current is not None and number == self._current[0] + 1
            if self._blocks is None or not follows:
                self.close()
                self._blocks = self._opened(number)
            self._current = number, next(self._blocks)
        return self._current[1], number * self.steps

    def close(self) -> None:
        """Ends what reads ahead; a step that is asked for afterwards is read anew."""
        if self._blocks is not None:
            self._blocks.close()
        self._blocks = self._current = None


class StreamedSplit(NamedTuple):
    """A split to be evaluated that comes in blocks.

    Attributes:
      blocks: gives them in order, each of [batches, batch, …], on some devices; can be closed.
      shapes: gives the shapes of a block, with its place on the devices.
      whole: gives all of it at once, [batches, batch, …].
    """

    blocks: Callable[[RunDevices], Any]
    shapes: Callable[[RunDevices], Examples]
    whole: Callable[[], Examples]


class _Network(NamedTuple):
    """What evaluation looks at of a run."""

    params: PyTree
    model_state: PyTree
    constants: PyTree


def _last(run: LoopState) -> _Network:
    return _Network(run.state.params, run.state.model_state, run.constants)


def _best(run: LoopState) -> _Network:
    return _Network(run.best.params, run.best.model_state, run.constants)


class StreamedProgram(Program):
    """The program of an experiment whose examples come in blocks; see `Program`.

    It takes a `Feed` where that takes training examples, and a `StreamedSplit` for another split.
    """

    def train(
        self, run: LoopState, inputs: Inputs, examples: Placed, start: int, stop: int
    ) -> LoopState:
        """Returns the runs after updates `start` to `stop`, counted from 0 at initialization."""
        while start < stop:
            batches, first = examples.block(start)
            end = min(stop, first + examples.steps)
            # This block was waited for while the one before it trained. Nothing is asked of the
            # devices further ahead: blocks would pile up in their memory.
            jax.block_until_ready(run.loss_sum)
            bounds = np.int32(start), np.int32(end), np.int32(first)
            run = self._call("train", self._train_block, 3, run, inputs, batches, *bounds)
            start = end
        return run

    def evaluate(
        self, run: LoopState, examples: Placed, step: int, updates: int | Sequence[int]
    ) -> tuple[LoopState, Evaluation, Float[Array, " runs"]]:
        """Evaluates the networks on the validation split; each may become its run's early stop."""
        (sums,) = self._summed(examples, _last(run))
        each = np.broadcast_to(np.asarray(updates, np.int32), self.group_size)
        return self._call("evaluate", self._evaluate_sums, 1, run, each, sums, np.int32(step))

    def test(self, run: LoopState, examples: Placed) -> tuple[Evaluation, Evaluation]:
        """Evaluates the networks of the early stop, and the last ones; values float32 [runs]."""
        sums = self._summed(examples, _best(run), _last(run))
        return self._call("test", self._test_sums, 0, run, *sums)

    def gradients(
        self, run: LoopState, keys: Key[Array, " runs"], examples: Placed, step: int
    ) -> PyTree:
        """Returns the loss's gradients of the batch that update `step` takes, for all weights."""
        batches, first = examples.block(step)
        at = np.int32(step), np.int32(first)
        return self._call("gradients", self._gradients_in_block, 2, run, keys, batches, *at)

    def compile_gradients(self, run: LoopState, keys: Any, examples: Placed) -> None:
        """Compiles `gradients` where that has not happened yet; arrays' shapes are enough."""
        at = np.int32(0), np.int32(0)
        args = run, keys, examples.shapes, *at
        self._compile(("gradients", self._gradients_in_block, 2, args))

    def memory(self, constants: PyTree) -> dict[str, Memory]:
        """Returns what the functions take; of evaluations, what their blocks do."""
        found = super().memory(constants)
        besides = [
            memory_of(program).besides
            for (name, *form), program in self._compiled.items()
            if name.startswith("add ") and form == [*form_key(constants)]
        ]
        return found | {
            name: found[name]._replace(besides=max(found[name].besides, *besides))
            for name in ("evaluate", "test")
            if name in found and besides
        }

    def _calls(
        self, run: LoopState, inputs: Inputs, train: Placed, validation: Placed, test: Placed
    ) -> tuple[Call, ...]:
        zero, none, network = np.int32(0), np.zeros(self.group_size, np.int32), _last(run)
        shapes = [split.shapes(self.devices) for split in (validation, test)]
        sums = self._shapes_of_sums(network, shapes[0])
        splits = {_name("add", one): one for one in shapes}.values()
        return (
            ("train", self._train_block, 3, (run, inputs, train.shapes, zero, zero, zero)),
            *((_name("zero", s), partial(self._zero, s), 0, (network,)) for s in splits),
            *((_name("add", s), self._add, 1, (network, sums, s)) for s in splits),
            ("evaluate", self._evaluate_sums, 1, (run, none, sums, zero)),
            ("test", self._test_sums, 0, (run, sums, sums)),
        )

    def _on_devices(self, args: tuple[Any, ...]) -> list[Any]:
        """Returns the arguments as they are: whoever made the blocks put them on the devices."""
        return list(args)

    def _train_block(
        self,
        run: LoopState,
        inputs: Inputs,
        batches: Batches,
        start: Int[Array, ""],
        stop: Int[Array, ""],
        first: Int[Array, ""],
    ) -> LoopState:
        def train_step(step, carry):
            state, loss_sum = carry
            batch = self._batch_of(batches, step - first)
            state, loss = self._step(state, inputs, step, batch, run.constants)
            return state, loss_sum + loss

        state, loss_sum = self._steps(start, stop, train_step, (run.state, run.loss_sum))
        return run._replace(state=state, loss_sum=loss_sum)

    def _gradients_in_block(
        self,
        run: LoopState,
        key: Key[Array, ""],
        batches: Batches,
        step: Int[Array, ""],
        first: Int[Array, ""],
    ) -> PyTree:
        return self._batch_gradients(run, key, self._batch_of(batches, step - first), step)

    def _batch_of(self, batches: Batches, index: Int[Array, ""]) -> Examples:
        take = partial(jax.lax.dynamic_index_in_dim, index=index, keepdims=False)
        return self.devices.spread(Examples(take(batches.inputs), take(batches.targets)))

    # Evaluation: sums go from block to block, and a batch is added after the one before it, as in
    # one loop over all of them.

    def _summed(self, examples: Placed, *networks: _Network) -> list[Sums]:
        shapes = examples.shapes(self.devices)
        sums = [self._no_sums(network, shapes) for network in networks]
        name = _name("add", shapes)
        with contextlib.closing(examples.blocks(self.devices)) as blocks:
            for block in blocks:
                sums = [
                    self._call(name, self._add, 1, network, before, block)
                    for network, before in zip(networks, sums, strict=True)
                ]
                jax.block_until_ready(sums)
        return sums

    def _no_sums(self, network: _Network, shapes: Examples) -> Sums:
        return self._call(_name("zero", shapes), partial(self._zero, shapes), 0, network)

    def _shapes_of_sums(self, network: _Network, shapes: Examples) -> Sums:
        found = jax.eval_shape(map_runs(partial(self._zero, shapes), self.group_size, 0), network)
        place = self.devices.sharding(by_run=True)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), found
        )

    def _sums_of(self, network: _Network) -> Callable[[Examples], tuple[jax.Array, PyTree]]:
        return partial(self._sums, *network)

    def _zero(self, shapes: Examples, network: _Network) -> Sums:
        return no_sums(self._sums_of(network), shapes)

    def _add(self, network: _Network, sums: Sums, examples: Examples) -> Sums:
        return self.added(self._sums_of(network), sums, examples)

    def _evaluate_sums(
        self, run: LoopState, updates: Int[Array, ""], sums: Sums, step: Int[Array, ""]
    ) -> tuple[LoopState, Evaluation, Float[Array, ""]]:
        return self._evaluated(run, updates, self.evaluation(sums), step)

    def _test_sums(self, run: LoopState, best: Sums, last: Sums) -> tuple[Evaluation, Evaluation]:
        del run  # it is what programs are told apart by
        return self.evaluation(best), self.evaluation(last)


def _name(function: str, shapes: Examples) -> str:
    """Returns the name of what is compiled for blocks of that shape."""
    return f"{function} {tuple(shapes.inputs.shape)}"
