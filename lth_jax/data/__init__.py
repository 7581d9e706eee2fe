"""Datasets by name: `load` gives all of it in memory, `split` cuts it up.

To add one, write a `Loader` and give it a row in `DATASETS`, or make a row of a function by `own`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from lth_jax.data import archives, digits, emnist, own_data, places, tfds_names
from lth_jax.data.dataset import (
    Dataset,
    Facts,
    Split,
    Splits,
    check_classes,
    check_sizes,
    checked,
    facts_of,
    split,
)
from lth_jax.data.images import check_images, padded, reshaped
from lth_jax.data.places import Places
from lth_jax.data.sources import SOURCES

__all__ = [
    "DATASETS",
    "Dataset",
    "Facts",
    "Loader",
    "Places",
    "Split",
    "Splits",
    "check_classes",
    "check_images",
    "check_name",
    "check_sizes",
    "embedded",
    "facts",
    "facts_of",
    "load",
    "own",
    "padded",
    "reshaped",
    "split",
]


class Loader(NamedTuple):
    """How a dataset is loaded.

    Attributes:
      load: from its name and the folders to look in.
      embedded: whether it needs neither disk nor network.
      facts: what is known of it before it is loaded, if anything is.
    """

    load: Callable[[str, Places], Dataset]
    embedded: bool = False
    facts: Facts | None = None


_GREY, _COLOUR = (28, 28, 1), (32, 32, 3)

DATASETS: dict[str, Loader] = {
    "digits": Loader(digits.load, embedded=True, facts=Facts((8, 8, 1), 10, 1500, 297)),
    "mnist": Loader(archives.load, facts=SOURCES["mnist"].facts),
    "fashion_mnist": Loader(archives.load, facts=SOURCES["fashion_mnist"].facts),
    "kmnist": Loader(archives.load, facts=SOURCES["kmnist"].facts),
    "cifar10": Loader(archives.load, facts=SOURCES["cifar10"].facts),
    "cifar100": Loader(archives.load, facts=SOURCES["cifar100"].facts),
    # Prepared by TFDS's own builders, with TensorFlow; the sizes are those that it writes.
    "svhn_cropped": Loader(tfds_names.load, facts=Facts(_COLOUR, 10, 73_257, 26_032)),
    "emnist/balanced": Loader(emnist.load, facts=Facts(_GREY, 47, 112_800, 18_800)),
    "emnist/byclass": Loader(emnist.load, facts=Facts(_GREY, 62, 697_932, 116_323)),
    "emnist/bymerge": Loader(emnist.load, facts=Facts(_GREY, 47, 697_932, 116_323)),
    "emnist/digits": Loader(emnist.load, facts=Facts(_GREY, 10, 240_000, 40_000)),
    "emnist/letters": Loader(emnist.load, facts=Facts(_GREY, 26, 88_800, 14_800)),
    "emnist/mnist": Loader(emnist.load, facts=Facts(_GREY, 10, 60_000, 10_000)),
}


def own(name: str, function: Callable[[], Any]) -> Loader:
    """The row of a user's own dataset: `DATASETS["blobs"] = own("blobs", blobs)`.

    It is loaded by a call of `function` whenever it is needed, and never cached.

    Args:
      name: of the dataset, for error messages.
      function: takes no arguments and gives the same arrays each time: `((train_images,
        train_labels), (test_images, test_labels))`, or a mapping with these four names and perhaps
        `num_classes` (if not: one more than the greatest label). Images are uint8 (then scaled to
        [0, 1]) or floats (taken as they are, as float32) of `[n, height, width, channels]`, grey
        ones of `[n, height, width]`, or features of `[n, features]`. Labels are integers `[n]`
        that count from 0.

    Raises:
      DataError: `function` does not go without arguments. What it gives is checked when loaded.
    """
    own_data.check_function(name, function)
    return Loader(partial(own_data.load, function))


def load(name: str, *, data_dir: str = "", manual_dir: str = "", cache_dir: str = "") -> Dataset:
    """The dataset `name`: a row of `DATASETS`, or any image classification dataset of TFDS.

    Args:
      name: such as `mnist`, `emnist/balanced` or `stl10`.
      data_dir: of prepared TFDS datasets; `$TFDS_DATA_DIR` or `~/tensorflow_datasets` if empty.
      manual_dir: of original archives that the user brought; `<data_dir>/downloads/manual`.
      cache_dir: of decoded arrays; `$XDG_CACHE_HOME/lth_jax` or `~/.cache/lth_jax`.

    Raises:
      DataError: an unknown name, or a dataset that cannot be had; one line that says what to do.
    """
    folders = places.resolve(data_dir, manual_dir, cache_dir)
    if name in DATASETS:
        return checked(DATASETS[name].load(name, folders), DATASETS[name].facts)
    return checked(tfds_names.load(name, folders, DATASETS))


def check_name(name: str) -> None:
    """Raises a DataError unless there is a dataset `name`; reads and downloads nothing.

    A row of `DATASETS` costs nothing to check; another name imports TFDS.
    """
    if name not in DATASETS:
        tfds_names.check(name, DATASETS)


def embedded(name: str) -> bool:
    """Whether the dataset `name` needs neither disk nor network."""
    return name in DATASETS and DATASETS[name].embedded


def facts(name: str) -> Facts | None:
    """What is known of the dataset `name` before it is loaded; None for those of TFDS at large."""
    return DATASETS[name].facts if name in DATASETS else None
