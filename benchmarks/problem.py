"""What all contenders of a benchmark work on: the experiment of a config, at its level 0."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lth_jax import data
from lth_jax.config import Spec, from_config
from lth_jax.config.files import load_config
from lth_jax.errors import DataError
from lth_jax.lottery.network import model_of, pixels_of
from lth_jax.lottery.optimizing import optimizer_of
from lth_jax.models.base import Model
from lth_jax.training.keys import derive
from lth_jax.training.order import epoch_order
from lth_jax.training.pixels import Pixels


@dataclasses.dataclass(frozen=True)
class Problem:
    """Holds the data, the network and its starting point, the same for every contender.

    Attributes:
      spec: batch size, learning rate, evaluation and so on.
      splits: images uint8 [n, height, width, channels], labels int32 [n].
      pixels: how they become what the network sees.
      source: where the data comes from, for people.
      model, optimizer: ours.
      params: its initial parameters, NumPy, by layer and then `kernel` [in, out] or
        [height, width, in, out], `bias`, and so on.
      model_state: its other collections, such as batch statistics.
      first_order: the permutation of epoch 0, int32 [n]: equal batches, so equal losses.
    """

    spec: Spec
    splits: data.Splits
    pixels: Pixels
    source: str
    model: Model
    optimizer: optax.GradientTransformation
    params: dict[str, dict[str, np.ndarray]]
    model_state: dict[str, dict]
    first_order: np.ndarray

    @property
    def key(self) -> jax.Array:
        """Returns the key of batch orders that the real loop gives replicate 0."""
        return self.run_key(0)

    def run_key(self, replicate: int) -> jax.Array:
        """Returns the key of batch orders that the real loop gives a replicate."""
        return derive(self.spec.seed, "data", replicate)

    @property
    def widths(self) -> tuple[int, ...]:
        """Returns the layer widths from the input to the logits."""
        pixels = int(np.prod(self.splits.train.images.shape[1:]))
        return (pixels, *self.spec.model.hidden, self.params["output"]["bias"].size)


def make_problem(
    kind: str, data_dir: str, config: str = "configs/lenet_mnist.py", overrides: Sequence[str] = ()
) -> Problem:
    """Returns the problem of a config on `kind` of data.

    Args:
      kind: `real`, `synthetic`, or `auto`: the config's dataset where it can be had.
      data_dir: of prepared datasets.
      config: the config file.
      overrides: of its fields, as `a.b=value`.
    """
    spec = from_config(load_config(config, overrides, ()))
    name = spec.data.name
    whole = synthetic(name) if kind == "synthetic" else load(name, data_dir, kind == "auto")
    splits = data.split(whole, validation_size=spec.data.validation_size)
    model = model_of(spec, whole.num_classes)
    example = jnp.zeros((1, *whole.train_images.shape[1:]), jnp.float32)
    state = dict(jax.device_get(model.init(derive(spec.seed, "init", 0), example)))
    examples = len(splits.train.labels)
    problem = Problem(
        spec=spec,
        splits=splits,
        pixels=pixels_of(spec, whole),
        source=whole.origin,
        model=model,
        optimizer=optimizer_of(spec, examples // spec.train.batch_size),
        params=state.pop("params"),
        model_state=state,
        first_order=np.empty(0),
    )
    order = epoch_order(jax.random.fold_in(problem.key, 0), jnp.int32(0), examples)
    return dataclasses.replace(problem, first_order=np.asarray(order))


def load(name: str, data_dir: str, may_fail: bool) -> data.Dataset:
    """Loads the dataset as a run does; returns random images if it fails and `may_fail`."""
    try:
        return data.load(name, data_dir=data_dir)
    except DataError as error:
        if not may_fail:
            sys.exit(str(error))
        print(f"No {name}, so on random images: {error}\n")
        return synthetic(name)


def synthetic(name: str, tests: int = 1_000) -> data.Dataset:
    """Returns random images of a dataset's shape, with random labels: nothing can be learned.

    Args:
      name: that of the dataset.
      tests: the number of test images.
    """
    random = np.random.default_rng(0)
    facts = data.facts(name)
    assert facts is not None, f"nothing is known of {name}"

    def images(count: int) -> np.ndarray:
        return random.integers(0, 256, (count, *facts.shape), np.uint8)

    def labels(count: int) -> np.ndarray:
        return random.integers(0, facts.classes, count, np.int32)

    origin = f"RANDOM uint8 images of {name}'s shape, not {name}"
    parts = images(facts.train), labels(facts.train), images(tests), labels(tests)
    return data.Dataset("synthetic", *parts, facts.classes, scale=1 / 255, origin=origin)
