"""From a spec to what it names: model, data, optimizer, criterion, and the numbers of a plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction

import jax
import jax.numpy as jnp
import optax

from lth_jax import data
from lth_jax.branches import BRANCHES, new_heads
from lth_jax.data.pixels import Pixels, statistics
from lth_jax.errors import SpecError, nearest
from lth_jax.events import ParameterRow
from lth_jax.experiment import Experiment, kernels_of, optimizer_of
from lth_jax.models import DTYPES, INITIALIZERS, MODELS, STEMS
from lth_jax.models.base import Model
from lth_jax.optimizers import OPTIMIZERS
from lth_jax.pruning import schedules
from lth_jax.pruning.criteria import CRITERIA
from lth_jax.pruning.masks import exact, prunable
from lth_jax.spec import ModelSpec, Spec, TrainSpec, duration_steps, to_dict
from lth_jax.states import Examples, in_batches
from lth_jax.trees import PyTree, named_leaves, size


def check(spec: Spec) -> None:
    """Whether everything that the spec names exists; before any data or compilation.

    Raises:
      SpecError: an unknown name; says which names there are.
      DataError: an unknown dataset.
    """
    _known("model.name", spec.model.name, MODELS)
    _check_model(spec)
    _known("train.optimizer", spec.train.optimizer, OPTIMIZERS)
    _known("pruning.criterion", spec.pruning.criterion, CRITERIA)
    if spec.pruning.at == "rewind" and CRITERIA[spec.pruning.criterion].needs_training:
        raise SpecError(
            f"config.pruning.at='rewind': {spec.pruning.criterion} compares trained weights with "
            "initial ones; accepted: trained"
        )
    data.check_name(spec.data.name)
    for name in spec.branches:
        kind = spec.branch_spec(name).kind
        field = "branches" if kind == name else f"branch.{name}.kind"
        _known(field, kind, BRANCHES)
        optimizer = spec.branch_spec(name).optimizer
        if optimizer:
            _known(f"branch.{name}.optimizer", optimizer, OPTIMIZERS)
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
        examples = spec.data.train_size or facts.train - spec.data.validation_size
        _check_shapes(spec, _shape(spec, facts.shape), _classes(spec, facts.classes), examples)


def _check_model(spec: Spec) -> None:
    """Whether the model's options are known, and such as it takes."""
    _known("model.init", spec.model.init, INITIALIZERS)
    _known("model.stem", spec.model.stem, STEMS)
    _known("model.dtype", spec.model.dtype, DTYPES)
    taken = MODELS[spec.model.name].options()
    for name, default in to_dict(ModelSpec()).items():
        value = getattr(spec.model, name)
        if name not in ("name", *taken) and value != default:
            raise SpecError(
                f"config.model.{name}={value!r}: {spec.model.name} does not take it; "
                f"accepted: {', '.join(taken)}"
            )


def _model(spec: Spec, classes: int) -> Model:
    """The network that the spec names, for that many classes."""
    member = MODELS[spec.model.name]
    given = {name: getattr(spec.model, name) for name in member.options()}
    if given.get("dropout", 0) < 0:
        del given["dropout"]
    return member.make(classes, **given)


def check_transfers(spec: Spec, source: Spec) -> None:
    """Whether `source`'s networks fit `spec`'s; loads a dataset that nothing is known of.

    Raises:
      SpecError: they differ in more than the output layer.
      DataError: the data cannot be had.
    """
    shapes = []
    for one in (source, spec):
        facts = data.facts(one.data.name) or data.facts_of(load(one))
        shape, classes = _shape(one, facts.shape), _classes(one, facts.classes)
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
    whole = data.reshaped(load(spec), side=spec.data.side, channels=spec.data.channels)
    drawn = whole.train_images.shape[1:]
    shape = _shape(spec, drawn)
    pixels = _pixels(spec, whole)
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
    classes = _classes(spec, whole.num_classes)
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


def _pixels(spec: Spec, whole: data.Dataset) -> Pixels:
    """How the network sees the images of the whole dataset."""
    standard = ((), ())
    if spec.data.standardize:
        standard = statistics(whole.train_images, whole.scale)
    return Pixels(whole.scale, *standard, crop=spec.data.crop, flip=spec.data.flip)


def _classes(spec: Spec, count: int) -> int:
    """The number of logits for a dataset of `count` classes."""
    remapped = spec.data.classes and spec.data.labels == "remapped"
    return len(spec.data.classes) if remapped else count


def _shape(spec: Spec, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The shape of an image after `data.side` and `data.channels`, as the network takes it.

    Raises:
      SpecError: it is smaller than the network takes.
    """
    height, width, channels = shape
    height, width = spec.data.side or height, spec.data.side or width
    member = MODELS[spec.model.name]
    if min(height, width) < member.least:
        raise SpecError(
            f"config.model.name={spec.model.name!r}: it takes images from {member.least}×"
            f"{member.least} pixels on, and those of {spec.data.name} are {height}×{width}; "
            f"accepted: data.side={max(member.least, member.padded)}, or another network"
        )
    padded = member.padded
    return max(height, padded), max(width, padded), spec.data.channels or channels


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


def _known(field: str, name: str, registry: Iterable[str]) -> None:
    if name not in registry:
        raise SpecError(f"config.{field}={name!r}: no such name; {nearest(name, registry)}")


def _check_shapes(
    spec: Spec, shape: tuple[int, ...], classes: int, examples: int
) -> tuple[Model, optax.GradientTransformation, PyTree]:
    """Model, optimizer and parameter shapes, provided that the spec fits data of that shape."""
    _check_training(spec, spec.train, examples)
    model = _model(spec, classes)
    optimizer = optimizer_of(spec, examples // spec.train.batch_size)
    example = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), example)["params"]
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
