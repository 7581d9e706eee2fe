"""What all contenders work on: the experiment of `configs/lenet_mnist.py`, at its level 0."""

from __future__ import annotations

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import data
from lth_jax.commands.configs import load_config
from lth_jax.errors import DataError
from lth_jax.models import MODELS
from lth_jax.models.base import Model
from lth_jax.rng import derive
from lth_jax.spec import Spec, from_config
from lth_jax.training import epoch_order


@dataclasses.dataclass(frozen=True)
class Problem:
    """The data, the network and its starting point, the same for every contender.

    Attributes:
      spec: batch size, learning rate, evaluation and so on.
      splits: images uint8 [n, 28, 28, 1], labels int32 [n].
      scale: what images are multiplied with.
      source: where the data comes from, for people.
      model: our network.
      params: its initial parameters, NumPy, by layer and then `kernel` [in, out] or `bias`.
      first_order: the permutation of epoch 0, int32 [n]: equal batches, so equal losses.
    """

    spec: Spec
    splits: data.Splits
    scale: float
    source: str
    model: Model
    params: dict[str, dict[str, np.ndarray]]
    first_order: np.ndarray

    @property
    def key(self) -> jax.Array:
        """The key of batch orders that the real loop gives replicate 0."""
        return derive(self.spec.seed, "data", 0)

    @property
    def widths(self) -> tuple[int, ...]:
        """Layer widths from the input to the logits."""
        pixels = int(np.prod(self.splits.train.images.shape[1:]))
        return (pixels, *self.spec.model.hidden, self.params["output"]["bias"].size)


def make_problem(kind: str, data_dir: str) -> Problem:
    """The problem on `kind` of data: `mnist`, `synthetic`, or `auto`: MNIST where it can be had."""
    spec = from_config(load_config("configs/lenet_mnist.py", [], ()))
    whole = synthetic() if kind == "synthetic" else load_mnist(data_dir, kind == "auto")
    splits = data.split(whole, validation_size=spec.data.validation_size)
    model = MODELS[spec.model.name].make(whole.num_classes, hidden=spec.model.hidden)
    example = jnp.zeros((1, *whole.train_images.shape[1:]), jnp.float32)
    params = model.init(derive(spec.seed, "init", 0), example)["params"]
    problem = Problem(
        spec, splits, whole.scale, whole.origin, model, jax.device_get(params), np.empty(0)
    )
    order = epoch_order(jax.random.fold_in(problem.key, 0), jnp.int32(0), len(splits.train.labels))
    return dataclasses.replace(problem, first_order=np.asarray(order))


def load_mnist(data_dir: str, may_fail: bool) -> data.Dataset:
    """MNIST, as a run would load it; in its place, if it `may_fail`, random images."""
    try:
        return data.load("mnist", data_dir=data_dir)
    except DataError as error:
        if not may_fail:
            sys.exit(str(error))
        print(f"No MNIST, so on random images: {error}\n")
        return synthetic()


def synthetic() -> data.Dataset:
    """Random images of MNIST's shapes; the labels too are random, so nothing can be learned."""
    random = np.random.default_rng(0)

    def images(count: int) -> np.ndarray:
        return random.integers(0, 256, (count, 28, 28, 1), np.uint8)

    def labels(count: int) -> np.ndarray:
        return random.integers(0, 10, count, np.int32)

    origin = "RANDOM uint8 images of MNIST's shape, not MNIST"
    parts = images(60_000), labels(60_000), images(1_000), labels(1_000)
    return data.Dataset("synthetic", *parts, num_classes=10, scale=1 / 255, origin=origin)
