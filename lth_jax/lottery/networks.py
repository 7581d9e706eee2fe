"""From a spec to its network: which one, what it takes, and how it sees images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from lth_jax import data
from lth_jax.config import ModelSpec, Spec, to_dict
from lth_jax.errors import SpecError, nearest
from lth_jax.models import DTYPES, INITIALIZERS, MODELS, STEMS, ZOO
from lth_jax.models.base import Model
from lth_jax.pruning.trees import PyTree
from lth_jax.training.pixels import Pixels, statistics


def model_of(spec: Spec, classes: int) -> Model:
    """The network that the spec names, for that many classes.

    Raises:
      SpecError: a user's own network cannot be made.
    """
    member, defaults = MODELS[spec.model.name], ModelSpec()
    given = {
        name: value
        for name in member.options()
        if (value := getattr(spec.model, name)) != getattr(defaults, name)
    }
    if given.get("dropout", 0) < 0:
        del given["dropout"]
    with _named(spec):
        return member.make(classes, **given)


def check_model(spec: Spec) -> None:
    """Whether the model's options are known, and such as it takes."""
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
    """The parameters' shapes, provided that the network takes such images and gives logits."""
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
    """What a network raises, as one line that names it."""
    try:
        yield
    except Exception as error:  # a user's own code raises of every kind
        if isinstance(error, SpecError):
            line = str(error)
        else:
            line = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise SpecError(f"config.model.name={spec.model.name!r}: {line}") from error


def shape_of(spec: Spec, shape: tuple[int, ...]) -> tuple[int, int, int]:
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


def classes_of(spec: Spec, count: int) -> int:
    """The number of logits for a dataset of `count` classes."""
    remapped = spec.data.classes and spec.data.labels == "remapped"
    return len(spec.data.classes) if remapped else count


def pixels_of(spec: Spec, whole: data.Dataset) -> Pixels:
    """How the network sees the images of the whole dataset."""
    standard = ((), ())
    if spec.data.standardize:
        standard = statistics(whole.train_images, whole.scale)
    return Pixels(whole.scale, *standard, crop=spec.data.crop, flip=spec.data.flip)


def check_known(field: str, name: str, registry: Iterable[str]) -> None:
    """Raises a SpecError, with the nearest name, unless `name` is in `registry`."""
    if name not in registry:
        raise SpecError(f"config.{field}={name!r}: no such name; {nearest(name, registry)}")
