"""An experiment: a spec with everything that it names."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from fractions import Fraction

import jax
import jax.numpy as jnp
import optax

from lth_jax.config import Spec, TrainSpec, duration_steps
from lth_jax.data.places import resolve
from lth_jax.errors import SpecError
from lth_jax.lottery.observer import ParameterRow
from lth_jax.models.base import Model
from lth_jax.native.build import Unavailable
from lth_jax.native.choice import XLA, Kernels, choose
from lth_jax.pruning import schedules
from lth_jax.pruning.criteria import Criterion
from lth_jax.pruning.gradients import Probe
from lth_jax.pruning.trees import PyTree
from lth_jax.training.keys import derive
from lth_jax.training.loop import Program
from lth_jax.training.optimizers import OPTIMIZERS, learning_rate
from lth_jax.training.pixels import Pixels
from lth_jax.training.states import Examples, TrainState, new_state


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A spec with everything it names built: what the trunk works with.

    Attributes:
      spec: the spec.
      model, optimizer, criterion: what it names.
      targets: what each ranked group keeps, by level.
      train, validation, test: the splits on the device; the latter two in batches.
      example: a zero input, float32 [1, height, width, channels].
      pixels: how stored images become what the network sees.
      steps: the last step of training; rewind_step: the step that survivors return to.
      eval_every: steps between evaluations.
      rates: what may be pruned: leaf name -> multiple of `pruning.fraction`.
      parameters: a row for each leaf.
      data: one phrase about the dataset, for people.
      kernels: what computes the network's layers.
    """

    spec: Spec
    model: Model
    optimizer: optax.GradientTransformation
    criterion: Criterion
    targets: tuple[schedules.Targets, ...]
    train: Examples
    validation: Examples
    test: Examples
    example: jax.Array
    pixels: Pixels
    steps: int
    eval_every: int
    rewind_step: int
    rates: Mapping[str, Fraction]
    parameters: tuple[ParameterRow, ...]
    data: str
    kernels: Kernels = XLA
    programs: dict[int, Program] = dataclasses.field(default_factory=dict)
    variants: dict[TrainSpec, Experiment] = dataclasses.field(default_factory=dict)

    def fresh(self, key: jax.Array) -> TrainState:
        """A training state at initialization, drawn from `key`."""
        return new_state(self.model, self.optimizer, key, self.example)

    def initial(self, replicate: int) -> TrainState:
        """The replicate's own initialization."""
        return self.fresh(derive(self.spec.seed, "init", replicate))

    def run_key(self, replicate: int) -> jax.Array:
        """Batch order and dropout: the same for all levels, branches and draws of a replicate."""
        return derive(self.spec.seed, "data", replicate)

    def variant(self, train: TrainSpec) -> Experiment:
        """This experiment with other training options, for a branch; itself if they are its own."""
        if train == self.spec.train:
            return self
        if train not in self.variants:
            changed = dataclasses.replace(self.spec.train, steps=train.steps)
            cosine = train.schedule == "cosine"  # which knows where it ends
            spec = dataclasses.replace(self.spec, train=train)
            per_epoch = len(self.train.labels) // train.batch_size
            self.variants[train] = dataclasses.replace(
                self,
                spec=spec,
                optimizer=optimizer_of(spec, per_epoch),
                steps=duration_steps(train.steps, per_epoch),
                eval_every=duration_steps(spec.eval.every, per_epoch),
                # Compiled steps hold the optimizer and the batch; their number they are told.
                programs=self.programs if train == changed and not cosine else {},
                variants={},
            )
        return self.variants[train]

    def probe(self, key: jax.Array, model_state: PyTree) -> Probe:
        """The network and `pruning.examples` training examples, drawn by `key`."""
        count = min(self.spec.pruning.examples, len(self.train.labels))
        chosen = jax.random.permutation(key, len(self.train.labels))[:count]
        images = self.pixels.prepared(self.train.images[chosen])
        return Probe(self.model.apply, model_state, images, self.train.labels[chosen])

    def sizes(self) -> dict[str, int]:
        """Prunable leaf name -> number of weights."""
        return {row.name: row.count for row in self.parameters if row.prunable}

    def group_size(self, runs: int) -> int:
        """How many of `runs` train at once: one on CPU, all elsewhere, or what the spec says."""
        chosen = self.spec.execution.group_size
        if not chosen:
            chosen = 1 if jax.default_backend() == "cpu" else runs
        return max(1, min(chosen, runs))

    def workers(self) -> int:
        """How many groups train side by side: as many as cores on CPU, one elsewhere."""
        chosen = self.spec.execution.workers
        if chosen or jax.default_backend() != "cpu":
            return chosen or 1
        if hasattr(os, "sched_getaffinity"):  # the cores that this process may use; not on macOS
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1

    def program(self, group_size: int) -> Program:
        """The compiled program for groups of that size; one for the whole experiment."""
        if group_size not in self.programs:
            self.programs[group_size] = Program(
                self.model,
                self.optimizer,
                batch_size=self.spec.train.batch_size,
                pixels=self.pixels,
                label_smoothing=self.spec.train.label_smoothing,
                group_size=group_size,
                kernels=self.kernels,
            )
        return self.programs[group_size]


def kernels_of(spec: Spec, model: Model, shape: tuple[int, ...]) -> Kernels:
    """What computes the layers of the network that the spec names, for images of `shape`.

    Raises:
      SpecError: `train.kernel` is `sparse`, and there is no compiler.
    """
    x = jax.ShapeDtypeStruct((spec.train.batch_size, *shape), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    folder = resolve(cache_dir=spec.data.cache_dir).cache_dir / "kernels"
    try:
        return choose(spec.train.kernel, folder, model.apply, variables, x)
    except Unavailable as error:
        raise SpecError(f"config.train.kernel={spec.train.kernel!r}: {error}") from None


def optimizer_of(spec: Spec, steps_per_epoch: int) -> optax.GradientTransformation:
    """The optimizer that a spec names, with its hyperparameters and learning rates."""
    train = spec.train
    rate = learning_rate(
        train.learning_rate,
        steps=duration_steps(train.steps, steps_per_epoch),
        warmup=duration_steps(train.warmup, steps_per_epoch),
        drops=[(duration_steps(when, steps_per_epoch), factor) for when, factor in train.drops],
        cosine=train.schedule == "cosine",
    )
    return OPTIMIZERS[train.optimizer](
        learning_rate=rate,
        weight_decay=train.weight_decay,
        momentum=train.momentum,
        nesterov=train.nesterov,
    )
