"""Datasets by name: `load` gives all of it in memory, `split` cuts it up.

To add one, write a `Loader` and give it a row in `DATASETS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from lth_jax.data import digits, idx, places, tfds_names
from lth_jax.data.dataset import Dataset, Split, Splits, split
from lth_jax.data.places import Places

__all__ = [
    "DATASETS",
    "Dataset",
    "Loader",
    "Places",
    "Split",
    "Splits",
    "check_name",
    "embedded",
    "load",
    "split",
]


class Loader(NamedTuple):
    """How a dataset is loaded.

    Attributes:
      load: from its name and the folders to look in.
      embedded: whether it needs neither disk nor network.
    """

    load: Callable[[str, Places], Dataset]
    embedded: bool = False


DATASETS: dict[str, Loader] = {
    "digits": Loader(digits.load, embedded=True),
    "mnist": Loader(idx.load),
    "fashion_mnist": Loader(idx.load),
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
