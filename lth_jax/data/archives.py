"""Datasets that are prepared from their original archives, without TensorFlow.

The table says where the archives are; the functions find them, tell whether they can be downloaded,
and recognize a dataset by its examples.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lth_jax.data import archive_formats as formats
from lth_jax.data.dataset import Dataset, Facts
from lth_jax.data.directories import DataDirectories
from lth_jax.errors import DataError

_log = logging.getLogger(__name__)


class Source(NamedTuple):
    """One such dataset.

    Attributes:
      version: that of what TFDS's own builder prepares.
      url: where its archives are.
      archives: the size in bytes and the SHA-256 of each, by file name.
      read: reads the archives, given the path of each.
      facts: those of its examples.
      description: goes into the prepared dataset's own metadata.
      homepage: likewise.
      label_names: those of the classes, where the archives do not name them; empty for numbers.
      other_labels: further labels of an example, which are not trained on, and their classes.
      ids: whether TFDS gives each example an `id`.
      content: the `content_digest` of its examples; empty where nobody has computed it yet.
    """

    version: str
    url: str
    archives: Mapping[str, tuple[int, str]]
    read: Callable[[Mapping[str, str | Path]], formats.Contents]
    facts: Facts
    description: str
    homepage: str
    label_names: tuple[str, ...] = ()
    other_labels: Mapping[str, int] = {}
    ids: bool = False
    content: str = ""


def _like_mnist(archives: Sequence[tuple[int, str]], **fields: Any) -> Source:
    return Source(
        version="3.0.1",
        archives=dict(zip(formats.IDX_ARCHIVES, archives, strict=True)),
        read=formats.read_idx_archives,
        facts=Facts((28, 28, 1), 10, 60_000, 10_000),
        **fields,
    )


def _like_cifar(
    name: str, file: str, archive: tuple[int, str], classes: int, **fields: Any
) -> Source:
    def read(paths: Mapping[str, str | Path]) -> formats.Contents:
        return formats.read_cifar(paths[file], formats.CIFAR_LAYOUTS[name])

    return Source(
        version="3.0.2",
        url="https://www.cs.toronto.edu/~kriz/",
        archives={file: archive},
        read=read,
        facts=Facts(formats.CIFAR_SHAPE, classes, 50_000, 10_000),
        homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
        ids=True,
        **fields,
    )


SOURCES = {
    "mnist": _like_mnist(
        url="https://storage.googleapis.com/cvdf-datasets/mnist/",
        archives=(
            (9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
            (28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
            (1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
            (4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        ),
        content="9f1b74bb48e796b31ed0af89be552e68ec619e9ef050c7d296aa6db3040d06e9",
        description="Handwritten digits: 60,000 training and 10,000 test images of 28 by 28 pixels "
        "(LeCun, Cortes & Burges).",
        homepage="http://yann.lecun.com/exdb/mnist/",
    ),
    "fashion_mnist": _like_mnist(
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        archives=(
            (26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
            (29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
            (4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
            (5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
        ),
        content="4e203a4e2b3cd520dee22679cd6e9ab75e13db842aa00699b1c9ae64065c598b",
        description="Articles of clothing: 60,000 training and 10,000 test images of 28 by 28 "
        "pixels (Xiao, Rasul & Vollgraf, 2017).",
        homepage="https://github.com/zalandoresearch/fashion-mnist",
        label_names=(
            "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
            "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
        ),
    ),
    "kmnist": _like_mnist(
        url="http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        archives=(
            (18_165_135, "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4"),
            (29_497, "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17"),
            (3_041_136, "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5"),
            (5_120, "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c"),
        ),
        description="Kuzushiji: cursive Japanese characters, one for each row of Hiragana, 60,000 "
        "training and 10,000 test images of 28 by 28 pixels (Clanuwat et al., 2018).",
        homepage="http://codh.rois.ac.jp/kmnist/index.html.en",
        label_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    ),
    "cifar10": _like_cifar(
        "cifar10",
        "cifar-10-binary.tar.gz",
        (170_052_171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"),
        10,
        content="250f3ae9f8885deb3b506b934114a4c5adf2e170db7bfd267fc2558446a0eb98",
        description="Small photographs of ten kinds of things: 50,000 training and 10,000 test "
        "images of 32 by 32 pixels (Krizhevsky, 2009).",
    ),
    "cifar100": _like_cifar(
        "cifar100",
        "cifar-100-binary.tar.gz",
        (168_513_733, "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"),
        100,
        other_labels={"coarse_label": 20},
        description="Small photographs of a hundred kinds of things, in twenty groups: 50,000 "
        "training and 10,000 test images of 32 by 32 pixels (Krizhevsky, 2009).",
    ),
}  # fmt: skip


def recognized(dataset: Dataset, folder: Path) -> str:
    """Returns the content digest of a dataset of `SOURCES` that was decoded from `folder`.

    Raises:
      DataError: the examples are another dataset's.
    """
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


def content_digest(dataset: Dataset) -> str:
    """Returns a SHA-256 over the examples of both splits, whatever their order in a split."""
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


def folder_of(name: str, directories: DataDirectories) -> Path | None:
    """Finds the archives of `name`, or finds out that they can be downloaded.

    Returns:
      The folder that has them; None to download them.

    Raises:
      DataError: they are nowhere, and cannot be downloaded; says what to do.
    """
    source = SOURCES[name]
    folder, seen = find(name, directories)
    if folder is None:
        problem = download_problem(source.url + next(iter(source.archives)))
        if problem:
            raise DataError(
                f"{name} {source.version} is nowhere to be had: no prepared data in data.data_dir="
                f"{directories.data_dir}, no archives in data.manual_dir={directories.manual_dir}"
                f"{f' ({seen})' if seen else ''}, no arrays in data.cache_dir="
                f"{directories.cache_dir}, and no download ({problem}). Put "
                f"{', '.join(source.archives)} into {directories.manual_dirs(name)[0]}, or point "
                "TFDS_DATA_DIR or --config.data.data_dir to a folder with prepared data; "
                "configs/lenet_digits.py needs none"
            )
        if seen:
            _log.warning("%s is downloaded: %s", name, seen)
    return folder


def find(name: str, directories: DataDirectories) -> tuple[Path | None, str]:
    """Returns the folder that has all archives of `name` with the right checksums.

    Returns:
      The folder or None, and a phrase about archives that were found and cannot be used.
    """
    expected = {file: sha256 for file, (_, sha256) in SOURCES[name].archives.items()}
    seen = []
    for folder in directories.manual_dirs(name):
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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download_problem(url: str, timeout: float = 3.0) -> str:
    """Returns why `url` cannot be downloaded now, or an empty string.

    It takes `timeout` seconds at most, where TFDS retries for minutes. Proxies of the environment
    are used.
    """
    host = urllib.parse.urlsplit(url).hostname
    answer = [f"{host} does not answer within {timeout:g} s"]

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            # An opener of its own: the shared one keeps the proxies of its first use.
            with urllib.request.build_opener().open(request, timeout=timeout):
                answer.append("")
        except urllib.error.HTTPError as error:
            with error:
                answer.append(f"{host} answers {error.code} {error.reason}")
        except (OSError, http.client.HTTPException) as error:
            answer.append(f"{host} cannot be reached: {getattr(error, 'reason', error)}")

    # In a thread of its own: no timeout covers the look-up of the host's name.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    return answer[-1]
