"""How a dataset gets into memory: a function for each kind of source.

What TFDS has prepared on disk decides: of several cached datasets, the one that was decoded from it
is taken. Where nothing is prepared, the cache decides; where nothing is cached, it is prepared.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import logging
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from lth_jax.data import archives, cache, stored, tfds_files
from lth_jax.data.archives import SOURCES
from lth_jax.data.dataset import Dataset, fixed_permutation
from lth_jax.data.directories import DataDirectories, can_write
from lth_jax.errors import DataError
from lth_jax.system.signals import undone_if_ended

_DIGITS_TRAIN_EXAMPLES = 1500

_log = logging.getLogger(__name__)


def load_digits(name: str, directories: DataDirectories) -> Dataset:
    """Returns scikit-learn's handwritten digits: 1,500 to train on and 297 to test.

    They are real 8 by 8 images, uint8 of 0 to 16. Neither disk, network nor cache is used.

    Source: `sklearn.datasets.load_digits`, the test set of UCI's "Optical Recognition of
    Handwritten Digits" (Alpaydin & Kaynak, 1998).
    """
    del directories  # nothing is looked up: the images are inside scikit-learn
    images, labels = _digits()
    order = fixed_permutation(len(labels))
    train, test = order[:_DIGITS_TRAIN_EXAMPLES], order[_DIGITS_TRAIN_EXAMPLES:]
    images = images.reshape(-1, 8, 8, 1).astype(np.uint8)
    labels = labels.astype(np.int32)
    return Dataset(
        name=name,
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        num_classes=10,
        scale=1 / 16,
        origin="embedded in scikit-learn",
        version=f"scikit-learn {importlib.metadata.version('scikit-learn')}",
    )


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns the digits [n, 64] and their labels [n], read from the package's own file.

    To import scikit-learn takes a second, which every start of an experiment on digits would wait.
    """
    package = importlib.util.find_spec("sklearn")
    for folder in package.submodule_search_locations or () if package else ():
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            table = np.loadtxt(file, delimiter=",")
            return table[:, :-1], table[:, -1]
    from sklearn.datasets import load_digits as load  # where it keeps its files elsewhere

    images, labels = map(np.asarray, load(return_X_y=True))  # its type: perhaps a data frame
    return images, labels


def load_emnist(name: str, directories: DataDirectories) -> Dataset:
    """Returns a variant of EMNIST, such as `emnist/letters`, upright as MNIST's images are.

    TFDS keeps it as NIST published it, each image on its side and mirrored. Images are cached as
    they were prepared, and turned after that: never twice, whoever cached them. Labels count from
    0, those of the letters too (see `tfds_files.read`).

    Source: Cohen et al. 2017, and TFDS's own note that images want transposing.

    Raises:
      DataError: see `load_tfds`.
    """
    dataset = load_tfds(name, directories)
    return dataset._replace(
        train_images=np.ascontiguousarray(dataset.train_images.swapaxes(1, 2)),
        test_images=np.ascontiguousarray(dataset.test_images.swapaxes(1, 2)),
        origin=f"{dataset.origin}, images turned upright",
    )


def load_tfds(name: str, directories: DataDirectories, known: Iterable[str] = ()) -> Dataset:
    """Returns the dataset `name` of TFDS: cached, prepared, or prepared now.

    A row of `SOURCES` is prepared from its archives without TensorFlow, another dataset by TFDS's
    own builder. TFDS is imported only for what is not cached.

    Args:
      name: `dataset` or `dataset/config`.
      directories: where to look, and to write.
      known: the names outside of TFDS, for the error of an unknown name.

    Raises:
      DataError: there is no such dataset, it can neither be found nor prepared, or what is there is
        damaged or another dataset.
    """
    source = SOURCES.get(name)
    version, content = (source.version, source.content) if source else ("", "")
    folder = tfds_files.find(name, directories.prepared_dirs, version)
    if folder is not None:
        wanted = {"version": folder.name, "source": tfds_files.fingerprint(folder)}
    else:
        wanted = {"version": version, "content": content}
    dataset = cache.load(directories.cache_dir, name, **wanted)
    if dataset is not None:
        return _with_names(dataset, folder)
    if folder is not None and tfds_files.has_sizes(folder):
        return stored.load(name, folder, directories.cache_dir)
    with contextlib.ExitStack() as stack:
        if folder is None:
            # Before TFDS is imported: that archives cannot be had is said within seconds.
            from_archives = archives.folder_of(name, directories) if source else None
            from lth_jax.data import tfds_builders

            if source:
                prepare = partial(_prepare_archives, name, from_archives)
            else:
                prepare = tfds_builders.stock_preparation(name, directories, known)
            target = stack.enter_context(_writable(directories))
            prepare(target)
            folder = tfds_files.find(name, [target], version)
            if folder is None:
                raise DataError(
                    f"{target / name} holds an incomplete dataset that TFDS takes for a complete "
                    "one; delete that folder, and it is prepared again"
                )
        if tfds_files.has_sizes(folder):
            return stored.load(name, folder, directories.cache_dir)
        dataset = tfds_files.read(name, folder, source.facts.classes if source else 0)
        dataset = dataset._replace(version=folder.name)
        content = archives.recognized(dataset, folder) if source else ""
        cache.store(
            directories.cache_dir,
            dataset,
            version=folder.name,
            source=tfds_files.fingerprint(folder),
            content=content,
        )
        return _with_names(dataset, folder)


def _prepare_archives(name: str, folder: Path | None, target: Path) -> None:
    """Writes `<target>/<name>/<version>` from the archives in `folder`, or from downloaded ones."""
    from lth_jax.data import tfds_builders

    _log.info("preparing %s from %s (once, within a minute or two)", name, folder or "the network")
    # Without archives a folder that is not there: by default TFDS would look for some.
    manual_dir = folder or target / "no-manual-archives"
    tfds_builders.download_and_prepare(tfds_builders.from_archives(name, target), manual_dir)


def _with_names(dataset: Dataset, folder: Path | None) -> Dataset:
    """Adds what the classes are called: by `SOURCES`, else by files of the prepared dataset."""
    names = SOURCES[dataset.name].label_names if dataset.name in SOURCES else ()
    if not names and folder:
        names = tfds_files.class_names(folder, dataset.num_classes)
    return dataset._replace(class_names=names)


@contextlib.contextmanager
def _writable(directories: DataDirectories) -> Iterator[Path]:
    """Gives a folder to prepare into: `data_dir`, else in `cache_dir`, else one that goes away."""
    for folder in directories.prepared_dirs:
        if can_write(folder):
            yield folder
            return
    _log.warning(
        "neither data.data_dir=%s nor data.cache_dir=%s can be written: the dataset is prepared "
        "anew at every start", directories.data_dir, directories.cache_dir,
    )  # fmt: skip
    with (
        tempfile.TemporaryDirectory(prefix="lth_jax-") as folder,
        undone_if_ended(lambda: shutil.rmtree(folder)),
    ):
        yield Path(folder)
