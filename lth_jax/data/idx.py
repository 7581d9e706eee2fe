"""MNIST and Fashion-MNIST from their original archives, without TensorFlow.

An archive is a gzipped idx file: two zero bytes, a type (8 is uint8), the number of dimensions,
the dimensions as big-endian int32, the values (http://yann.lecun.com/exdb/mnist/).
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import logging
import math
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lth_jax.data import network, preparing
from lth_jax.data.dataset import Dataset
from lth_jax.data.places import Places
from lth_jax.errors import DataError

VERSION = "3.0.1"
SPLITS = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
ARCHIVES = tuple(file for files in SPLITS.values() for file in files)
_EXAMPLES = (60_000, 10_000)

_log = logging.getLogger(__name__)


class Source(NamedTuple):
    """One dataset of this format.

    Attributes:
      url: the folder of its four archives.
      content: `content_digest` of its examples.
      description: for the prepared dataset's own metadata.
      homepage: the same.
      label_names: of the ten classes; empty for 0 to 9.
    """

    url: str
    content: str
    description: str
    homepage: str
    label_names: tuple[str, ...] = ()


SOURCES = {
    "mnist": Source(
        url="https://storage.googleapis.com/cvdf-datasets/mnist/",
        content="9f1b74bb48e796b31ed0af89be552e68ec619e9ef050c7d296aa6db3040d06e9",
        description="Handwritten digits: 60,000 training and 10,000 test images of 28 by 28 pixels "
        "(LeCun, Cortes & Burges).",
        homepage="http://yann.lecun.com/exdb/mnist/",
    ),
    "fashion_mnist": Source(
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        content="4e203a4e2b3cd520dee22679cd6e9ab75e13db842aa00699b1c9ae64065c598b",
        description="Articles of clothing: 60,000 training and 10,000 test images of 28 by 28 "
        "pixels (Xiao, Rasul & Vollgraf, 2017).",
        homepage="https://github.com/zalandoresearch/fashion-mnist",
        label_names=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
    ),
}  # fmt: skip


def load(name: str, places: Places) -> Dataset:
    """The dataset `name` of `SOURCES`: cached, prepared, brought by the user, or downloaded.

    Raises:
      DataError: it is nowhere and cannot be downloaded, or what is there is something else.
    """
    source = SOURCES[name]
    recipe = preparing.Recipe(VERSION, source.content, check=_check, obtain=_obtain)
    return preparing.load(name, places, recipe)


def read_archive(path: str | Path) -> np.ndarray:
    """The values of a gzipped idx file, uint8 of whatever shape it says.

    Raises:
      ValueError: it is no idx file of uint8, or not whole.
    """
    with gzip.open(path, "rb") as file:
        data = file.read()
    start = 4 + 4 * data[3] if data[:3] == b"\0\0\x08" and len(data) > 3 else len(data) + 1
    if len(data) < start:
        raise ValueError(f"{path} is not an idx file of uint8")
    shape = np.frombuffer(data[4:start], ">i4").tolist()
    if len(data) - start != math.prod(shape):
        raise ValueError(f"{path} holds {len(data) - start} values where its shape is {shape}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def content_digest(dataset: Dataset) -> str:
    """A SHA-256 over the examples of both splits, whatever their order within a split."""
    total = hashlib.sha256()
    for images, labels in (
        (dataset.train_images, dataset.train_labels),
        (dataset.test_images, dataset.test_labels),
    ):
        # A sum of hashes does not depend on the order of what is summed.
        hashes = (
            hashlib.sha256(bytes([label]) + image.tobytes()).digest()
            for image, label in zip(images, labels.astype(np.uint8), strict=True)
        )
        total.update((sum(int.from_bytes(h) for h in hashes) % 2**256).to_bytes(32))
    return total.hexdigest()


def _check(dataset: Dataset, folder: Path) -> str:
    """The content digest of what was decoded from `folder`; refuses another dataset's examples."""
    digest, source = content_digest(dataset), SOURCES[dataset.name]
    counts = len(dataset.train_labels), len(dataset.test_labels)
    if digest == source.content:
        return digest
    if counts != _EXAMPLES:
        _log.warning(
            "%s in %s has %d training and %d test examples, where the dataset has %d and %d",
            dataset.name, folder, *counts, *_EXAMPLES,
        )  # fmt: skip
        return digest
    raise DataError(
        f"{folder} is not {dataset.name}: its examples are others (MNIST and Fashion-MNIST, whose "
        "archives have the same names, may have been mixed up when it was prepared); delete that "
        "folder, and it is prepared again"
    )


def _obtain(name: str, places: Places) -> Callable[[Path], None]:
    """Finds the archives in a manual folder, or that they can be downloaded."""
    archives, found = _find_archives(name, places)
    if archives is None:
        problem = network.problem_with(SOURCES[name].url + ARCHIVES[1])
        if problem:
            raise DataError(_nowhere(name, places, found, problem))
        if found:
            _log.warning("%s is downloaded: %s", name, found)
    return partial(_prepare, name, archives)


def _prepare(name: str, archives: Path | None, target: Path) -> None:
    """Writes `<target>/<name>/<version>` from the folder `archives`, or from a download."""
    _log.info("preparing %s from %s (once, about half a minute)", name, archives or "the network")
    from lth_jax.data.idx_builders import BUILDERS

    # Without archives a folder that is not there: by default TFDS would look for some.
    manual_dir = archives or target / "no-manual-archives"
    preparing.download_and_prepare(BUILDERS[name](data_dir=target), manual_dir)


def _find_archives(name: str, places: Places) -> tuple[Path | None, str]:
    """The folder that has the four archives with the right checksums, and what else was seen."""
    expected = _checksums(name)
    seen = []
    for folder in places.manual_dirs(name):
        there = [file for file in ARCHIVES if (folder / file).is_file()]
        wrong = [file for file in there if _sha256(folder / file) != expected[file]]
        if len(there) == len(ARCHIVES) and not wrong:
            return folder, ""
        if wrong:
            what = "is" if len(wrong) == 1 else "are"
            seen.append(f"{', '.join(wrong)} in {folder} {what} damaged or of another dataset")
        elif there:
            missing = sorted(set(ARCHIVES) - set(there))
            seen.append(f"{folder} lacks {', '.join(missing)}")
    return None, "; ".join(seen)


def _checksums(name: str) -> dict[str, str]:
    """SHA-256 of each archive by file name, of those that TFDS downloads."""
    table = resources.files("lth_jax.data").joinpath("checksums.tsv").read_text()
    rows = csv.reader(table.splitlines(), delimiter="\t")
    return {file: sha256 for url, _, sha256, file in rows if url.startswith(SOURCES[name].url)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _nowhere(name: str, places: Places, found: str, problem: str) -> str:
    return (
        f"{name} {VERSION} is nowhere to be had: no prepared data in data.data_dir="
        f"{places.data_dir}, no archives in data.manual_dir={places.manual_dir}"
        f"{f' ({found})' if found else ''}, no arrays in data.cache_dir={places.cache_dir}, and no "
        f"download ({problem}). Put {', '.join(ARCHIVES)} into {places.manual_dirs(name)[0]}, or "
        "point TFDS_DATA_DIR or --config.data.data_dir to a folder with prepared data; "
        "configs/lenet_digits.py needs none"
    )
