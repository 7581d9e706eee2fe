"""From a spec to what it names: model, data, optimizer, criterion, and the numbers of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import jax.numpy as jnp
import optax

from lth_jax import data
from lth_jax.config import Spec, TrainSpec, duration_steps
from lth_jax.errors import SpecError, nearest
from lth_jax.lottery.branches import BRANCHES, new_heads
from lth_jax.lottery.experiment import Experiment, kernels_of, optimizer_of
from lth_jax.lottery.networks import (
    check_known,
    check_model,
    classes_of,
    model_of,
    parameters_of,
    pixels_of,
    shape_of,
)
from lth_jax.lottery.observer import ParameterRow
from lth_jax.models import MODELS
from lth_jax.models.base import Model
from lth_jax.pruning import schedules
from lth_jax.pruning.criteria import CRITERIA
from lth_jax.pruning.masks import exact, prunable
from lth_jax.pruning.trees import PyTree, named_leaves, size
from lth_jax.training.optimizers import OPTIMIZERS
from lth_jax.training.states import Examples, in_batches


def check(spec: Spec) -> None:
    """Whether everything that the spec names exists; before any data or compilation.

    Raises:
      SpecError: an unknown name; says which names there are.
      DataError: an unknown dataset.
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
    if facts:
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
        examples = spec.data.train_size or facts.train - spec.data.validation_size
        _check_shapes(spec, shape_of(spec, facts.shape), classes_of(spec, facts.classes), examples)


def check_transfers(spec: Spec, source: Spec) -> None:
    """Whether `source`'s networks fit `spec`'s; loads a dataset that nothing is known of.

    Raises:
      SpecError: they differ in more than the output layer.
      DataError: the data cannot be had.
    """
    shapes = []
    for one in (source, spec):
        facts = data.facts(one.data.name) or data.facts_of(load(one))
        shape, classes = shape_of(one, facts.shape), classes_of(one, facts.classes)
        shapes.append(_check_shapes(one, shape, classes, facts.train)[2])
    try:
        new_heads(*shapes)
    except ValueError as error:
        raise SpecError(f"config.source: {error}") from None


def build(spec: Spec) -> Experiment:
    """Loads the data and builds everything.

    Raises:
      SpecError: a name, or a combination that the data shows to be wrong.
      DataError: the data cannot be had, or the split sizes do not fit it.
    """
    check(spec)
    whole = load(spec)
    _check_images(spec, whole.train_images.shape[1:])
    whole = data.reshaped(whole, side=spec.data.side, channels=spec.data.channels)
    drawn = whole.train_images.shape[1:]
    shape = shape_of(spec, drawn)
    pixels = pixels_of(spec, whole)
    whole = data.padded(whole, shape[:2])
    splits = data.split(
        whole,
        validation_size=spec.data.validation_size,
        train_size=spec.data.train_size,
        test_size=spec.data.test_size,
        classes=spec.data.classes,
        remap=spec.data.labels == "remapped",
        part=spec.data.part,
    )
    examples = len(splits.train.labels)
    classes = classes_of(spec, whole.num_classes)
    model, optimizer, params = _check_shapes(spec, shape, classes, examples)
    rates = prunable(params, spec.pruning.layer_rates)
    steps_per_epoch = examples // spec.train.batch_size
    batch = spec.eval.batch_size
    return Experiment(
        spec=spec,
        model=model,
        optimizer=optimizer,
        criterion=CRITERIA[spec.pruning.criterion],
        targets=targets_of(spec, params, rates),
        train=Examples(jnp.asarray(splits.train.images), jnp.asarray(splits.train.labels)),
        validation=in_batches(splits.validation.images, splits.validation.labels, batch),
        test=in_batches(splits.test.images, splits.test.labels, batch),
        example=jnp.zeros((1, *shape), jnp.float32),
        pixels=pixels,
        steps=duration_steps(spec.train.steps, steps_per_epoch),
        eval_every=duration_steps(spec.eval.every, steps_per_epoch),
        rewind_step=duration_steps(spec.rewind.step, steps_per_epoch),
        rates=rates,
        parameters=_parameter_rows(spec, params, rates),
        kernels=kernels_of(spec, model, shape),
        data=f"{whole.name}: {examples} training, {len(splits.validation.labels)} validation, "
        f"{len(splits.test.labels)} test images of {'×'.join(map(str, drawn))}"
        f"{f', padded to {shape[0]}×{shape[1]}' if shape != drawn else ''} ({whole.origin})",
    )


def load(spec: Spec) -> data.Dataset:
    """The dataset that the spec names, whole.

    Raises:
      DataError: it cannot be had.
    """
    return data.load(
        spec.data.name,
        data_dir=spec.data.data_dir,
        manual_dir=spec.data.manual_dir,
        cache_dir=spec.data.cache_dir,
    )


def _check_images(spec: Spec, shape: tuple[int, ...]) -> None:
    """Whether images of that shape can be scaled, moved and mirrored as the spec asks."""
    d = spec.data
    data.check_images(d.name, shape, side=d.side, channels=d.channels, crop=d.crop, flip=d.flip)


def targets_of(
    spec: Spec, params: PyTree, rates: Mapping[str, Fraction]
) -> tuple[schedules.Targets, ...]:
    """What each ranked group keeps at levels 0 to `spec.levels`.

    Raises:
      SpecError: a group would be pruned to nothing, or the scope does not take these rates.
    """
    pruning = spec.pruning
    if pruning.densities:
        fractions = schedules.fractions_of(pruning.densities)[: spec.levels]
    else:
        fractions = [exact(pruning.fraction)] * spec.levels
    shapes = {name: tuple(leaf.shape) for name, leaf in named_leaves(params).items()}
    try:
        by_level = schedules.targets(shapes, rates, fractions, scope=pruning.scope)
    except ValueError as error:
        raise SpecError(f"config.pruning.{error}") from None
    for level, kept in enumerate(by_level):
        empty = [name for names, count in kept.items() if not count for name in names]
        if empty:
            raise SpecError(
                f"config.levels={spec.levels}: level {level} would prune {', '.join(empty)} to "
                f"nothing; accepted: 0 to {level - 1}, or a smaller pruning.fraction"
            )
    return tuple(by_level)


def _check_shapes(
    spec: Spec, shape: tuple[int, ...], classes: int, examples: int
) -> tuple[Model, optax.GradientTransformation, PyTree]:
    """Model, optimizer and parameter shapes, provided that the spec fits data of that shape."""
    _check_training(spec, spec.train, examples)
    model = model_of(spec, classes)
    optimizer = optimizer_of(spec, examples // spec.train.batch_size)
    params = parameters_of(spec, model, shape, classes)
    try:
        rates = prunable(params, spec.pruning.layer_rates)
    except ValueError as error:
        raise SpecError(f"config.pruning.{error}") from None
    targets_of(spec, params, rates)
    for name in spec.branches:
        _check_training(spec, spec.branch_spec(name).train_spec(spec.train), examples, name)
    return model, optimizer, params


def _check_training(spec: Spec, train: TrainSpec, examples: int, branch: str = "") -> None:
    """Whether `train`, the spec's or a branch's, fits that many training examples."""
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


def _parameter_rows(
    spec: Spec, params: PyTree, rates: Mapping[str, Fraction]
) -> tuple[ParameterRow, ...]:
    fraction = exact(spec.pruning.fraction)
    return tuple(
        ParameterRow(
            name,
            tuple(leaf.shape),
            size(leaf),
            name in rates,
            float(rates.get(name, Fraction(0)) * fraction),
        )
        for name, leaf in named_leaves(params).items()
    )
