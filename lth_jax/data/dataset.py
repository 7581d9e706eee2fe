"""What a dataset is in memory, and how it is split: the same way for every seed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lth_jax.errors import DataError

# Seeds every fixed shuffle of this package. A constant, so that no choice of a run reaches it.
_SHUFFLE_SEED = 20190307


class Dataset(NamedTuple):
    """A labelled image dataset, whole, as it came from its source.

    Attributes:
      name: as in the config, such as `mnist`.
      train_images: uint8 `[n, height, width, channels]`.
      train_labels: int32 `[n]`, in `0 .. num_classes - 1`.
      test_images: uint8 `[m, height, width, channels]`.
      test_labels: int32 `[m]`.
      num_classes: how many classes there are.
      scale: `pixel * scale` lies in [0, 1].
      origin: where the data came from, one phrase for the header of a run.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    num_classes: int
    scale: float
    origin: str


class Facts(NamedTuple):
    """What is known of a dataset before it is loaded, so that a spec can be refused at once.

    Attributes:
      shape: of an image, (height, width, channels).
      classes: how many there are.
      train: training examples.
      test: test examples.
    """

    shape: tuple[int, ...]
    classes: int
    train: int
    test: int


class Split(NamedTuple):
    """Images uint8 `[n, height, width, channels]` and their labels int32 `[n]`."""

    images: np.ndarray
    labels: np.ndarray


class Splits(NamedTuple):
    """Train on one, choose by the second, report the third."""

    train: Split
    validation: Split
    test: Split


def fixed_permutation(size: int) -> np.ndarray:
    """A permutation of `0 .. size - 1` (int64 `[size]`) that depends on `size` alone."""
    # RandomState, not Generator: its streams are frozen over all versions of NumPy.
    return np.random.RandomState(_SHUFFLE_SEED).permutation(size)


def split(
    dataset: Dataset, *, validation_size: int, train_size: int = 0, test_size: int = 0
) -> Splits:
    """Takes the validation split off the training set, and cuts the rest to size.

    Which examples are where depends on the dataset and on the sizes, never on a seed: no ticket
    can have seen, in another run, what it is later judged by. The validation split is taken first,
    so that it stays the same whatever `train_size`; a smaller training or test split is a part of
    a larger one.

    Args:
      dataset: what to split; it is not changed.
      validation_size: examples to hold out, at least 1.
      train_size: examples to train on; 0 is all that remain.
      test_size: examples to test on; 0 is all of them.

    Raises:
      DataError: a size that the dataset does not allow.
    """
    available, tests = len(dataset.train_labels), len(dataset.test_labels)
    check_sizes(
        dataset.name,
        available,
        tests,
        validation_size=validation_size,
        train_size=train_size,
        test_size=test_size,
    )
    shuffled = fixed_permutation(available)
    validation, train = shuffled[:validation_size], shuffled[validation_size:]
    test = fixed_permutation(tests)[:test_size] if test_size else slice(None)
    train = train[:train_size] if train_size else train
    return Splits(
        train=Split(dataset.train_images[train], dataset.train_labels[train]),
        validation=Split(dataset.train_images[validation], dataset.train_labels[validation]),
        test=Split(dataset.test_images[test], dataset.test_labels[test]),
    )


def check_sizes(
    name: str, available: int, tests: int, *, validation_size: int, train_size: int, test_size: int
) -> None:
    """Whether splits of these sizes can be taken from `available` training and `tests` examples.

    Raises:
      DataError: they cannot; names the field, its value and what is accepted.
    """
    having = f"{name} has {available} training images"
    _check_size("validation_size", validation_size, 1, available - 1, having)
    remaining = available - validation_size
    having = f"{having}, {validation_size} of them for validation"
    _check_size("train_size", train_size, 0, remaining, having)
    _check_size("test_size", test_size, 0, tests, f"{name} has {tests} test images")


def _check_size(field: str, value: int, least: int, most: int, having: str) -> None:
    if not least <= value <= most:
        whole = " (0 is all)" if least == 0 else ""
        raise DataError(
            f"config.data.{field}={value}: {having}; accepted: {least} to {most}{whole}"
        )
