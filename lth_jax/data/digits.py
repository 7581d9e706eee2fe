"""The embedded dataset: scikit-learn's handwritten digits. No disk, no network, no cache."""

from __future__ import annotations

import numpy as np

from lth_jax.data.dataset import Dataset, fixed_permutation
from lth_jax.data.places import Places

_TRAIN_EXAMPLES = 1500


def load(name: str, places: Places) -> Dataset:
    """1,797 real 8 by 8 images of digits, values 0 to 16: 1,500 to train on and 297 to test.

    Source: `sklearn.datasets.load_digits`, the test set of UCI's "Optical Recognition of
    Handwritten Digits" (Alpaydin & Kaynak, 1998).
    """
    del places  # nothing is looked up: the images are inside scikit-learn
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = fixed_permutation(len(labels))
    images = images.reshape(-1, 8, 8, 1).astype(np.uint8)[order]
    labels = labels.astype(np.int32)[order]
    return Dataset(
        name=name,
        train_images=images[:_TRAIN_EXAMPLES],
        train_labels=labels[:_TRAIN_EXAMPLES],
        test_images=images[_TRAIN_EXAMPLES:],
        test_labels=labels[_TRAIN_EXAMPLES:],
        num_classes=10,
        scale=1 / 16,
        origin="embedded in scikit-learn",
    )
