"""What a run's networks look at: its test images, and how their pixels are seen."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from lth_jax import data
from lth_jax.config import Spec
from lth_jax.lottery import experiment, network
from lth_jax.models import Model
from lth_jax.training.pixels import Pixels


class View(NamedTuple):
    """A run's network and what it sees.

    Attributes:
      model: the network, computing in float32.
      pixels: how stored images become what it sees.
      drawn: the shape of an image, (height, width, channels), before black pixels around it.
      shape: after them.
      images: the run's test images as stored, uint8 [n, *shape]; labels: int32 [n].
      names: of the classes, one for each logit.
      origin: of the data, one phrase.
    """

    model: Model
    pixels: Pixels
    drawn: tuple[int, int, int]
    shape: tuple[int, int, int]
    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    origin: str


def view(spec: Spec) -> View:
    """What the networks of a run with this spec look at.

    Raises:
      SpecError: a name that this version, or this machine, does not have.
      DataError: the data cannot be had.
    """
    experiment.check(spec)
    whole = data.reshaped(experiment.load(spec), side=spec.data.side, channels=spec.data.channels)
    height, width, channels = whole.train_images.shape[1:]
    shape = network.shape_of(spec, (height, width, channels))
    pixels = network.pixels_of(spec, whole)
    names = whole.class_names or tuple(map(str, range(whole.num_classes)))
    if spec.data.classes and spec.data.labels == "remapped":
        names = tuple(names[label] for label in spec.data.classes)
    test = data.split(
        data.padded(whole, shape[:2]),
        validation_size=spec.data.validation_size,
        train_size=spec.data.train_size,
        test_size=spec.data.test_size,
        classes=spec.data.classes,
        remap=spec.data.labels == "remapped",
        part=spec.data.part,
    ).test
    model = model_of(spec, network.classes_of(spec, whole.num_classes))
    drawn = height, width, channels
    return View(model, pixels, drawn, shape, test.images, test.labels, names, whole.origin)


def model_of(spec: Spec, classes: int) -> Model:
    """The network of a spec, computing in float32 whatever it was trained in."""
    exact = dataclasses.replace(spec, model=dataclasses.replace(spec.model, dtype="float32"))
    return network.model_of(exact, classes)
