"""From a name to decoded arrays: the cache, else prepared data, else preparing them."""

from __future__ import annotations

import contextlib
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lth_jax.data import cache, prepared
from lth_jax.data.dataset import Dataset
from lth_jax.data.places import Places, can_write
from lth_jax.errors import DataError

_RETRIES = 2

_log = logging.getLogger(__name__)


class Recipe(NamedTuple):
    """How one dataset is had.

    Attributes:
      version: the version to take; empty for the highest there is.
      classes: how many there are; 0 to count those that occur.
      content: what `check` returns of the true dataset; empty if nobody knows.
      check: of what was decoded, and the folder it was in: a digest of the examples (or raises a
        DataError).
      obtain: finds out whether the dataset can be prepared, or raises a DataError, and returns what
        does it: a function of a folder that writes `<folder>/<name>/<version>`.
    """

    version: str
    classes: int
    content: str
    check: Callable[[Dataset, Path], str]
    obtain: Callable[[str, Places], Callable[[Path], None]]


def load(name: str, places: Places, recipe: Recipe) -> Dataset:
    """The dataset from the cache, else decoded from prepared data, preparing them if need be.

    Prepared data decide, where there are any: of several cached datasets it is theirs that is
    taken. Without, it is the one with the content that `recipe` names, or the newest.

    Raises:
      DataError: see `prepared.read` and the recipe's functions.
    """
    folder = prepared.find(name, places.prepared_dirs, recipe.version)
    if folder is not None:
        wanted = {"version": folder.name, "source": prepared.fingerprint(folder)}
    else:
        wanted = {"version": recipe.version, "content": recipe.content}
    cached = cache.load(places.cache_dir, name, **wanted)
    if cached is not None:
        return cached
    with contextlib.ExitStack() as stack:
        if folder is None:
            prepare = recipe.obtain(name, places)
            target = stack.enter_context(_writable(places))
            prepare(target)
            folder = _just_prepared(name, target, recipe.version)
        dataset = prepared.read(name, folder, recipe.classes)
        content = recipe.check(dataset, folder)
        key = cache.Key(name, folder.name, prepared.fingerprint(folder))
    cache.store(places.cache_dir, key, dataset, content)
    return dataset


def _just_prepared(name: str, target: Path, version: str) -> Path:
    folder = prepared.find(name, [target], version)
    if folder is None:
        raise DataError(
            f"{target / name} holds an incomplete dataset that TFDS takes for a complete one; "
            "delete that folder, and it is prepared again"
        )
    return folder


@contextlib.contextmanager
def _writable(places: Places) -> Iterator[Path]:
    """A folder to prepare into: `data_dir`, else inside `cache_dir`, else one that goes away."""
    for folder in places.prepared_dirs:
        if can_write(folder):
            yield folder
            return
    _log.warning(
        "neither data.data_dir=%s nor data.cache_dir=%s can be written: the dataset is prepared "
        "anew at every start", places.data_dir, places.cache_dir,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="lth_jax-") as folder:
        yield Path(folder)


def download_and_prepare(builder: Any, manual_dir: Path | None = None) -> None:
    """Has a TFDS builder write its dataset as array_record files; one that is there is kept.

    Raises:
      DataError: whatever TFDS raises, as one line.
    """
    import tensorflow_datasets as tfds

    config = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
    try:
        # Standard output is for results: what TFDS prints goes where its progress bars go.
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            for context in (prepared.quiet, _fewer_retries, _fitting_progress_bars):
                stack.enter_context(context())
            builder.download_and_prepare(download_config=config, file_format="array_record")
    except Exception as error:  # TFDS raises of every kind
        with prepared.quiet():
            if builder.is_prepared():  # another process was first
                return
        line = " ".join(str(error).split())[:500]
        raise DataError(
            f"{builder.name} cannot be prepared in {builder.data_dir}: {line}"
        ) from None


@contextlib.contextmanager
def _fitting_progress_bars() -> Iterator[None]:
    """No progress bars where nobody watches: in a log, each of their redraws is a line."""
    from tensorflow_datasets.core.utils import tqdm_utils

    with contextlib.ExitStack() as stack:
        if not sys.stderr.isatty():
            tqdm_utils.disable_progress_bar()
            stack.callback(tqdm_utils.enable_progress_bar)
        yield


@contextlib.contextmanager
def _fewer_retries() -> Iterator[None]:
    """TFDS retries a download for 3.5 minutes before it gives up."""
    from tensorflow_datasets.core.download import downloader

    before = downloader.MAX_RETRIES
    downloader.MAX_RETRIES = _RETRIES
    try:
        yield
    finally:
        downloader.MAX_RETRIES = before
