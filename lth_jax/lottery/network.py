"""The network that a spec names: all that is known of it before any data is loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lth_jax import data
from lth_jax.config import ModelSpec, Spec, to_dict
from lth_jax.errors import SpecError, nearest
from lth_jax.lottery.observer import ParameterRow
from lth_jax.models import DTYPES, INITIALIZERS, MODELS, STEMS, ZOO
from lth_jax.models.base import Model
from lth_jax.pruning import schedules
from lth_jax.pruning.masks import exact, prunable
from lth_jax.pruning.trees import PyTree, named_leaves, size
from lth_jax.training.pixels import Pixels, statistics


class Network(NamedTuple):
    """A spec's network, for images of one shape and a number of classes.

    Attributes:
      model: the network.
      shape: of an image as it takes it, (height, width, channels).
      classes: the number of its logits.
      params: the parameters' shapes.
      rates: what may be pruned: leaf name -> multiple of `pruning.fraction`.
      targets: what each ranked group keeps, by level.
    """

    model: Model
    shape: tuple[int, int, int]
    classes: int
    params: PyTree
    rates: Mapping[str, Fraction]
    targets: tuple[schedules.Targets, ...]

    def rows(self, fraction: float) -> tuple[ParameterRow, ...]:
        """Returns a row for each leaf; `fraction` is `pruning.fraction`."""
        return tuple(
            ParameterRow(
                name,
                tuple(leaf.shape),
                size(leaf),
                name in self.rates,
                float(self.rates.get(name, Fraction(0)) * exact(fraction)),
            )
            for name, leaf in named_leaves(self.params).items()
        )


def network_of(spec: Spec, shape: tuple[int, ...], classes: int) -> Network:
    """Returns the spec's network for a dataset.

    Args:
      spec: the spec.
      shape: of an image of the dataset, (height, width, channels), before `data.side` and its like.
      classes: how many the dataset has.

    Raises:
      SpecError: the network cannot be made, does not take such images, has no such layers, or a
        level would prune a group of them to nothing.
    """
    shape, classes = shape_of(spec, shape), classes_of(spec, classes)
    model = model_of(spec, classes)
    params = parameters_of(spec, model, shape, classes)
    try:
        rates = prunable(params, spec.pruning.layer_rates)
    except ValueError as error:
        raise SpecError(f"config.pruning.{error}") from None
    return Network(model, shape, classes, params, rates, targets_of(spec, params, rates))


def model_of(spec: Spec, classes: int) -> Model:
    """Returns the network that the spec names, for that many classes.

    Raises:
      SpecError: a custom network cannot be made.
    """
    member, defaults = MODELS[spec.model.name], ModelSpec()
    given = {
        name: value
        for name in member.options()
        if (value := getattr(spec.model, name)) != getattr(defaults, name)
    }
    with _named(spec):
        return member.make(classes, **given)


def check_model(spec: Spec) -> None:
    """Checks that the model's options are known, and such as it takes."""
    check_known("model.init", spec.model.init, INITIALIZERS)
    check_known("model.stem", spec.model.stem, STEMS)
    check_known("model.dtype", spec.model.dtype, DTYPES)
    taken = MODELS[spec.model.name].options()
    for name, default in to_dict(ModelSpec()).items():
        value = getattr(spec.model, name)
        if name not in ("name", *taken) and value != default:
            raise SpecError(
                f"config.model.{name}={value!r}: {spec.model.name} does not take it; "
                f"accepted: {', '.join(taken)}"
            )


def parameters_of(spec: Spec, model: Model, shape: tuple[int, ...], classes: int) -> PyTree:
    """Returns the parameters' shapes, provided that the network takes such images.

    A custom network is asked for its logits, too: one of the zoo gives what it should.
    """
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)

    def run(key: jax.Array, images: jax.Array) -> tuple[Any, Any]:
        variables = model.init(key, images)
        return variables, model.apply(variables, images, False, {})

    with _named(spec):
        if spec.model.name in ZOO:
            return jax.eval_shape(model.init, jax.random.key(0), images)["params"]
        variables, answer = jax.eval_shape(run, jax.random.key(0), images)
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise SpecError("apply gave no pair; accepted: (logits, new_state)")
        if getattr(answer[0], "shape", None) != (1, classes):
            given = jax.tree.map(lambda leaf: leaf.shape, answer[0])
            raise SpecError(
                f"for one image of {'×'.join(map(str, shape))} it gives logits of shape {given}; "
                f"accepted: (1, {classes}), one for each class"
            )
        return variables["params"]


@contextlib.contextmanager
def _named(spec: Spec) -> Iterator[None]:
    """Turns whatever a network raises into one line that names it."""
    try:
        yield
    except Exception as error:  # a user's own code raises of every kind
        if isinstance(error, SpecError):
            line = str(error)
        else:
            line = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise SpecError(f"config.model.name={spec.model.name!r}: {line}") from error


def shape_of(spec: Spec, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Returns the shape of an image as the network takes it: after `data.side` and its like.

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


def classes_of(spec: Spec, count: int) -> int:
    """Returns the number of logits for a dataset of `count` classes."""
    remapped = spec.data.classes and spec.data.labels == "remapped"
    return len(spec.data.classes) if remapped else count


def targets_of(
    spec: Spec, params: PyTree, rates: Mapping[str, Fraction]
) -> tuple[schedules.Targets, ...]:
    """Returns what each ranked group keeps at levels 0 to `spec.levels`.

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


def pixels_of(spec: Spec, whole: data.Dataset) -> Pixels:
    """Returns how the network sees the images of the whole dataset."""
    standard = ((), ())
    if spec.data.standardize:
        standard = statistics(whole.train_images, whole.scale)
    return Pixels(whole.scale, *standard, crop=spec.data.crop, flip=spec.data.flip)


def check_known(field: str, name: str, registry: Iterable[str]) -> None:
    """Raises a SpecError, with the nearest name, unless `name` is in `registry`."""
    if name not in registry:
        raise SpecError(f"config.{field}={name!r}: no such name; {nearest(name, registry)}")
