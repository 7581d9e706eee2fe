"""EMNIST: TFDS keeps its images on their side, and its letters count from 1."""

import pytest
import tensorflow_datasets as tfds
from PIL import Image

from lth_jax.data import load
from lth_jax.errors import DataError

from .fake_data import examples, multiset, prepare


def emnist(folder, *, labels, classes):
    features = {
        "image": tfds.features.Image(shape=(28, 28, 1)),
        "label": tfds.features.ClassLabel(num_classes=classes),
    }
    train = [
        {**example, "label": label}
        for example, label in zip(examples(len(labels), shape=(28, 28)), labels, strict=True)
    ]
    prepare(folder, train=train, test=train, features=features, name="emnist/letters")
    return train, {"data_dir": str(folder), "cache_dir": str(folder / "cache")}


def test_emnist_stands_upright_and_counts_from_zero_whether_cached_or_not(tmp_path):
    train, directories = emnist(tmp_path, labels=range(1, 27), classes=37)
    upright = [
        (label - 1, image.transpose(Image.Transpose.TRANSPOSE))
        for label, image in ((example["label"], example["image"]) for example in train)
    ]
    wanted = sorted((label, image.tobytes()) for label, image in upright)
    for origin in ("prepared", "cache", "cache"):
        dataset = load("emnist/letters", **directories)
        assert dataset.origin.startswith(origin)
        assert dataset.origin.endswith(", images turned upright")
        assert multiset(dataset.train_images, dataset.train_labels) == wanted
        assert multiset(dataset.test_images, dataset.test_labels) == wanted
        assert dataset.num_classes == 26
        assert dataset.train_images.flags.c_contiguous


def test_a_part_of_emnist_that_lacks_a_letter_is_refused(tmp_path):
    _, directories = emnist(tmp_path, labels=range(2, 27), classes=37)
    with pytest.raises(DataError, match="of 28×28×1 in 25 classes; accepted: 28×28×1 in 26"):
        load("emnist/letters", **directories)
