"""An experiment: a spec with everything that it names built, which the algorithm works with."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from fractions import Fraction

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from lth_jax import data
from lth_jax.config import Spec, TrainSpec, duration_steps
from lth_jax.data.directories import resolve
from lth_jax.errors import SpecError, nearest
from lth_jax.lottery.branches import BRANCHES, new_heads
from lth_jax.lottery.network import (
    Network,
    check_known,
    check_model,
    network_of,
    pixels_of,
)
from lth_jax.lottery.observer import ParameterRow
from lth_jax.models import MODELS
from lth_jax.models.base import Model
from lth_jax.native.build import Unavailable
from lth_jax.native.choice import XLA, NativeCode, choose
from lth_jax.pruning import schedules
from lth_jax.pruning.criteria import CRITERIA, Criterion, Probe
from lth_jax.pruning.trees import PyTree
from lth_jax.training import keys
from lth_jax.training.loop import Program
from lth_jax.training.optimizers import OPTIMIZERS, learning_rate
from lth_jax.training.pixels import Pixels
from lth_jax.training.states import Examples, TrainState, in_batches, new_state


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A spec with everything it names built.

    Attributes:
      spec: the spec.
      model, optimizer, criterion: what it names.
      targets: what each ranked group keeps, by level.
      train, validation, test: the splits on the device; the latter two in batches.
      example: a zero input, float32 [1, height, width, channels].
      pixels: how stored images become what the network sees.
      steps: the last step of training.
      eval_every: the number of steps between evaluations.
      rewind_step: the step that survivors return to.
      rates: what may be pruned: leaf name -> multiple of `pruning.fraction`.
      parameters: a row for each leaf.
      data: one phrase about the dataset, for people.
      native: what of the network native code computes.
      programs: the compiled programs so far, by the size of a group.
      others: this experiment under the training options of its branches, as far as they are known.
    """

    spec: Spec
    model: Model
    optimizer: optax.GradientTransformation
    criterion: Criterion
    targets: tuple[schedules.Targets, ...]
    train: Examples
    validation: Examples
    test: Examples
    example: Float[Array, "1 height width channels"]
    pixels: Pixels
    steps: int
    eval_every: int
    rewind_step: int
    rates: Mapping[str, Fraction]
    parameters: tuple[ParameterRow, ...]
    data: str
    native: NativeCode = XLA
    programs: dict[int, Program] = dataclasses.field(default_factory=dict)
    others: dict[TrainSpec, Experiment] = dataclasses.field(default_factory=dict)

    def fresh(self, key: Key[Array, ""]) -> TrainState:
        """Returns a training state at initialization, drawn from `key`."""
        return new_state(self.model.init, self.optimizer, key, self.example)

    def initial(self, replicate: int) -> TrainState:
        """Returns the replicate's own initialization."""
        return self.fresh(keys.initialization_key(self.spec.seed, replicate))

    def for_branch(self, name: str) -> Experiment:
        """Returns this experiment under a branch's training options; itself if they are its own."""
        train = self.spec.branch_spec(name).train_spec(self.spec.train)
        if train == self.spec.train:
            return self
        if train not in self.others:
            spec = dataclasses.replace(self.spec, train=train)
            per_epoch = len(self.train.labels) // train.batch_size
            # A compiled step holds the optimizer and the size of a batch; the number of steps it is
            # told. Only a cosine knows in each step where training ends.
            longer = dataclasses.replace(self.spec.train, steps=train.steps)
            shared = train == longer and train.schedule != "cosine"
            self.others[train] = dataclasses.replace(
                self,
                spec=spec,
                optimizer=optimizer_of(spec, per_epoch),
                steps=duration_steps(train.steps, per_epoch),
                eval_every=duration_steps(spec.eval.every, per_epoch),
                programs=self.programs if shared else {},
                others={},
            )
        return self.others[train]

    def last_step(self, start: int) -> int:
        """Returns the step at which a run from step `start` ends.

        A run that starts past the rewind step, since it goes on from trained weights, is as much
        longer: every run of a level does as many updates.
        """
        return self.steps + max(0, start - self.rewind_step)

    def probe(self, key: Key[Array, ""], model_state: PyTree) -> Probe:
        """Returns the network and `pruning.examples` training examples, drawn by `key`."""
        count = min(self.spec.pruning.examples, len(self.train.labels))
        chosen = jax.random.permutation(key, len(self.train.labels))[:count]
        images = self.pixels.prepared(self.train.images[chosen])
        return Probe(self.model.apply, model_state, images, self.train.labels[chosen])

    def group_size(self, runs: int) -> int:
        """Returns how many of `runs` train in one group, as `execution.group_size` says.

        By default one on a CPU, whose bits are repeatable and where a `vmap` gains nothing; all
        elsewhere, where small networks are bound by launches and further runs are almost free.
        """
        chosen = self.spec.execution.group_size
        if not chosen:
            chosen = 1 if jax.default_backend() == "cpu" else runs
        return max(1, min(chosen, runs))

    def workers(self) -> int:
        """Returns how many groups train side by side: as many as cores on a CPU, one elsewhere."""
        chosen = self.spec.execution.workers
        if chosen or jax.default_backend() != "cpu":
            return chosen or 1
        if hasattr(os, "sched_getaffinity"):  # the cores that this process may use; not on macOS
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1

    def program(self, group_size: int) -> Program:
        """Returns the program for groups of that size, one for the whole experiment."""
        if group_size not in self.programs:
            self.programs[group_size] = Program(
                self.native.apply(self.model.apply),
                self.optimizer,
                batch_size=self.spec.train.batch_size,
                pixels=self.pixels,
                label_smoothing=self.spec.train.label_smoothing,
                group_size=group_size,
            )
        return self.programs[group_size]


def check(spec: Spec) -> Network | None:
    """Checks that everything the spec names exists, before any data or compilation.

    Returns:
      The spec's network, where enough is known of the dataset to make it.

    Raises:
      SpecError: an unknown name (it says which names there are), or a network, size or level that
        does not fit the dataset.
      DataError: an unknown dataset, or sizes and classes that it does not have.
    """
    check_known("model.name", spec.model.name, MODELS)
    check_model(spec)
    check_known("train.optimizer", spec.train.optimizer, OPTIMIZERS)
    check_known("pruning.criterion", spec.pruning.criterion, CRITERIA)
    if spec.pruning.at == "rewind" and CRITERIA[spec.pruning.criterion].needs_training:
        raise SpecError(
            f"config.pruning.at='rewind': {spec.pruning.criterion} compares trained weights with "
            "initial ones; accepted: trained"
        )
    data.check_name(spec.data.name)
    for name in spec.branches:
        kind = spec.branch_spec(name).kind
        field = "branches" if kind == name else f"branch.{name}.kind"
        check_known(field, kind, BRANCHES)
        optimizer = spec.branch_spec(name).optimizer
        if optimizer:
            check_known(f"branch.{name}.optimizer", optimizer, OPTIMIZERS)
    for name in spec.branch:
        if name not in spec.branches and name not in BRANCHES:
            known = {*spec.branches, *BRANCHES}
            raise SpecError(f"config.branch.{name}: no such branch; {nearest(name, known)}")
    facts = data.facts(spec.data.name)
    if not facts:
        return None
    data.check_sizes(
        spec.data.name,
        facts.train,
        facts.test,
        validation_size=spec.data.validation_size,
        train_size=spec.data.train_size,
        test_size=spec.data.test_size,
    )
    data.check_classes(spec.data.name, facts.classes, spec.data.classes)
    _check_images(spec, facts.shape)
    _check_durations(spec, spec.data.train_size or facts.train - spec.data.validation_size)
    return network_of(spec, facts.shape, facts.classes)


def check_transfers(spec: Spec, source: Spec) -> None:
    """Checks that `source`'s networks fit `spec`'s; loads a dataset that nothing is known of.

    Raises:
      SpecError: they differ in more than the output layer.
      DataError: the data cannot be had.
    """
    shapes = []
    for one in (source, spec):
        facts = data.facts(one.data.name) or data.facts_of(load(one))
        _check_durations(one, facts.train)
        shapes.append(network_of(one, facts.shape, facts.classes).params)
    try:
        new_heads(*shapes)
    except ValueError as error:
        raise SpecError(f"config.source: {error}") from None


def build(spec: Spec, network: Network | None = None) -> Experiment:
    """Loads the data and builds everything that a checked spec names.

    Args:
      spec: the spec.
      network: what `check` gave; made here by default.

    Raises:
      SpecError: a name, or a combination that the data shows to be wrong.
      DataError: the data cannot be had, or the split sizes do not fit it.
    """
    network = network or check(spec)
    whole = load(spec)
    stored = whole.train_images.shape[1:]
    _check_images(spec, stored)
    if network is None:
        network = network_of(spec, stored, whole.num_classes)
    whole = data.reshaped(whole, side=spec.data.side, channels=spec.data.channels)
    scaled, shape = whole.train_images.shape[1:], network.shape
    pixels = pixels_of(spec, whole)
    splits = split(spec, whole, shape)
    examples = len(splits.train.labels)
    _check_durations(spec, examples)
    steps_per_epoch = examples // spec.train.batch_size
    return Experiment(
        spec=spec,
        model=network.model,
        optimizer=optimizer_of(spec, steps_per_epoch),
        criterion=CRITERIA[spec.pruning.criterion],
        targets=network.targets,
        train=Examples(jnp.asarray(splits.train.images), jnp.asarray(splits.train.labels)),
        validation=in_batches(*splits.validation, spec.eval.batch_size),
        test=in_batches(*splits.test, spec.eval.batch_size),
        example=jnp.zeros((1, *shape), jnp.float32),
        pixels=pixels,
        steps=duration_steps(spec.train.steps, steps_per_epoch),
        eval_every=duration_steps(spec.eval.every, steps_per_epoch),
        rewind_step=duration_steps(spec.rewind.step, steps_per_epoch),
        rates=network.rates,
        parameters=network.rows(spec.pruning.fraction),
        native=native_code(spec, network.model, shape),
        data=f"{whole.name}: {examples} training, {len(splits.validation.labels)} validation, "
        f"{len(splits.test.labels)} test images of {'×'.join(map(str, scaled))}"
        f"{f', padded to {shape[0]}×{shape[1]}' if shape != scaled else ''} ({whole.origin})",
    )


def load(spec: Spec) -> data.Dataset:
    """Returns the dataset that the spec names, whole.

    Raises:
      DataError: it cannot be had.
    """
    return data.load(
        spec.data.name,
        data_dir=spec.data.data_dir,
        manual_dir=spec.data.manual_dir,
        cache_dir=spec.data.cache_dir,
    )


def split(spec: Spec, whole: data.Dataset, shape: tuple[int, int, int]) -> data.Splits:
    """Returns the spec's part of a dataset, split, its images padded to `shape`.

    Raises:
      DataError: the sizes do not fit it.
    """
    return data.split(
        data.padded(whole, shape[:2]),
        validation_size=spec.data.validation_size,
        train_size=spec.data.train_size,
        test_size=spec.data.test_size,
        classes=spec.data.classes,
        remap=spec.data.labels == "remapped",
        part=spec.data.part,
    )


def native_code(spec: Spec, model: Model, shape: tuple[int, ...]) -> NativeCode:
    """Returns what native code computes of the spec's network, for images of `shape`.

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
    """Returns the optimizer that a spec names, with its hyperparameters and learning rates."""
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


def _check_images(spec: Spec, shape: tuple[int, ...]) -> None:
    """Checks that images of that shape can be scaled, moved and mirrored as the spec asks."""
    d = spec.data
    data.check_images(d.name, shape, side=d.side, channels=d.channels, crop=d.crop, flip=d.flip)


def _check_durations(spec: Spec, examples: int) -> None:
    """Checks that batches and steps, the trunk's and the branches', fit that many examples."""
    _check_training(spec, spec.train, examples)
    for name in spec.branches:
        _check_training(spec, spec.branch_spec(name).train_spec(spec.train), examples, name)


def _check_training(spec: Spec, train: TrainSpec, examples: int, branch: str = "") -> None:
    place = f"config.branch.{branch}." if branch else "config.train."
    if examples < train.batch_size:
        raise SpecError(
            f"{place}batch_size={train.batch_size}: accepted: at most the "
            f"{examples} training examples"
        )
    steps = duration_steps(train.steps, examples // train.batch_size)
    if steps == 0:
        raise SpecError(f"{place}steps={train.steps!r}: accepted: at least one step")
    per_epoch = examples // spec.train.batch_size
    if duration_steps(spec.rewind.step, per_epoch) >= steps:
        field = "rewind.step" if not branch else f"branch.{branch}.steps"
        value = spec.rewind.step if not branch else train.steps
        wanted = f"steps before the last, {steps}" if not branch else "more than rewind.step"
        raise SpecError(f"config.{field}={value!r}: accepted: {wanted}")
