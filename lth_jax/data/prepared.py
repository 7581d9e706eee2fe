"""Datasets that TFDS has prepared on disk: found without it, read without TensorFlow."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lth_jax.data.dataset import Dataset, check_labels
from lth_jax.errors import DataError

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_INFO = "dataset_info.json"
_READ_AT_ONCE = 1024
_LARGEST_BYTES = 16 * 2**30

_log = logging.getLogger(__name__)


class Layout(NamedTuple):
    """Of a dataset's examples: the features that matter, and their shapes.

    Attributes:
      image: the name of the image feature.
      label: the name of the label feature.
      shape: of every image, (height, width, channels).
      num_classes: how many the label feature allows for.
    """

    image: str
    label: str
    shape: tuple[int, int, int]
    num_classes: int


def find(name: str, folders: Iterable[Path], version: str = "") -> Path | None:
    """The prepared dataset `<folder>/<name>/<version>` of the first folder that has one.

    Args:
      name: the dataset, with its config if it has any: `emnist/letters`.
      folders: where to look, in this order.
      version: which to take; empty for the highest.
    """
    for folder in folders:
        try:
            versions = [path for path in (folder / name).iterdir() if _VERSION.fullmatch(path.name)]
        except OSError:
            continue
        complete = [p for p in versions if version in ("", p.name) and (p / _INFO).is_file()]
        if complete:
            return max(complete, key=lambda path: tuple(map(int, path.name.split("."))))
    return None


def fingerprint(folder: Path) -> str:
    """16 hexadecimal digits that differ when the examples in a prepared dataset do.

    Covers the size and number of the examples, so that it costs nothing; it tells a dataset from
    another one of the same version, not from a damaged copy.
    """
    try:
        splits = json.loads((folder / _INFO).read_text()).get("splits")
    except (OSError, ValueError, AttributeError) as error:
        raise _damaged(folder, error) from None
    return hashlib.sha256(json.dumps(splits, sort_keys=True).encode()).hexdigest()[:16]


def read(name: str, folder: Path, classes: int = 0) -> Dataset:
    """Decodes a prepared dataset: its splits `train` and `test`, in their order on disk.

    Args:
      name: the dataset.
      folder: where it lies, up to its version.
      classes: how many it is known to have. If 0, they count from the first label that occurs to
        the last: EMNIST's letters are 1 to 26, in a label feature of 37 classes.

    Raises:
      DataError: no image classification dataset of one image shape, one with labels outside of its
        classes, or one that cannot be read.
    """
    import tensorflow_datasets as tfds

    try:
        with quiet():
            builder = tfds.builder_from_directory(folder)
    except Exception as error:  # TFDS raises of every kind here
        raise _damaged(folder, error) from None
    layout = layout_of(name, builder.info)
    arrays = {}
    for split in ("train", "test"):
        if split not in builder.info.splits:
            having = ", ".join(builder.info.splits) or "none"
            raise DataError(f"{name} has the splits {having}; accepted: datasets with train, test")
        arrays[split] = _read_split(builder, split, layout, folder)
    (train_images, train_labels), (test_images, test_labels) = arrays["train"], arrays["test"]
    allowed = classes or layout.num_classes
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
    """Keeps TFDS from logging each of its steps; errors are raised, not logged."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def layout_of(name: str, info: Any) -> Layout:
    """The layout of the dataset that a `tfds.core.DatasetInfo` describes.

    Raises:
      DataError: its examples are not uint8 images of one shape with one class label each.
    """
    from tensorflow_datasets import features

    accepted = "accepted: datasets of (image, label), with uint8 images of one size"
    keys = info.supervised_keys
    if not isinstance(keys, tuple) or len(keys) != 2:
        raise DataError(f"{name} is not an image classification dataset; {accepted}")
    image: Any = info.features[keys[0]]
    label: Any = info.features[keys[1]]
    if not isinstance(image, features.Image) or not isinstance(label, features.ClassLabel):
        raise DataError(f"{name} has {type(image).__name__} and {type(label).__name__}; {accepted}")
    dtype: Any = image.np_dtype
    shape: Any = image.shape
    if dtype != np.uint8 or len(shape) != 3 or None in shape:
        what = f"{np.dtype(dtype).name} images of shape {tuple(shape)}"
        raise DataError(f"{name} has {what}; {accepted}")
    if not label.num_classes:
        raise DataError(f"{name} does not say how many classes it has; {accepted}")
    return Layout(*keys, shape=tuple(shape), num_classes=label.num_classes)


def _read_split(
    builder: Any, split: str, layout: Layout, folder: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 `[n, h, w, c]` and labels int32 `[n]` of one split."""
    count = int(builder.info.splits[split].num_examples)
    if count * int(np.prod(layout.shape)) > _LARGEST_BYTES:
        raise DataError(
            f"{builder.name} has {count} images of {layout.shape}: too large for memory"
        )
    images = np.empty((count, *layout.shape), np.uint8)
    labels = np.empty(count, np.int32)
    done = 0
    try:
        for record in _records(builder, split):
            images[done], labels[done] = _decode(record, layout)
            done += 1
    except Exception as error:  # of every kind: files, records, protos, images
        raise _damaged(folder, error) from None
    if done == 0 or done != count:
        raise _damaged(folder, f"{split} holds {done} of {count} examples")
    return images, labels


def _records(builder: Any, split: str) -> Iterator[bytes]:
    """The serialized examples of a split, in order."""
    import tensorflow_datasets as tfds

    file_format = builder.info.file_format.value
    if file_format == "tfrecord":
        for path in builder.info.splits[split].filepaths:
            yield from _tfrecords(Path(path))
    elif file_format == "array_record":
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        source = builder.as_data_source(split, deserialize_method=raw)
        for start in range(0, len(source), _READ_AT_ONCE):
            yield from source.__getitems__(range(start, min(start + _READ_AT_ONCE, len(source))))
    else:
        raise ValueError(f"files of format {file_format}; accepted: array_record, tfrecord")


def _tfrecords(path: Path) -> Iterator[bytes]:
    """The records of a TFRecord file: length (8 bytes), its CRC (4), data, its CRC (4)."""
    with path.open("rb") as file:
        while head := file.read(12):
            (length,) = struct.unpack("<Q", head[:8])
            data = file.read(length)
            if len(head) != 12 or len(data) != length or len(file.read(4)) != 4:
                raise ValueError(f"{path.name} ends inside a record")
            yield data


def _decode(record: bytes, layout: Layout) -> tuple[np.ndarray, int]:
    # Straight from the record, three times as fast as the decoders of TFDS.
    from PIL import Image
    from tensorflow_datasets.proto import tf_example_pb2

    messages: Any = tf_example_pb2  # generated at run time: no type checker knows its classes
    feature = messages.Example.FromString(record).features.feature
    with Image.open(io.BytesIO(feature[layout.image].bytes_list.value[0])) as picture:
        image = np.asarray(picture)
    if image.shape not in (layout.shape, layout.shape[:2] if layout.shape[2] == 1 else None):
        raise ValueError(f"an image of shape {image.shape} where {layout.shape} was promised")
    return image.reshape(layout.shape), feature[layout.label].int64_list.value[0]


def _damaged(folder: Path, error: object) -> DataError:
    line = " ".join(str(error).split())[:300]
    return DataError(
        f"the prepared dataset in {folder} cannot be read ({line}); delete that folder, and it is "
        "prepared again"
    )
