"""An experiment: a spec with everything that it names built, which the algorithm works with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
import optax
from jaxtyping import Array, Key, Shaped

from lth_jax import data
from lth_jax.config import PruningSpec, Spec, TrainSpec, duration_steps, own_fields
from lth_jax.config.own_fields import with_fields
from lth_jax.lottery.curvature import CurvatureMeter
from lth_jax.lottery.memory import Portions
from lth_jax.lottery.narrowing import Narrowing, narrow_cost
from lth_jax.lottery.observer import ParameterRow
from lth_jax.lottery.optimizing import (
    knows_end,
    optimizer_of,
)
from lth_jax.lottery.placement import Streaming, workers
from lth_jax.models.base import Model
from lth_jax.native.choice import XLA, NativeCode
from lth_jax.pruning import schedules
from lth_jax.pruning.channels import RANKS, Channels
from lth_jax.pruning.criteria import CRITERIA, Criterion, Probe, Scoring
from lth_jax.pruning.masks import apply_mask
from lth_jax.pruning.trees import PyTree
from lth_jax.training import keys
from lth_jax.training.backend import platform
from lth_jax.training.devices import ONE_DEVICE, RunDevices
from lth_jax.training.groups import together
from lth_jax.training.loop import Program
from lth_jax.training.operation_counts import uses_of_weights
from lth_jax.training.optimizers import OPTIMIZERS, SCHEDULES
from lth_jax.training.parameterization import Parameterization, through_forms
from lth_jax.training.pixels import Pixels
from lth_jax.training.states import Examples, TrainState, examples_at, new_state
from lth_jax.training.streamed import Feed, StreamedProgram, StreamedSplit
from lth_jax.training.tasks import TASKS, Objective, Task, objective

# Steps in a turn of the compiled loop where the host has to ask whether it goes on. On a CPU, where
# that costs nothing, one: a program of several takes as much longer to compile.
BLOCK = 4


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A spec with everything it names built.

    Attributes:
      spec: the spec.
      model, optimizer, criterion: what it names.
      targets: what each ranked group keeps, by level.
      train, validation, test: the splits on the device, the latter two in batches; if they are
        streamed, on the host.
      example: a zero input, [1, …]: float32 [1, height, width, channels] of images.
      pixels: how stored images become what the network sees.
      steps: the last step of training.
      eval_every: the number of steps between evaluations.
      steps_per_epoch: how many batches make an epoch of the trunk.
      rates: what may be pruned: leaf name -> multiple of `pruning.fraction`.
      channels: the network's channels, if these are pruned as a whole.
      narrowing: what decides whether a run is trained without its pruned channels.
      parameters: a row for each leaf.
      data: one phrase about the dataset, for people.
      content: the dataset's version and digest.
      notes: lines on what of the data is odd and yet accepted, for people.
      native: what of the network native code computes.
      devices: what runs are spread over.
      streaming: what brings examples to the devices; None if they are there.
      portions: how much is done at once; programs that are compiled decide it, level by level.
      programs: the compiled programs so far, by the size of a group, the number of devices, and
        the parts of an evaluation.
      others: this experiment under the training options of its branches, as far as they are known.
    """

    spec: Spec
    model: Model
    optimizer: optax.GradientTransformation
    criterion: Criterion
    targets: tuple[schedules.Targets, ...]
    train: Examples
    validation: Examples | StreamedSplit
    test: Examples | StreamedSplit
    example: Shaped[Array, "1 ..."]
    pixels: Pixels
    steps: int
    eval_every: int
    steps_per_epoch: int
    rates: Mapping[str, Fraction]
    parameters: tuple[ParameterRow, ...]
    data: str
    content: data.Content
    notes: tuple[str, ...] = ()
    channels: Channels | None = None
    narrowing: Narrowing | None = None
    native: NativeCode = XLA
    devices: RunDevices = ONE_DEVICE
    streaming: Streaming | None = None
    portions: Portions = dataclasses.field(default_factory=Portions)
    programs: dict[tuple[int, int, int], Program] = dataclasses.field(default_factory=dict)
    others: dict[Any, Experiment] = dataclasses.field(default_factory=dict)

    @property
    def rewind_step(self) -> int:
        """The step that survivors return to."""
        return duration_steps(self.spec.rewind.step, self.steps_per_epoch)

    @cached_property
    def task(self) -> Task:
        """The spec's task, its loss given the own fields that it takes.

        One object for the experiment: criteria compile a program for each loss.
        """
        task = TASKS[self.spec.task]
        return task._replace(loss=with_fields(task.loss, self.spec.custom, given=2))

    @cached_property
    def objective(self) -> Objective:
        """What is trained on and measured."""
        return objective(self.task, self.spec.metric, self.spec.train.label_smoothing)

    @cached_property
    def curvature(self) -> CurvatureMeter | None:
        """What measures the largest eigenvalue of the Hessian, if that is asked for."""
        if not self.spec.curvature.steps:
            return None
        return CurvatureMeter(
            self.spec, self.model, self.pixels, self.objective, self.train, self.steps_per_epoch
        )

    @cached_property
    def uses(self) -> dict[str, float]:
        """How many multiplications of a forward pass each weight of a kernel takes part in."""
        variables = jax.eval_shape(self.model.init, jax.random.key(0), self.example)
        return uses_of_weights(self.model.apply, variables, self.example)

    @cached_property
    def together(self) -> str:
        """How the networks of several runs on one device are computed."""
        chosen = self.spec.execution.group_as
        if chosen != "auto":
            return chosen
        return together({row.name: row.shape for row in self.parameters}, self.uses)

    def fresh(self, key: Key[Array, ""]) -> TrainState:
        """Returns a training state at initialization, drawn from `key`."""
        return new_state(self.model.init, self.optimizer, key, self.example)

    def initial(self, replicate: int) -> TrainState:
        """Returns the replicate's own initialization."""
        return self.fresh(keys.initialization_key(self.spec.seed, replicate))

    def for_branch(self, name: str) -> Experiment:
        """Returns this experiment under a branch's training options; itself if they are its own."""
        spec = self.spec.under(name)
        key = _training(spec)
        if key == _training(self.spec):
            return self
        if key not in self.others:
            train, per_epoch = spec.train, len(self.train.targets) // spec.train.batch_size
            # A compiled step holds the optimizer and the size of a batch; the number of steps it is
            # told. Some schedules, and cycles of a rate, know in each step where training ends.
            longer = dataclasses.replace(self.spec.train, steps=train.steps)
            ends = knows_end(train.schedule) or train.cycles > 1
            shared = key == (longer, _training(self.spec)[1]) and not ends
            self.others[key] = dataclasses.replace(
                self,
                spec=spec,
                optimizer=optimizer_of(spec, per_epoch),
                steps=train.cycles * duration_steps(train.steps, per_epoch),
                eval_every=duration_steps(spec.eval.every, per_epoch),
                native=packing(self.native, train.optimizer),
                programs=self.programs if shared else {},
                others={},
            )
        return self.others[key]

    def last_step(self, start: int) -> int:
        """Returns the step at which a run from step `start` ends.

        A run that starts past the rewind step, since it goes on from trained weights, is as much
        longer: every run of a level does as many updates.
        """
        return self.steps + max(0, start - self.rewind_step)

    def densities(self, level: int) -> dict[str, float]:
        """Returns the share of each leaf's weights that a level keeps, as far as it is planned."""
        if self.channels:
            shapes = {row.name: row.shape for row in self.parameters}
            return self.channels.densities(self.targets[level], shapes)
        sizes = {row.name: row.count for row in self.parameters}
        return {
            name: kept / sum(sizes[one] for one in names)
            for names, kept in self.targets[level].items()
            for name in names
        }

    def expected(self, level: int) -> tuple[Hashable, float]:
        """Returns what a level will be, before there are masks, to tell how long it takes.

        That is what its program depends on, and what a step costs, in times of a dense one.
        """
        densities = self.densities(level)
        if not self._narrows or level == 0:
            return self.native.expected(level, densities)
        counts = {row.name: row.count for row in self.parameters}
        return narrow_cost(densities, {name: n * counts[name] for name, n in self.uses.items()})

    @property
    def _narrows(self) -> bool:
        elementwise = OPTIMIZERS[self.spec.train.optimizer].elementwise
        return self.narrowing is not None and elementwise and not self.narrowing.note

    def form(self, level: int, mask: PyTree, state: TrainState) -> Parameterization:
        """Returns the form in which a run is trained whose mask stays, that starts from `state`."""
        if self.narrowing and self._narrows:
            narrow = self.narrowing.form(mask, state, self.optimizer)
            if narrow:
                return narrow
        return self.native.parameterization(level, mask, state, self.optimizer)

    def probe(
        self, key: Key[Array, ""], model_state: PyTree, pruning: PruningSpec | None = None
    ) -> Probe:
        """Returns the network and `pruning.examples` training examples, drawn by `key`."""
        pruning = pruning or self.spec.pruning
        task, targets = self.task, self.train.targets
        count = min(pruning.examples, len(targets))
        order = jax.random.permutation(key, len(targets))
        if pruning.gradients()["probe"] == "balanced" and task.classes:
            order = order[balanced(np.asarray(targets)[order])]
        some = examples_at(self.train, order[:count])
        inputs = self.pixels.prepared(some.inputs)
        return Probe(self.model.apply, model_state, inputs, some.targets, task.loss)

    def scores(
        self,
        scored: TrainState,
        initial: PyTree,
        key: Key[Array, ""],
        pruning: PruningSpec,
        custom: Mapping[str, Any] = MappingProxyType({}),
    ) -> Callable[[PyTree], PyTree]:
        """Returns a criterion's scores as a function of the mask so far.

        Args:
          scored: the state of the network that is scored.
          initial: the parameters at the rewind point.
          key: that of the scoring.
          pruning: names the criterion, and says of what its gradients are taken.
          custom: own fields besides those of the spec.
        """
        channels, rank = self.channels, pruning.rank
        if channels and rank in RANKS:
            return lambda mask: channels.ranked(rank, scored.params, mask)
        criterion = CRITERIA[pruning.criterion]
        given = with_fields(criterion.scores, {**self.spec.custom, **custom}, given=1)
        gradients = pruning.gradients()
        probe = None
        if criterion.needs_probe:
            probe = self.probe(jax.random.fold_in(key, 1), scored.model_state, pruning)
        # A temperature is of logits; numbers that are compared with targets have none.
        temperature = pruning.temperature if self.task.logits else 1.0

        def scores(mask: PyTree) -> PyTree:
            return given(
                Scoring(
                    final=apply_mask(scored.params, mask),
                    initial=apply_mask(initial, mask),
                    key=key,
                    probe=probe,
                    alpha=pruning.alpha,
                    temperature=temperature,
                    train=gradients["mode"] == "train",
                    hessian_of=frozenset(self.rates) if gradients["hessian"] == "kernels" else None,
                )
            )

        return scores

    def group_size(self, runs: int, devices: int = 1) -> int:
        """Returns how many of `runs` train in one group: on each device as many as on any other.

        At most so many on each as `execution.group_size` says and memory holds. By default that is
        one on a CPU, whose bits are repeatable and where a `vmap` gains nothing; all elsewhere,
        where small networks are bound by launches and further runs are almost free. Where several
        groups are needed, all are of that size, so that few copies fill them up.
        """
        chosen = self.spec.execution.group_size or (1 if platform() == "cpu" else runs)
        most = min(chosen, self.portions.runs or chosen) * devices
        groups = -(-runs // most)
        return -(-runs // (groups * devices)) * devices

    def workers(self) -> int:
        """Returns how many groups train side by side."""
        return workers(self.spec, self.devices)

    def _is_plain(self) -> bool:
        """Whether the loss is the mean cross-entropy alone, which a chain computes in one call."""
        return (
            self.task.loss is TASKS["classification"].loss and not self.spec.train.label_smoothing
        )

    def training_examples(
        self, keys: Sequence[Key[Array, ""]], last: int, devices: RunDevices
    ) -> Examples | Feed:
        """Returns what a group of runs trains on: all examples, or their batches as they come.

        Args:
          keys: the data key of each run.
          last: the step at which they end.
          devices: what they are spread over.
        """
        if self.streaming is None:
            return self.train
        batch_size = self.spec.train.batch_size
        return self.streaming.feed(
            self.train, keys, batch_size=batch_size, last=last, devices=devices
        )

    def program(self, group_size: int, devices: RunDevices = ONE_DEVICE) -> Program:
        """Returns the program for groups of that size, one for the whole experiment."""
        parts = self.portions.parts
        key = group_size, devices.number, parts
        if key not in self.programs:
            kind = StreamedProgram if self.streaming else Program
            self.programs[key] = kind(
                through_forms(self.native.apply(self.model.apply)),
                self.optimizer,
                batch_size=self.spec.train.batch_size,
                pixels=self.pixels,
                objective=self.objective,
                group_size=group_size,
                devices=devices,
                together=self.together,
                parts=parts,
                block=1 if platform() == "cpu" else BLOCK,
                operations=self.native.operations,
                fused=self.native.chain if self._is_plain() else None,
            )
        return self.programs[key]


def _training(spec: Spec) -> tuple[TrainSpec, tuple[tuple[str, Any], ...]]:
    """Returns what training depends on: the options, and own fields that the rows take."""
    rows = OPTIMIZERS[spec.train.optimizer].make, SCHEDULES[spec.train.schedule]
    own = [field for row in rows for field in own_fields.taken(row, spec.custom).items()]
    return spec.train, tuple(own)


def balanced(labels: np.ndarray) -> np.ndarray:
    """Returns an order in which classes take turns, so that the first n hold as many of each.

    A class that is used up leaves its turns to the others.

    Args:
      labels: of examples in a random order, int [n]; that of a class is kept.
    """
    by_class = np.argsort(labels, kind="stable")
    in_order = labels[by_class]
    turn = np.empty(len(labels), np.int64)  # how many of its class come before an example
    turn[by_class] = np.arange(len(labels)) - np.searchsorted(in_order, in_order)
    return np.argsort(turn, kind="stable")


def packing(native: NativeCode, optimizer: str) -> NativeCode:
    """Returns native code that packs layers only if the optimizer can be trusted with vectors."""
    can = OPTIMIZERS[optimizer].elementwise
    return native if can else dataclasses.replace(native, layers={})
