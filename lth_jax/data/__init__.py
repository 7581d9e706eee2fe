"""Datasets by name: `load` brings one into memory, `split` divides it.

To add one, give `DATASETS` a row: a `Loader`, or a function of arrays by `custom_dataset`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from lth_jax.data import custom, directories
from lth_jax.data.archives import SOURCES
from lth_jax.data.dataset import (
    Content,
    Dataset,
    Facts,
    Images,
    Split,
    Splits,
    check_classes,
    check_sizes,
    checked,
    content_of,
    facts_of,
    is_stored,
    split,
)
from lth_jax.data.directories import DataDirectories
from lth_jax.data.image_shapes import check_images, padded, reshaped
from lth_jax.data.loaders import load_digits, load_emnist, load_tfds
from lth_jax.data.stored import CROP_DRAWS, SIDE

__all__ = [
    "CROP_DRAWS",
    "DATASETS",
    "Content",
    "DataDirectories",
    "Dataset",
    "Facts",
    "Images",
    "Loader",
    "Split",
    "Splits",
    "check_classes",
    "check_images",
    "check_name",
    "check_sizes",
    "content_of",
    "custom_dataset",
    "facts",
    "facts_of",
    "is_stored",
    "load",
    "padded",
    "reshaped",
    "split",
]


class Loader(NamedTuple):
    """How a dataset is loaded.

    Attributes:
      load: returns it, given its name and the directories to look in.
      facts: what is known of it before it is loaded, if anything is.
      function: that of a custom dataset, which `load` calls.
    """

    load: Callable[..., Dataset]
    facts: Facts | None = None
    function: Callable[..., Any] | None = None


_GREY, _COLOUR = (28, 28, 1), (32, 32, 3)

DATASETS: dict[str, Loader] = {
    "digits": Loader(load_digits, Facts((8, 8, 1), 10, 1500, 297)),
    **{name: Loader(load_tfds, source.facts) for name, source in SOURCES.items()},
    # Prepared by TFDS's own builders, with TensorFlow; the sizes are those that it writes.
    "imagenet2012": Loader(load_tfds, Facts((SIDE, SIDE, 3), 1000, 1_281_167, 50_000, stored=True)),
    "svhn_cropped": Loader(load_tfds, Facts(_COLOUR, 10, 73_257, 26_032)),
    "emnist/balanced": Loader(load_emnist, Facts(_GREY, 47, 112_800, 18_800)),
    "emnist/byclass": Loader(load_emnist, Facts(_GREY, 62, 697_932, 116_323)),
    "emnist/bymerge": Loader(load_emnist, Facts(_GREY, 47, 697_932, 116_323)),
    "emnist/digits": Loader(load_emnist, Facts(_GREY, 10, 240_000, 40_000)),
    "emnist/letters": Loader(load_emnist, Facts(_GREY, 26, 88_800, 14_800)),
    "emnist/mnist": Loader(load_emnist, Facts(_GREY, 10, 60_000, 10_000)),
}


def custom_dataset(name: str, function: Callable[[], Any]) -> Loader:
    """Returns the row of a custom dataset: `DATASETS["blobs"] = custom_dataset("blobs", blobs)`.

    It is loaded by a call of `function` whenever it is needed, and never cached.

    Args:
      name: that of the dataset, for error messages.
      function: needs no arguments and gives the same arrays each time: `((train_images,
        train_labels), (test_images, test_labels))`, or a mapping with these four names and perhaps
        `num_classes` (if not: one more than the greatest label). Images are uint8 (then scaled to
        [0, 1]) or floats (taken as they are, as float32) of `[n, height, width, channels]`, grey
        ones of `[n, height, width]`, or features of `[n, features]`. Labels are integers `[n]`
        that count from 0. What is no image or no label is given in a mapping as `train_inputs` and
        `test_inputs`, or `train_targets` and `test_targets`, and taken as it is: floats as float32,
        integers as int32, of any shape `[n, …]`.

    Raises:
      DataError: `function` needs arguments. What it gives is checked when loaded.
    """
    custom.check_function(name, function)
    return Loader(partial(custom.load, function), function=function)


def load(
    name: str,
    *,
    data_dir: str = "",
    manual_dir: str = "",
    cache_dir: str = "",
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Dataset:
    """Returns the dataset `name`: a row of `DATASETS`, or an image classification dataset of TFDS.

    Args:
      name: such as `mnist`, `emnist/balanced` or `stl10`.
      data_dir: has prepared TFDS datasets; `$TFDS_DATA_DIR` or `~/tensorflow_datasets` if empty.
      manual_dir: has original archives that the user brought; `<data_dir>/downloads/manual`.
      cache_dir: has decoded arrays; `$XDG_CACHE_HOME/lth_jax` or `~/.cache/lth_jax`.
      options: what the function of a custom dataset is called with.

    Raises:
      DataError: the name is unknown, or the dataset cannot be had; one line that says what to do.
    """
    where = directories.resolve(data_dir, manual_dir, cache_dir)
    if name in DATASETS:
        row = DATASETS[name]
        own = {"options": options} if row.function else {}
        return checked(row.load(name, where, **own), row.facts)
    return checked(load_tfds(name, where, DATASETS))


def check_name(name: str) -> None:
    """Checks that there is a dataset `name`; reads and downloads nothing.

    A row of `DATASETS` costs nothing to check; another name imports TFDS.

    Raises:
      DataError: there is none; names the nearest.
    """
    if name not in DATASETS:
        from lth_jax.data import tfds_builders

        tfds_builders.check_name(name, DATASETS)


def facts(name: str) -> Facts | None:
    """Returns what is known of a dataset before it is loaded; None for those of TFDS at large."""
    return DATASETS[name].facts if name in DATASETS else None
