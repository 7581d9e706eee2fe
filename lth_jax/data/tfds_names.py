"""Any image classification dataset of TFDS by its name, such as `stl10` or `cmaterdb/bangla`."""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from lth_jax.data import prepared, preparing
from lth_jax.data.dataset import Dataset
from lth_jax.data.places import Places
from lth_jax.errors import DataError

_NAME = re.compile(r"[a-z][a-z0-9_]*(/[A-Za-z0-9_][A-Za-z0-9_.\-]*)?")


def check(name: str, known: Iterable[str]) -> None:
    """Raises a DataError unless TFDS has a dataset `name`; downloads nothing.

    Args:
      name: `dataset` or, where TFDS has several variants of it, `dataset/config`.
      known: the names outside of TFDS, to suggest and to list.
    """
    import tensorflow_datasets as tfds

    dataset, _, config = name.partition("/")
    names = tfds.list_builders(with_community_datasets=False)
    if not _NAME.fullmatch(name) or dataset not in names:
        close = difflib.get_close_matches(dataset, [*known, *names], n=1, cutoff=0.5)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise DataError(
            f"config.data.name={name}: no such dataset; {hint}"
            f"accepted: {', '.join(sorted(known))}, and "
            "the image classification datasets of TFDS, such as stl10 or cmaterdb/bangla"
        )
    configs = [c.name for c in tfds.builder_cls(dataset).BUILDER_CONFIGS]
    if config not in (configs or [""]):
        accepted = [f"{dataset}/{c}" for c in configs] or [dataset]
        raise DataError(f"config.data.name={name}: accepted: {', '.join(accepted)}")


def load(name: str, places: Places, known: Iterable[str] = ()) -> Dataset:
    """The dataset `name` of TFDS: cached, prepared, or prepared by TFDS's own builder.

    TFDS is imported only for what is not cached. `known` is as in `check`.

    Raises:
      DataError: no such dataset, or it can neither be found nor prepared.
    """
    if not _NAME.fullmatch(name):  # a path, perhaps
        check(name, known)
    obtain = partial(_obtain, known=tuple(known))
    recipe = preparing.Recipe(version="", classes=0, content="", check=_unchecked, obtain=obtain)
    return preparing.load(name, places, recipe)


def _unchecked(dataset: Dataset, folder: Path) -> str:
    del dataset, folder
    return ""


def _obtain(name: str, places: Places, known: Iterable[str]) -> Callable[[Path], None]:
    """Finds out whether the stock builder can be used: nearly all of them need TensorFlow."""
    import tensorflow_datasets as tfds

    check(name, known)
    # ImportError: a builder that cannot even say, without TensorFlow, what it builds.
    with contextlib.suppress(ImportError), prepared.quiet():
        prepared.layout_of(name, tfds.builder(name, data_dir=places.data_dir).info)
    if importlib.util.find_spec("tensorflow") is None:
        raise DataError(
            f"{name} is not prepared in data.data_dir={places.data_dir}, no arrays of it are in "
            f"data.cache_dir={places.cache_dir}, and TFDS cannot prepare it without TensorFlow. "
            "Prepare it where TensorFlow is installed (pip install tensorflow-cpu), by "
            f"tfds.builder('{name}').download_and_prepare(file_format='array_record'), and point "
            "TFDS_DATA_DIR or --config.data.data_dir to it; configs/lenet_digits.py needs none"
        )

    def prepare(target: Path) -> None:
        builder = tfds.builder(name, data_dir=target)
        preparing.download_and_prepare(builder, places.manual_dir)

    return prepare
