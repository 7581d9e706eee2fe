"""Datasets that TFDS has prepared on disk: found without TFDS, read without TensorFlow."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lth_jax.data.dataset import Dataset, check_labels
from lth_jax.data.records import Files
from lth_jax.errors import DataError, first_line

_NAME = re.compile(r"[a-z][a-z0-9_]*(/[A-Za-z0-9_][A-Za-z0-9_.\-]*)?")
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_INFO = "dataset_info.json"
_LARGEST_BYTES = 16 * 2**30

_log = logging.getLogger(__name__)


class ImageFeatures(NamedTuple):
    """The two features of an example that matter.

    Attributes:
      image: the name of the image feature.
      label: the name of the label feature.
      shape: that of every image, (height, width, channels).
      num_classes: the number of classes that the label feature allows for.
    """

    image: str
    label: str
    shape: tuple[int, int, int]
    num_classes: int


def find(name: str, folders: Iterable[Path], version: str = "") -> Path | None:
    """Returns the prepared dataset `<folder>/<name>/<version>` of the first folder that has one.

    Args:
      name: the dataset, with its config if it has any: `emnist/letters`. Of what is no such name
        there is none: it might be a path that leads elsewhere.
      folders: where to look, in this order.
      version: which to take; empty for the highest.
    """
    for folder in folders if _NAME.fullmatch(name) else ():
        try:
            versions = [path for path in (folder / name).iterdir() if _VERSION.fullmatch(path.name)]
        except OSError:
            continue
        complete = [p for p in versions if version in ("", p.name) and (p / _INFO).is_file()]
        if complete:
            return max(complete, key=lambda path: tuple(map(int, path.name.split("."))))
    return None


def fingerprint(folder: Path) -> str:
    """Returns 16 hexadecimal digits that differ when the examples in a prepared dataset do.

    They cover the size and number of the examples, so that they cost nothing. They tell a dataset
    from another one of the same version, not from a damaged copy.
    """
    try:
        splits = json.loads((folder / _INFO).read_text()).get("splits")
    except (OSError, ValueError, AttributeError) as error:
        raise _damaged(folder, first_line(error)) from None
    return hashlib.sha256(json.dumps(splits, sort_keys=True).encode()).hexdigest()[:16]


def class_names(folder: Path, count: int) -> tuple[str, ...]:
    """Returns the names of `count` classes, as a prepared dataset has them; empty if it has none.

    They lie beside it, a name a line, in a file `<feature>.labels.txt` for each kind of label.
    """
    for file in sorted(folder.glob("*.labels.txt")):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            lines = map(str.strip, file.read_text(encoding="utf-8").splitlines())
            names = tuple(filter(None, lines))
            if len(names) == count:
                return names
    return ()


def read(name: str, folder: Path, classes: int = 0) -> Dataset:
    """Decodes the splits `train` and `test` of a prepared dataset, in their order on disk.

    Args:
      name: the dataset.
      folder: where it lies, up to its version.
      classes: how many it is known to have. If 0, they count from the first label that occurs to
        the last: EMNIST's letters are 1 to 26, in a label feature of 37 classes.

    Returns:
      The dataset, with images uint8 `[n, height, width, channels]` and labels int32 `[n]`.

    Raises:
      DataError: it is no image classification dataset of one image shape, it has labels outside of
        its classes, or it cannot be read.
    """
    import tensorflow_datasets as tfds

    try:
        with quiet():
            builder = tfds.builder_from_directory(folder)
    except Exception as error:  # TFDS raises of every kind here
        raise _damaged(folder, first_line(error)) from None
    features = features_of(name, builder.info)
    arrays = {}
    for split in ("train", "test"):
        if split not in builder.info.splits:
            having = ", ".join(builder.info.splits) or "none"
            raise DataError(f"{name} has the splits {having}; accepted: datasets with train, test")
        arrays[split] = _read_split(builder, split, features, folder)
    (train_images, train_labels), (test_images, test_labels) = arrays["train"], arrays["test"]
    allowed = classes or features.num_classes
    least, most = check_labels(name, allowed, train_labels, test_labels)
    first, num_classes = (0, classes) if classes else (least, most - least + 1)
    if num_classes < allowed:
        _log.warning(
            "%s: of %d classes only %d to %d occur; they are counted from 0",
            name, allowed, least, most,
        )  # fmt: skip
    return Dataset(
        name=name,
        train_images=train_images,
        train_labels=train_labels - np.int32(first),
        test_images=test_images,
        test_labels=test_labels - np.int32(first),
        num_classes=num_classes,
        scale=1 / 255,
        origin=f"prepared TFDS data in {folder}",
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps TFDS from logging each of its steps. Errors are raised, not logged."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def features_of(name: str, info: Any, any_size: bool = False) -> ImageFeatures:
    """Returns the features of the dataset that a `tfds.core.DatasetInfo` describes.

    Args:
      name: the dataset.
      info: what TFDS says of it.
      any_size: whether its images may have a size of their own each, which is None then.

    Raises:
      DataError: its examples are not uint8 images of one shape with one class label each.
    """
    from tensorflow_datasets import features

    accepted = "accepted: datasets of (image, label), with uint8 images"
    accepted += "" if any_size else " of one size"
    keys = info.supervised_keys
    if not isinstance(keys, tuple) or len(keys) != 2:
        raise DataError(f"{name} is not an image classification dataset; {accepted}")
    image: Any = info.features[keys[0]]
    label: Any = info.features[keys[1]]
    if not isinstance(image, features.Image) or not isinstance(label, features.ClassLabel):
        raise DataError(f"{name} has {type(image).__name__} and {type(label).__name__}; {accepted}")
    dtype: Any = image.np_dtype
    shape: Any = image.shape
    known = shape[-1:] if any_size else shape
    if dtype != np.uint8 or len(shape) != 3 or None in known:
        what = f"{np.dtype(dtype).name} images of shape {tuple(shape)}"
        raise DataError(f"{name} has {what}; {accepted}")
    if not label.num_classes:
        raise DataError(f"{name} does not say how many classes it has; {accepted}")
    return ImageFeatures(*keys, shape=tuple(shape), num_classes=label.num_classes)


def has_sizes(folder: Path) -> bool:
    """Returns whether each image of a prepared dataset has a size of its own; asks no TFDS."""
    try:
        features = json.loads((folder / "features.json").read_text())["featuresDict"]["features"]
        shapes = [one["image"].get("shape", {}) for one in features.values() if "image" in one]
        sizes = [int(size) for shape in shapes for size in shape.get("dimensions", [-1])[:2]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False  # an older layout, or a damaged one: TFDS says what it is
    # Of all of its images: beside those of one size there may be others, which nobody looks at.
    return bool(sizes) and all(size < 0 for size in sizes)


def _read_split(
    builder: Any, split: str, features: ImageFeatures, folder: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Returns images uint8 `[n, h, w, c]` and labels int32 `[n]` of one split."""
    count = int(builder.info.splits[split].num_examples)
    if count * int(np.prod(features.shape)) > _LARGEST_BYTES:
        raise DataError(
            f"{builder.name} has {count} images of {features.shape}: too large for memory"
        )
    images = np.empty((count, *features.shape), np.uint8)
    labels = np.empty(count, np.int32)
    done = 0
    try:
        for record in _records(builder, split):
            images[done], labels[done] = _decode(record, features)
            done += 1
    except Exception as error:  # of every kind: files, records, protos, images
        raise _damaged(folder, first_line(error)) from None
    if done == 0 or done != count:
        raise _damaged(folder, f"{split} holds {done} of {count} examples")
    return images, labels


def _records(builder: Any, split: str) -> Iterator[bytes]:
    """Yields the serialized examples of a split, in order."""
    return Files.of(builder, split).read()


def _decode(record: bytes, features: ImageFeatures) -> tuple[np.ndarray, int]:
    # Straight from the record, three times as fast as the decoders of TFDS.
    from PIL import Image
    from tensorflow_datasets.proto import tf_example_pb2

    messages: Any = tf_example_pb2  # generated at run time: no type checker knows its classes
    values = messages.Example.FromString(record).features.feature
    with Image.open(io.BytesIO(values[features.image].bytes_list.value[0])) as picture:
        image = np.asarray(picture)
    if image.shape not in (features.shape, features.shape[:2] if features.shape[2] == 1 else None):
        raise ValueError(f"an image of shape {image.shape} where {features.shape} was promised")
    return image.reshape(features.shape), values[features.label].int64_list.value[0]


def _damaged(folder: Path, problem: str) -> DataError:
    return DataError(
        f"the prepared dataset in {folder} cannot be read ({problem}); delete that folder, and it "
        "is prepared again"
    )
