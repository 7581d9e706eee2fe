"""Images that stay on disk as they were compressed, and are decoded where they are asked for.

That is how datasets are kept whose images have sizes of their own, such as ImageNet: they are not
decoded into memory. Each becomes a square of one side: its middle, or in training a random part.
"""

from __future__ import annotations

import io
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, UInt8

from lth_jax.data import cache, tfds_files
from lth_jax.data.dataset import Dataset, check_labels, fixed_permutation
from lth_jax.data.records import Files, Index, Records, index_of
from lth_jax.errors import DataError, first_line

SIDE = 224
# The middle of an image is cut from one whose shorter side is 8/7 of it: 256 for 224 (Krizhevsky
# et al. 2012, §4.1).
_SHORTER_SIDE = 256 / 224
# A random part has this share of an image's area, and its width over its height lies within this
# (Szegedy et al. 2015, §6; He et al. 2016, and whoever pruned ResNet-50, have them from there).
_AREAS, _RATIOS = (0.08, 1.0), (3 / 4, 4 / 3)
# One that does not fit into the image is drawn again, so many times; then the middle is taken.
_TRIES = 10
CROP_DRAWS = 2 * _TRIES + 2  # an area and a ratio for each, and a place

# The moments of each channel that everybody takes for ImageNet's training images.
_STANDARD = {"imagenet2012": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}
_MEASURED = 1000  # images, of those of which nobody has written them down
# The split to test on, of datasets whose own has no labels.
_TEST = {"imagenet2012": "validation"}

_log = logging.getLogger(__name__)


class StoredImages:
    """Images on disk, as an array [n, side, side, 3] of uint8 that is decoded where it is read.

    A part of it, `images[indices]`, is such images again; `numpy.asarray` decodes, the middles.

    Args:
      records: has them.
      image: the name of the feature that has an image.
      chosen: the numbers of the records, in order; all by default.
      side: to which images are brought.
      standard: the mean and deviation of each channel, as far as they are known.
    """

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(
        self,
        records: Records,
        image: str,
        *,
        chosen: Int[np.ndarray, " n"] | None = None,
        side: int = SIDE,
        standard: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
    ):
        self._records, self._image, self._standard = records, image, standard
        self.chosen = np.arange(len(records.index.labels)) if chosen is None else chosen
        self.side = side

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """That of the array."""
        return len(self.chosen), self.side, self.side, 3

    @property
    def size(self) -> int:
        """The number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """What they would take in memory."""
        return self.size

    @property
    def content(self) -> np.ndarray:
        """What tells these images from others: the lengths and checksums of their records."""
        return self._records.index.records[self.chosen]

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, which: Any) -> StoredImages:
        chosen = np.atleast_1d(self.chosen[np.asarray(which) if np.ndim(which) else which])
        return self._like(chosen, self.side)

    def of_side(self, side: int) -> StoredImages:
        """Returns the same images, brought to another side."""
        return self._like(self.chosen, side)

    def _like(self, chosen: np.ndarray, side: int) -> StoredImages:
        return StoredImages(
            self._records, self._image, chosen=chosen, side=side, standard=self._standard
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        decoded = [middle(image, self.side) for image in self._decoded(self.chosen)]
        array = np.stack(decoded) if decoded else np.zeros(self.shape, np.uint8)
        return array if dtype is None else array.astype(dtype, copy=False)

    def cropped(
        self, indices: Int[np.ndarray, " n"], uniforms: Float32[np.ndarray, "n draws"]
    ) -> UInt8[np.ndarray, "n side side 3"]:
        """Returns a random part of each image: by `CROP_DRAWS` numbers in [0, 1) for each."""
        images = self._decoded(self.chosen[indices])
        pairs = zip(images, uniforms, strict=True)
        return np.stack([random_part(image, self.side, draws) for image, draws in pairs])

    def moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Returns the mean and deviation of each channel, in [0, 1], to four decimals.

        Where nobody has written them down, they are those of the middles of some of the images.
        """
        if self._standard:
            return self._standard
        some = fixed_permutation(len(self))[:_MEASURED]
        pixels = np.asarray(self[some]).reshape(-1, 3).astype(np.float64) / 255
        mean, deviation = pixels.mean(0).round(4), pixels.std(0).round(4)
        return tuple(mean.tolist()), tuple(np.where(deviation, deviation, 1.0).tolist())

    def _decoded(self, numbers: Int[np.ndarray, " n"]) -> list[Any]:
        found = self._records.read(numbers.tolist())
        pairs = zip(numbers.tolist(), found, strict=True)
        return [_decoded(record, self._image, number) for number, record in pairs]


def middle(image: Any, side: int) -> UInt8[np.ndarray, "side side 3"]:
    """Returns the middle of a PIL image, scaled so that little beside it is left out."""
    width, height = image.size
    scale = round(side * _SHORTER_SIDE) / min(width, height)
    size = [max(side, round(length * scale)) for length in (width, height)]
    left, top = ((length - side) // 2 for length in size)
    scaled = image.resize(size, _bilinear())
    return np.asarray(scaled.crop((left, top, left + side, top + side)))


def random_part(
    image: Any, side: int, draws: Float32[np.ndarray, " draws"]
) -> UInt8[np.ndarray, "side side 3"]:
    """Returns a part of a PIL image, its area, ratio and place by `draws`, scaled to a square."""
    left, top, width, height = part_of(image.size, draws)
    box = left, top, left + width, top + height
    return np.asarray(image.resize((side, side), _bilinear(), box=box))


def part_of(
    size: tuple[int, int], draws: Float32[np.ndarray, " draws"]
) -> tuple[int, int, int, int]:
    """Returns (left, top, width, height) of a part of an image of (width, height) `size`."""
    width, height = size
    numbers = draws.astype(np.float64)
    for area, ratio in numbers[: 2 * _TRIES].reshape(_TRIES, 2):
        pixels = width * height * (_AREAS[0] + area * (_AREAS[1] - _AREAS[0]))
        log_ratio = (1 - ratio) * math.log(_RATIOS[0]) + ratio * math.log(_RATIOS[1])
        wide, high = (round(math.sqrt(pixels * math.exp(s * log_ratio))) for s in (1, -1))
        if 0 < wide <= width and 0 < high <= height:
            across, down = numbers[2 * _TRIES :]
            left, top = int(across * (width - wide + 1)), int(down * (height - high + 1))
            return left, top, wide, high
    # The largest in the middle that has such a ratio.
    wide = min(width, round(height * _RATIOS[1]))
    high = min(height, round(width / _RATIOS[0]))
    return (width - wide) // 2, (height - high) // 2, wide, high


def _bilinear() -> Any:
    from PIL import Image

    return Image.Resampling.BILINEAR


def _decoded(record: bytes, feature: str, number: int) -> Any:
    from PIL import Image

    try:
        encoded = _values(record)[feature].bytes_list.value[0]
        with Image.open(io.BytesIO(encoded)) as image:
            return image.convert("RGB")
    except Exception as error:  # of every kind
        raise DataError(
            f"record {number} has no image that can be read: {first_line(error)}"
        ) from error


def _values(record: bytes) -> Any:
    from tensorflow_datasets.proto import tf_example_pb2

    messages: Any = tf_example_pb2  # generated at run time: no type checker knows its classes
    return messages.Example.FromString(record).features.feature


def load(name: str, folder: Path, cache_dir: Path) -> Dataset:
    """Returns a prepared dataset whose images have sizes of their own; they stay on disk.

    All of it is read the first time, for its index, which is cached.

    Args:
      name: the dataset.
      folder: where it lies, up to its version.
      cache_dir: has indices.

    Raises:
      DataError: it cannot be read, or has labels outside of its classes.
    """
    import tensorflow_datasets as tfds

    try:
        with tfds_files.quiet():
            builder = tfds.builder_from_directory(folder)
        features = tfds_files.features_of(name, builder.info, any_size=True)
        splits = {"train": "train", "test": _test_split(name, builder)}
        files = {part: Files.of(builder, split) for part, split in splits.items()}
        indices = _indices(name, folder, cache_dir, files, features)
    except DataError:
        raise
    except Exception as error:  # TFDS raises of every kind, and so do files
        # Nothing of deleting it: what cannot be read now may be read later, and it is large.
        raise DataError(
            f"the prepared dataset in {folder} cannot be read ({first_line(error)})"
        ) from None
    classes = features.num_classes
    check_labels(name, classes, *(index.labels for index in indices.values()))
    images = {
        part: StoredImages(
            Records(files[part], index), features.image, standard=_STANDARD.get(name)
        )
        for part, index in indices.items()
    }
    return Dataset(
        name=name,
        train_images=images["train"],
        train_labels=indices["train"].labels,
        test_images=images["test"],
        test_labels=indices["test"].labels,
        num_classes=classes,
        scale=1 / 255,
        origin=f"on disk in {folder}",
        class_names=tfds_files.class_names(folder, classes),
        version=folder.name,
    )


def _test_split(name: str, builder: Any) -> str:
    there_are = list(builder.info.splits)
    for split in (_TEST.get(name, "test"), "validation"):
        if split in there_are and "train" in there_are:
            return split
    having = ", ".join(there_are) or "none"
    raise DataError(
        f"{name} has the splits {having}; accepted: datasets with train, and test or validation"
    )


def _indices(
    name: str,
    folder: Path,
    cache_dir: Path,
    files: dict[str, Files],
    features: tfds_files.ImageFeatures,
) -> dict[str, Index]:
    """Returns the index of each split: cached, or made now and cached."""
    known = {"version": folder.name, "source": tfds_files.fingerprint(folder)}
    found = cache.load(cache_dir, f"{name}.index", **known)
    if found is None:
        count = sum(sum(of.counts) for of in files.values())
        _log.info("reading all %s examples of %s once, for an index of them", f"{count:,}", name)

        def label_of(record: bytes) -> int:
            return _values(record)[features.label].int64_list.value[0]

        made = {part: index_of(of, label_of) for part, of in files.items()}
        found = Dataset(
            f"{name}.index", *made["train"], *made["test"], features.num_classes, 1.0, str(folder)
        )
        cache.store(cache_dir, found, **known)
    return {
        "train": Index(found.train_images, found.train_labels),
        "test": Index(found.test_images, found.test_labels),
    }
