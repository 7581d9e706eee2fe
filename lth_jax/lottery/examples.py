"""The examples that a spec names: loaded, split, and told of."""

from __future__ import annotations

import logging

import numpy as np

from lth_jax import data
from lth_jax.config import Spec, own_fields
from lth_jax.training.tasks import TASKS

_log = logging.getLogger(__name__)


def inputs_of(shape: tuple[int, ...], tokens: bool) -> str:
    """Says what examples are: `images of 28×28×1`, `examples of 64 tokens`."""
    size = "×".join(map(str, shape)) or "1"
    if len(shape) == 3:
        return f"images of {size}"
    return f"examples of {size} {'tokens' if tokens else 'numbers'}"


def load(spec: Spec) -> data.Dataset:
    """Returns the dataset that the spec names, whole.

    Raises:
      DataError: it cannot be had.
    """
    _log.info("loading %s", spec.data.name)
    row = data.DATASETS.get(spec.data.name)
    return data.load(
        spec.data.name,
        data_dir=spec.data.data_dir,
        manual_dir=spec.data.manual_dir,
        cache_dir=spec.data.cache_dir,
        options=own_fields.taken(row.function, spec.custom) if row and row.function else {},
    )


def split(spec: Spec, whole: data.Dataset, shape: tuple[int, ...]) -> data.Splits:
    """Returns the spec's part of a dataset, split, its images padded to `shape`.

    Raises:
      DataError: the sizes do not fit it.
    """
    return data.split(
        data.padded(whole, shape[:2]),
        validation_size=spec.data.validation_size,
        train_size=spec.data.train_size,
        test_size=spec.data.test_size,
        classes=spec.data.classes,
        remap=spec.data.labels != "original",
        part=spec.data.part,
        random_labels=spec.data.labels == "random",
        permuted_pixels=spec.data.pixels == "permuted",
    )


def notes_of(spec: Spec, classes: int, labels: np.ndarray) -> tuple[str, ...]:
    """Returns a line that names the classes without a training example, if there are any.

    Args:
      spec: the spec.
      classes: the number of logits.
      labels: those of the training split, int32 [n].
    """
    if not TASKS[spec.task].classes:
        return ()
    original = spec.data.classes and spec.data.labels == "original"
    wanted = np.array(spec.data.classes) if original else np.arange(classes)
    missing = np.setdiff1d(wanted, labels)
    if not len(missing):
        return ()
    some = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
    return (
        f"{len(missing):,} of {len(wanted):,} classes have no training example ({some}); the "
        "network has an output for each",
    )
