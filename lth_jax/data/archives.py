"""Datasets from their original archives: found or downloaded, checked, prepared, and recognized."""

from __future__ import annotations

import csv
import hashlib
import logging
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path

import numpy as np

from lth_jax.data import network, preparing
from lth_jax.data.dataset import Dataset
from lth_jax.data.places import Places
from lth_jax.data.sources import SOURCES
from lth_jax.errors import DataError

_log = logging.getLogger(__name__)


def load(name: str, places: Places) -> Dataset:
    """The dataset `name` of `SOURCES`: cached, prepared, brought by the user, or downloaded.

    Raises:
      DataError: it is nowhere and cannot be downloaded, or what is there is something else.
    """
    source = SOURCES[name]
    recipe = preparing.Recipe(
        version=source.version,
        content=source.content,
        classes=source.facts.classes,
        check=_check,
        obtain=_obtain,
    )
    return preparing.load(name, places, recipe)


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
    others = {other.content for name, other in SOURCES.items() if name != dataset.name}
    counts = len(dataset.train_labels), len(dataset.test_labels)
    expected = source.facts.train, source.facts.test
    whole = counts == expected
    if digest in others - {""} or (source.content and whole and digest != source.content):
        raise DataError(
            f"{folder} is not {dataset.name}: its examples are others (archives of another dataset "
            "with the same file names, or damaged ones, may have been used when it was prepared); "
            "delete that folder, and it is prepared again"
        )
    if not whole:
        _log.warning(
            "%s in %s has %d training and %d test examples, where the dataset has %d and %d",
            dataset.name, folder, *counts, *expected,
        )  # fmt: skip
    return digest


def _obtain(name: str, places: Places) -> Callable[[Path], None]:
    """Finds the archives in a manual folder, or that they can be downloaded."""
    source = SOURCES[name]
    folder, found = _find_archives(name, places)
    if folder is None:
        problem = network.problem_with(source.url + source.archives[0])
        if problem:
            raise DataError(_nowhere(name, places, found, problem))
        if found:
            _log.warning("%s is downloaded: %s", name, found)
    return partial(_prepare, name, folder)


def _prepare(name: str, folder: Path | None, target: Path) -> None:
    """Writes `<target>/<name>/<version>` from the archives in `folder`, or from a download."""
    _log.info("preparing %s from %s (once, within a minute or two)", name, folder or "the network")
    from lth_jax.data.builders import BUILDERS

    # Without archives a folder that is not there: by default TFDS would look for some.
    manual_dir = folder or target / "no-manual-archives"
    preparing.download_and_prepare(BUILDERS[name](data_dir=target), manual_dir)


def _find_archives(name: str, places: Places) -> tuple[Path | None, str]:
    """The folder that has all archives with the right checksums, and what else was seen."""
    expected = _checksums(name)
    seen = []
    for folder in places.manual_dirs(name):
        there = [file for file in expected if (folder / file).is_file()]
        wrong = [file for file in there if _sha256(folder / file) != expected[file]]
        if len(there) == len(expected) and not wrong:
            return folder, ""
        if wrong:
            what = "is" if len(wrong) == 1 else "are"
            seen.append(f"{', '.join(wrong)} in {folder} {what} damaged or of another dataset")
        elif there:
            missing = sorted(set(expected) - set(there))
            seen.append(f"{folder} lacks {', '.join(missing)}")
    return None, "; ".join(seen)


def _checksums(name: str) -> dict[str, str]:
    """SHA-256 of each archive by file name, of those that TFDS downloads."""
    table = resources.files("lth_jax.data").joinpath("checksums.tsv").read_text()
    by_url = {url: sha256 for url, _, sha256, _ in csv.reader(table.splitlines(), delimiter="\t")}
    source = SOURCES[name]
    return {file: by_url[source.url + file] for file in source.archives}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _nowhere(name: str, places: Places, found: str, problem: str) -> str:
    source = SOURCES[name]
    return (
        f"{name} {source.version} is nowhere to be had: no prepared data in data.data_dir="
        f"{places.data_dir}, no archives in data.manual_dir={places.manual_dir}"
        f"{f' ({found})' if found else ''}, no arrays in data.cache_dir={places.cache_dir}, and no "
        f"download ({problem}). Put {', '.join(source.archives)} into "
        f"{places.manual_dirs(name)[0]}, or point TFDS_DATA_DIR or --config.data.data_dir to a "
        "folder with prepared data; configs/lenet_digits.py needs none"
    )
