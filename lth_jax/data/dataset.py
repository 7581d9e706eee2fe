"""What a dataset is in memory, what is accepted as one, and how it is split."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lth_jax.errors import DataError, shown

# Seeds every fixed shuffle of this package. A constant, so that no choice of a run reaches it.
_SHUFFLE_SEED = 20190307
# An array, or `stored.StoredImages`, which has of an array what is asked of one here.
Images = Any


class Dataset(NamedTuple):
    """A labelled dataset, whole, as it came from its source.

    `checked` alone says which dtypes and shapes are accepted: what stores or splits a dataset
    takes arrays of any, the first axis of which counts the examples.

    Attributes:
      name: as in the config, such as `mnist`.
      train_images: uint8 or float32 `[n, height, width, channels]`, which may stay on disk (see
        `stored`); inputs that are no images are int32 tokens or float32, `[n, …]`.
      train_labels: int32 `[n]`, in `0 .. num_classes - 1`; targets that are no labels are int32 in
        that range, or float32, `[n, …]`.
      test_images: the same of m examples.
      test_labels: the same of m examples.
      num_classes: how many values integer targets have; 0 for floats.
      scale: `pixel * scale` lies in [0, 1]; 1 for float images, which are taken as they are.
      origin: where the data came from, one phrase for the header of a run.
      class_names: what the classes are called; empty where nobody says so.
      version: of the source, such as `3.0.1` of TFDS; empty where there is none.
    """

    name: str
    train_images: Images
    train_labels: np.ndarray
    test_images: Images
    test_labels: np.ndarray
    num_classes: int
    scale: float
    origin: str
    class_names: tuple[str, ...] = ()
    version: str = ""


class Facts(NamedTuple):
    """What is known of a dataset before it is loaded, so that a spec can be refused at once.

    Attributes:
      shape: that of an image, (height, width, channels), or of another input.
      classes: the number of classes; 0 where targets are floats.
      train: the number of training examples.
      test: the number of test examples.
      tokens: whether inputs are tokens, int32; else a network sees floats.
      target_shape: that of one target; () for a label.
      stored: whether images stay on disk, and are decoded as they are needed.
    """

    shape: tuple[int, ...]
    classes: int
    train: int
    test: int
    tokens: bool = False
    target_shape: tuple[int, ...] = ()
    stored: bool = False

    @property
    def labelled(self) -> bool:
        """Whether each example has one class."""
        return self.classes > 0 and not self.target_shape


class Content(NamedTuple):
    """What a run's record says of its dataset: `digest` tells two datasets of one name apart.

    `inputs` is the shape of one input, such as `28×28×1` of an image.
    """

    name: str
    version: str
    digest: str
    inputs: str


def content_of(dataset: Dataset) -> Content:
    """Returns a dataset's version, and a digest of all of it that a number depends on.

    That is the arrays, whole, with dtypes and shapes, the number of classes and the scale.
    """
    arrays = (
        dataset.train_images, dataset.train_labels, dataset.test_images, dataset.test_labels
    )  # fmt: skip
    digest = hashlib.sha256(repr((dataset.num_classes, float(dataset.scale))).encode())
    for array in arrays:
        digest.update(repr((array.dtype.str, array.shape)).encode())
        # Images on disk have a checksum each, which was made when all were read.
        whole = array if isinstance(array, np.ndarray) else array.content
        digest.update(np.ascontiguousarray(whole).data)
    inputs = _times(dataset.train_images.shape[1:])
    return Content(dataset.name, dataset.version, digest.hexdigest()[:16], inputs)


def facts_of(dataset: Dataset) -> Facts:
    """Returns what could have been known of a dataset before it was loaded."""
    return Facts(
        shape=dataset.train_images.shape[1:],
        classes=dataset.num_classes,
        train=len(dataset.train_labels),
        test=len(dataset.test_labels),
        tokens=dataset.train_images.dtype == np.int32,
        target_shape=dataset.train_labels.shape[1:],
        stored=is_stored(dataset.train_images),
    )


def is_stored(images: Any) -> bool:
    """Returns whether images stay on disk, to be decoded as they are needed; others are arrays."""
    return not isinstance(images, np.ndarray)


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
    targets = dataset.train_labels, dataset.test_labels
    if (targets[0].shape[1:], targets[0].dtype) != (targets[1].shape[1:], targets[1].dtype):
        what = " and ".join(f"{t.dtype} of {_times(t.shape[1:]) or 'one'}" for t in targets)
        raise DataError(f"{name} has targets {what} to train and to test on; accepted: alike")
    if targets[0].dtype == np.int32:
        check_labels(name, dataset.num_classes, *targets)
    found = facts_of(dataset)
    if facts and (found.shape, found.classes) != (facts.shape, facts.classes):
        what = [f"{_times(f.shape)} in {f.classes} classes" for f in (found, facts)]
        raise DataError(
            f"{name} has images of {what[0]}; accepted: {what[1]} (this is {dataset.origin})"
        )
    return dataset


def _check_arrays(name: str, split: str, images: np.ndarray, labels: np.ndarray) -> None:
    of_any_rank = images.dtype in (np.float32, np.int32) and images.ndim
    if not of_any_rank and (images.dtype != np.uint8 or images.ndim != 4):
        raise DataError(
            f"{name}: {split}_images is {images.dtype} of shape {images.shape}; accepted: uint8 or "
            "float32 of [n, height, width, channels], or int32 or float32 of any shape"
        )
    if labels.shape[:1] != images.shape[:1] or labels.dtype not in (np.int32, np.float32):
        what = f"{labels.dtype} of shape {labels.shape}, for {len(images)} images"
        raise DataError(f"{name}: {split}_labels is {what}; accepted: an integer for each")
    for kind, array in (("images", images), ("labels", labels)):
        if not array.size:
            raise DataError(f"{name}: {split}_{kind} is empty, of shape {array.shape}")
        if array.dtype == np.float32 and not np.isfinite(array).all():
            raise DataError(f"{name}: {split}_{kind} has values that are NaN or infinite")


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
    """Images uint8 or float32 `[n, height, width, channels]`, and their labels int32 `[n]`.

    Where a dataset has other inputs and targets, they are these.
    """

    images: Images
    labels: np.ndarray


class Splits(NamedTuple):
    """Training uses the first, choices the second alone, and the third is only reported."""

    train: Split
    validation: Split
    test: Split


def fixed_permutation(size: int) -> np.ndarray:
    """Returns a permutation of `0 .. size - 1`, int64 `[size]`, that depends on `size` alone."""
    return _draws().permutation(size)


def _draws() -> np.random.RandomState:
    # RandomState, not Generator: its streams are frozen over all versions of NumPy.
    return np.random.RandomState(_SHUFFLE_SEED)


def _permuted(images: np.ndarray) -> np.ndarray:
    """Returns images `[n, height, width, channels]` with the pixels of each in a drawn order."""
    count, height, width, channels = images.shape
    pixels, draws = images.reshape(count, height * width, channels).copy(), _draws()
    for image in pixels:
        image[:] = image[draws.permutation(height * width)]
    return pixels.reshape(images.shape)


def split(
    dataset: Dataset,
    *,
    validation_size: int,
    train_size: int = 0,
    test_size: int = 0,
    classes: Sequence[int] = (),
    remap: bool = True,
    part: str = "",
    random_labels: bool = False,
    permuted_pixels: bool = False,
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
      random_labels: whether each training example gets a label that is drawn from the kept
        classes; `permuted_pixels`: whether the pixels of each training image are permuted, in an
        order of its own (Su et al. 2020, §3). Neither depends on anything but the dataset's size;
        the validation and test splits stay.

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
    labelled = facts_of(dataset).labelled
    needed = (("classes", tuple(classes), ()), ("part", part, ""))
    for field, value, neutral in (*needed, ("labels", "random" * random_labels, "remapped")):
        if value and not labelled:
            raise DataError(
                f"config.data.{field}={shown(value)}: an example of {dataset.name} has no class; "
                f"accepted: {shown(neutral)}"
            )
    if permuted_pixels and dataset.train_images.ndim != 4:
        raise DataError(
            f"config.data.pixels='permuted': the inputs of {dataset.name} are no images; "
            "accepted: original"
        )
    if permuted_pixels and is_stored(dataset.train_images):
        raise DataError(
            f"config.data.pixels='permuted': the images of {dataset.name} stay on disk; "
            "accepted: original"
        )
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
                f"config.data.classes={shown(tuple(classes))}: no {what} example is left; "
                "accepted: classes and sizes that leave some"
            )
    numbers = _numbers(dataset.num_classes, classes if remap else ())
    if labelled:
        labels, test_labels = numbers[labels], numbers[test_labels]
    train_split = Split(dataset.train_images[train], labels[train])
    if random_labels:
        choices = numbers[list(classes)] if classes else np.arange(dataset.num_classes)
        drawn = _draws().randint(len(choices), size=available)[train]
        train_split = train_split._replace(labels=choices[drawn].astype(np.int32))
    if permuted_pixels:
        train_split = train_split._replace(images=_permuted(train_split.images))
    return Splits(
        train=train_split,
        validation=Split(dataset.train_images[validation], labels[validation]),
        test=Split(dataset.test_images[test], test_labels[test]),
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
            f"config.data.classes={shown(tuple(classes))}: {name} has {count} classes; "
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
