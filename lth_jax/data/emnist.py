"""EMNIST, which TFDS keeps as NIST published it: each image lies on its side, mirrored."""

from __future__ import annotations

import numpy as np

from lth_jax.data import tfds_names
from lth_jax.data.dataset import Dataset
from lth_jax.data.places import Places


def load(name: str, places: Places) -> Dataset:
    """A variant of EMNIST, such as `emnist/letters`, its images turned upright as MNIST's are.

    They are cached as they were prepared, and turned after that: never twice, whoever cached them.
    Labels count from 0, those of the letters too (see `prepared.read`).

    Source: Cohen et al. 2017, and TFDS's own note that images want transposing.

    Raises:
      DataError: see `tfds_names.load`.
    """
    dataset = tfds_names.load(name, places)
    return dataset._replace(
        train_images=_upright(dataset.train_images),
        test_images=_upright(dataset.test_images),
        origin=f"{dataset.origin}, images turned upright",
    )


def _upright(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.swapaxes(1, 2))
