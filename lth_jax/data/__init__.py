"""Datasets by name: `load` gives all of it in memory, `split` cuts it up.

To add one, write a `Loader` and give it a row in `DATASETS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from lth_jax.data import digits, idx, places, tfds_names
from lth_jax.data.dataset import (
    Dataset,
    Facts,
    Split,
    Splits,
    check_classes,
    check_sizes,
    facts_of,
    padded,
    reshaped,
    split,
)
from lth_jax.data.places import Places

__all__ = [
    "DATASETS",
    "Dataset",
    "Facts",
    "Loader",
    "Places",
    "Split",
    "Splits",
    "check_classes",
    "check_name",
    "check_sizes",
    "embedded",
    "facts",
    "facts_of",
    "load",
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


DATASETS: dict[str, Loader] = {
    "digits": Loader(digits.load, embedded=True, facts=Facts((8, 8, 1), 10, 1500, 297)),
    "mnist": Loader(idx.load, facts=Facts((28, 28, 1), 10, 60_000, 10_000)),
    "fashion_mnist": Loader(idx.load, facts=Facts((28, 28, 1), 10, 60_000, 10_000)),
}


def load(name: str, *, data_dir: str = "", manual_dir: str = "", cache_dir: str = "") -> Dataset:
    """The dataset `name`: a row of `DATASETS`, or any image classification dataset of TFDS.

    Args:
      name: such as `mnist`, `cifar10` or `emnist/balanced`.
      data_dir: of prepared TFDS datasets; `$TFDS_DATA_DIR` or `~/tensorflow_datasets` if empty.
      manual_dir: of original archives that the user brought; `<data_dir>/downloads/manual`.
      cache_dir: of decoded arrays; `$XDG_CACHE_HOME/lth_jax` or `~/.cache/lth_jax`.

    Raises:
      DataError: an unknown name, or a dataset that cannot be had; one line that says what to do.
    """
    folders = places.resolve(data_dir, manual_dir, cache_dir)
    if name in DATASETS:
        return DATASETS[name].load(name, folders)
    return tfds_names.load(name, folders, DATASETS)


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
