"""What a dataset is in memory, what is accepted as one, and how it is split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lth_jax.errors import DataError

# Seeds every fixed shuffle of this package. A constant, so that no choice of a run reaches it.
_SHUFFLE_SEED = 20190307


class Dataset(NamedTuple):
    """A labelled dataset, whole, as it came from its source.

    `checked` alone says which dtypes and shapes are accepted: what stores or splits a dataset
    takes arrays of any, the first axis of which counts the examples.

    Attributes:
      name: as in the config, such as `mnist`.
      train_images: uint8 or float32 `[n, height, width, channels]`.
      train_labels: int32 `[n]`, in `0 .. num_classes - 1`.
      test_images: the same of `[m, height, width, channels]`.
      test_labels: int32 `[m]`.
      num_classes: how many classes there are.
      scale: `pixel * scale` lies in [0, 1]; 1 for float images, which are taken as they are.
      origin: where the data came from, one phrase for the header of a run.
      class_names: what the classes are called; empty where nobody says so.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    num_classes: int
    scale: float
    origin: str
    class_names: tuple[str, ...] = ()


class Facts(NamedTuple):
    """What is known of a dataset before it is loaded, so that a spec can be refused at once.

    Attributes:
      shape: that of an image, (height, width, channels).
      classes: the number of classes.
      train: the number of training examples.
      test: the number of test examples.
    """

    shape: tuple[int, ...]
    classes: int
    train: int
    test: int


def facts_of(dataset: Dataset) -> Facts:
    """Returns what could have been known of a dataset before it was loaded."""
    return Facts(
        shape=dataset.train_images.shape[1:],
        classes=dataset.num_classes,
        train=len(dataset.train_labels),
        test=len(dataset.test_labels),
    )


def checked(dataset: Dataset, facts: Facts | None = None) -> Dataset:
    """Returns the dataset if its arrays are such as `Dataset` says, and fit the `facts`.

    The numbers of examples may differ from the facts: a part of a dataset is one, too.

    Raises:
      DataError: they are not; names what is wrong.
    """
    name, train, test = dataset.name, dataset.train_images, dataset.test_images
    _check_arrays(name, "train", train, dataset.train_labels)
    _check_arrays(name, "test", test, dataset.test_labels)
    if (train.shape[1:], train.dtype) != (test.shape[1:], test.dtype):
        what = " and ".join(f"{i.dtype} of {_times(i.shape[1:])}" for i in (train, test))
        raise DataError(f"{name} has {what} to train and to test on; accepted: images alike")
    check_labels(name, dataset.num_classes, dataset.train_labels, dataset.test_labels)
    found = facts_of(dataset)
    if facts and (found.shape, found.classes) != (facts.shape, facts.classes):
        what = [f"{_times(f.shape)} in {f.classes} classes" for f in (found, facts)]
        raise DataError(
            f"{name} has images of {what[0]}; accepted: {what[1]} (this is {dataset.origin})"
        )
    return dataset


def _check_arrays(name: str, split: str, images: np.ndarray, labels: np.ndarray) -> None:
    if images.dtype not in (np.uint8, np.float32) or images.ndim != 4:
        raise DataError(
            f"{name}: {split}_images is {images.dtype} of shape {images.shape}; accepted: uint8 or "
            "float32 of [n, height, width, channels]"
        )
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        what = f"{labels.dtype} of shape {labels.shape}, for {len(images)} images"
        raise DataError(f"{name}: {split}_labels is {what}; accepted: an integer for each")
    if not images.size:
        raise DataError(f"{name}: {split}_images is empty, of shape {images.shape}")
    if images.dtype == np.float32 and not np.isfinite(images).all():
        raise DataError(f"{name}: {split}_images has values that are NaN or infinite")


def check_labels(name: str, classes: int, *labels: np.ndarray) -> tuple[int, int]:
    """Returns the least and the greatest of all `labels`, integers `[n]` each.

    Raises:
      DataError: a label is not one of the `classes` classes, which count from 0.
    """
    least = min(int(part.min(initial=classes)) for part in labels)
    most = max(int(part.max(initial=-1)) for part in labels)
    if least < 0 or most >= classes:
        raise DataError(f"{name} has labels from {least} to {most}; accepted: 0 to {classes - 1}")
    return least, most


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


class Split(NamedTuple):
    """Images uint8 or float32 `[n, height, width, channels]`, and their labels int32 `[n]`."""

    images: np.ndarray
    labels: np.ndarray


class Splits(NamedTuple):
    """Training uses the first, choices the second alone, and the third is only reported."""

    train: Split
    validation: Split
    test: Split


def fixed_permutation(size: int) -> np.ndarray:
    """Returns a permutation of `0 .. size - 1`, int64 `[size]`, that depends on `size` alone."""
    # RandomState, not Generator: its streams are frozen over all versions of NumPy.
    return np.random.RandomState(_SHUFFLE_SEED).permutation(size)


def split(
    dataset: Dataset,
    *,
    validation_size: int,
    train_size: int = 0,
    test_size: int = 0,
    classes: Sequence[int] = (),
    remap: bool = True,
    part: str = "",
) -> Splits:
    """Takes the validation split off the training set, and brings the rest to size.

    Which examples are where depends on the dataset and on the sizes, never on a seed: no ticket
    can have seen, in another run, what it is later judged by. The validation split is taken first,
    so that it stays the same whatever `train_size`, `classes` and `part`; a smaller training or
    test split is a part of a larger one.

    Args:
      dataset: what to split; it is not changed.
      validation_size: examples to hold out, of all classes, at least 1.
      train_size: examples to train on; 0 is all that remain.
      test_size: examples to test on; 0 is all of them.
      classes: the classes to keep, in all splits; empty is all.
      remap: whether the kept classes count from 0, in the order given, or keep their numbers.
      part: such as `1/2`, the first of two parts of the training set, which are alike: each class
        is shared out among them.

    Raises:
      DataError: a size, class or part that the dataset does not allow.
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
    check_classes(dataset.name, dataset.num_classes, classes)
    labels, test_labels = dataset.train_labels, dataset.test_labels
    shuffled = fixed_permutation(available)
    validation = _of_classes(shuffled[:validation_size], labels, classes)
    train = _of_classes(shuffled[validation_size:], labels, classes)
    train = _part_of(train, labels, part) if part else train
    train = train[:train_size] if train_size else train
    test = fixed_permutation(tests) if test_size else np.arange(tests)
    test = _of_classes(test, test_labels, classes)
    test = test[:test_size] if test_size else test
    for what, chosen in (("training", train), ("validation", validation), ("test", test)):
        if not len(chosen):
            raise DataError(
                f"config.data.classes={tuple(classes)}: no {what} example is left; accepted: "
                "classes and sizes that leave some"
            )
    numbers = _numbers(dataset.num_classes, classes if remap else ())
    return Splits(
        train=Split(dataset.train_images[train], numbers[labels[train]]),
        validation=Split(dataset.train_images[validation], numbers[labels[validation]]),
        test=Split(dataset.test_images[test], numbers[test_labels[test]]),
    )


def _of_classes(chosen: np.ndarray, labels: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    return chosen[np.isin(labels[chosen], classes)] if classes else chosen


def _part_of(chosen: np.ndarray, labels: np.ndarray, part: str) -> np.ndarray:
    """Returns part `i` of `i/n`: of each class, every n-th example from the i-th on."""
    number, parts = map(int, part.split("/"))
    rank = np.zeros(len(chosen), np.int64)
    for label in np.unique(labels[chosen]):
        same = labels[chosen] == label
        rank[same] = np.arange(same.sum())
    return chosen[rank % parts == number - 1]


def _numbers(count: int, classes: Sequence[int]) -> np.ndarray:
    """Returns the new label of each old one, int32 [count]."""
    numbers = np.arange(count, dtype=np.int32)
    numbers[list(classes)] = np.arange(len(classes), dtype=np.int32)
    return numbers


def check_classes(name: str, count: int, classes: Sequence[int]) -> None:
    """Checks that `classes` are different classes of a dataset that has `count`.

    Raises:
      DataError: they are not.
    """
    if len(set(classes)) < len(classes) or not all(0 <= label < count for label in classes):
        raise DataError(
            f"config.data.classes={tuple(classes)}: {name} has {count} classes; "
            f"accepted: different numbers from 0 to {count - 1}"
        )


def check_sizes(
    name: str, available: int, tests: int, *, validation_size: int, train_size: int, test_size: int
) -> None:
    """Checks that `available` training and `tests` test examples give splits of these sizes.

    Raises:
      DataError: they do not; names the field, its value and what is accepted.
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
