"""A run's network as it is used after training: in float32, with the images it is tested on."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import numpy as np

from lth_jax import data
from lth_jax.config import Spec
from lth_jax.lottery import experiment, network
from lth_jax.models import Model
from lth_jax.pruning.trees import PyTree
from lth_jax.training.pixels import Pixels


class Inference(NamedTuple):
    """A run's network, and the images it is tested on.

    Attributes:
      model: the network, computing in float32.
      pixels: how stored images become what it sees.
      image_shape: of an image of the dataset, (height, width, channels).
      shape: of an image as the network takes it, with black pixels around it where it is padded.
      images: the run's test images as stored, uint8 [n, *shape]; labels: int32 [n].
      names: of the classes, one for each logit.
      origin: of the data, one phrase.
    """

    model: Model
    pixels: Pixels
    image_shape: tuple[int, int, int]
    shape: tuple[int, int, int]
    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    origin: str

    @property
    def unpadded(self) -> tuple[slice, slice]:
        """The rows and the columns of an image [*shape] that are not black pixels around it."""
        rows, columns = (
            slice((outside - inside) // 2, (outside - inside) // 2 + inside)
            for outside, inside in zip(self.shape[:2], self.image_shape[:2], strict=True)
        )
        return rows, columns

    def probabilities(self, variables: PyTree, images: np.ndarray) -> np.ndarray:
        """Returns the probabilities of the classes for stored images: float32 [n, classes]."""

        @jax.jit
        def apply(stored: jax.Array) -> jax.Array:
            logits, _ = self.model.apply(variables, self.pixels.prepared(stored), False, {})
            return jax.nn.softmax(logits)

        return np.asarray(apply(images))


def inference_of(spec: Spec) -> Inference:
    """Returns the network of a run with this spec, and its test images.

    Raises:
      SpecError: a name that this version, or this machine, does not have.
      DataError: the data cannot be had.
    """
    experiment.check(spec)
    whole = data.reshaped(experiment.load(spec), side=spec.data.side, channels=spec.data.channels)
    height, width, channels = whole.train_images.shape[1:]
    shape = network.shape_of(spec, (height, width, channels))
    names = whole.class_names or tuple(map(str, range(whole.num_classes)))
    if spec.data.classes and spec.data.labels == "remapped":
        names = tuple(names[label] for label in spec.data.classes)
    test = experiment.split(spec, whole, shape).test
    return Inference(
        model=model_of(spec, network.classes_of(spec, whole.num_classes)),
        pixels=network.pixels_of(spec, whole),
        image_shape=(height, width, channels),
        shape=shape,
        images=test.images,
        labels=test.labels,
        names=names,
        origin=whole.origin,
    )


def model_of(spec: Spec, classes: int) -> Model:
    """Returns the network of a spec, computing in float32 whatever it was trained in."""
    exact = dataclasses.replace(spec, model=dataclasses.replace(spec.model, dtype="float32"))
    return network.model_of(exact, classes)
