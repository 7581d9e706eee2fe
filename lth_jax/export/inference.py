"""A run's network as it is used after training: in float32, with the images it is tested on."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import numpy as np

from lth_jax import data
from lth_jax.config import Spec
from lth_jax.lottery import examples, network
from lth_jax.models import MODELS, Model
from lth_jax.pruning.trees import PyTree
from lth_jax.training.pixels import Pixels
from lth_jax.training.tasks import TASKS

_DECODED = 1000  # test images, of those that stay on disk


class Inference(NamedTuple):
    """A run's network, and the images it is tested on.

    Attributes:
      model: the network, computing in float32.
      pixels: how stored images become what it sees.
      image_shape: of an image of the dataset, (height, width, channels), or of another input.
      shape: of an image as the network takes it, with black pixels around it where it is padded.
      images: the run's test images as stored, uint8 [n, *shape]; labels: int32 [n]. Other inputs
        and targets are as `data.Dataset` has them.
      names: of the classes, one for each logit; empty where there are none.
      origin: of the data, one phrase.
    """

    model: Model
    pixels: Pixels
    image_shape: tuple[int, ...]
    shape: tuple[int, ...]
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
    # Of a finished run, its network and its data alone: what trained it need not be known here.
    network.check_known("model.name", spec.model.name, MODELS)
    network.check_model(spec)
    data.check_name(spec.data.name)
    whole = data.reshaped(examples.load(spec), side=spec.data.side, channels=spec.data.channels)
    network.check_known("task", spec.task, TASKS)
    facts = data.facts_of(whole)
    shape = network.shape_of(spec, facts.shape)
    names = whole.class_names or tuple(map(str, range(whole.num_classes)))
    if spec.data.classes and spec.data.labels != "original":
        names = tuple(names[label] for label in spec.data.classes)
    test = examples.split(spec, whole, shape).test
    if data.is_stored(test.images):  # some of them: each is decoded, which takes milliseconds
        test = data.Split(np.asarray(test.images[:_DECODED]), test.labels[:_DECODED])
    return Inference(
        model=model_of(spec, network.outputs_of(spec, facts)[-1]),
        pixels=network.pixels_of(spec, whole),
        image_shape=facts.shape,
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
