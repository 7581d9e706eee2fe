"""What needs TFDS's builders: to know a name, and to prepare a dataset on disk.

For the rows of `SOURCES` there are builders that need no TensorFlow. They write what the stock
builders write, under the same name and version: either reads the data of the other.

TFDS is slow to import: import this module inside a function.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download import checksums, downloader
from tensorflow_datasets.core.utils import Size, tqdm_utils

from lth_jax.data import imagenet, tfds_files
from lth_jax.data.archive_formats import Contents
from lth_jax.data.archives import SOURCES, Source
from lth_jax.data.directories import DataDirectories
from lth_jax.errors import DataError, first_line, nearest

_RETRIES = 2


# `skip_registration`: TFDS has builders of these names. Type checkers do not know of it.
class ArchiveBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # pyright: ignore
    """Prepares a row of `SOURCES`: downloads its archives, or takes them from a manual folder."""

    SOURCE: Source

    def _info(self) -> tfds.core.DatasetInfo:
        source, labels = self.SOURCE, tfds.features.ClassLabel
        features: dict[str, Any] = {"id": tfds.features.Text()} if source.ids else {}
        features["image"] = tfds.features.Image(shape=source.facts.shape)
        if source.label_names:
            features["label"] = labels(names=list(source.label_names))
        else:
            features["label"] = labels(num_classes=source.facts.classes)
        for label, classes in source.other_labels.items():
            features[label] = labels(num_classes=classes)
        return tfds.core.DatasetInfo(
            builder=self,
            description=source.description,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage=source.homepage,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        source = self.SOURCE
        # Never `download_and_extract`: it needs TensorFlow, and extracts by file name.
        paths = dl_manager.download({file: source.url + file for file in source.archives})
        contents = source.read(paths)
        features: Any = self.info.features
        for label, names in contents.names.items():
            features[label].names = names
        return {split: self._generate_examples(split, contents) for split in contents.images}

    def _generate_examples(
        self, split: str, contents: Contents
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        labels = contents.labels[split]
        # TFDS orders the examples by a hash of these keys: they must be the stock builder's.
        for key, image in enumerate(contents.images[split]):
            example: dict[str, Any] = {label: int(of[key]) for label, of in labels.items()}
            # As a PIL image: TFDS encodes these without TensorFlow, and arrays with it.
            example["image"] = Image.fromarray(np.ascontiguousarray(image))
            if self.SOURCE.ids:
                example["id"] = f"{split}_{key:05d}"
            yield key, example


def from_archives(name: str, data_dir: Path) -> ArchiveBuilder:
    """Returns the builder of a row of `SOURCES`, which prepares `<data_dir>/<name>/<version>`."""
    source = SOURCES[name]
    fields = {
        "name": name,
        "SOURCE": source,
        "VERSION": tfds.core.Version(source.version),
        "__module__": __name__,
        # What TFDS checks archives by, and how it finds them in a manual folder.
        "url_infos": {
            source.url + file: checksums.UrlInfo(Size(size), sha256, filename=file)
            for file, (size, sha256) in source.archives.items()
        },
    }
    return type(name, (ArchiveBuilder,), fields, skip_registration=True)(data_dir=data_dir)


def check_name(name: str, known: Iterable[str]) -> None:
    """Checks that TFDS has a dataset `name`; downloads nothing.

    Args:
      name: `dataset` or, where TFDS has several variants of it, `dataset/config`.
      known: the names outside of TFDS, to suggest and to list.

    Raises:
      DataError: it has not; names the nearest, and what is accepted.
    """
    dataset, _, config = name.partition("/")
    names = tfds.list_builders(with_community_datasets=False)
    if dataset not in names:
        close = difflib.get_close_matches(dataset, [*known, *names], n=1, cutoff=0.5)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise DataError(
            f"config.data.name={name[:30]}: no such dataset; {hint}accepted: "
            f"{', '.join(sorted(known)[:3])}, … and image classification datasets of TFDS, as stl10"
        )
    configs = [c.name for c in tfds.builder_cls(dataset).BUILDER_CONFIGS]
    if config not in (configs or [""]):
        accepted = [f"{dataset}/{c}" for c in configs] or [dataset]
        raise DataError(f"config.data.name={name}: no such config; {nearest(name, accepted)}")


def stock_preparation(
    name: str, directories: DataDirectories, known: Iterable[str]
) -> Callable[[Path], None]:
    """Finds out whether TFDS's own builder can be used: nearly all of them need TensorFlow.

    Returns:
      A function of a folder, which writes `<folder>/<name>/<version>`.

    Raises:
      DataError: there is no such dataset, it is not one of images and classes, or TensorFlow is not
        installed.
    """
    check_name(name, known)
    manual = ""
    if name == imagenet.NAME:
        folder = imagenet.folder_of(directories)
        if folder is not None:
            return lambda target: download_and_prepare(
                imagenet.ImageNetBuilder(data_dir=target), folder
            )
        files = f"{imagenet.TRAIN} and {imagenet.VALIDATION}"
        manual = f"Put {files} into {directories.manual_dirs(name)[0]}, or prepare it "
    # ImportError: a builder that cannot even say, without TensorFlow, what it builds.
    with contextlib.suppress(ImportError), tfds_files.quiet():
        tfds_files.features_of(
            name, tfds.builder(name, data_dir=directories.data_dir).info, any_size=True
        )
    if importlib.util.find_spec("tensorflow") is None:
        raise DataError(
            f"{name} is not prepared in data.data_dir={directories.data_dir}, no arrays of it are "
            f"in data.cache_dir={directories.cache_dir}, and TFDS cannot prepare it without "
            f"TensorFlow. {manual or 'Prepare it '}"
            "where TensorFlow is installed (pip install tensorflow-cpu), by "
            f"tfds.builder('{name}').download_and_prepare(file_format='array_record'), and point "
            "TFDS_DATA_DIR or --config.data.data_dir to it; configs/lenet_digits.py needs none"
        )
    return lambda target: download_and_prepare(
        tfds.builder(name, data_dir=target), directories.manual_dir
    )


def download_and_prepare(builder: Any, manual_dir: Path) -> None:
    """Has a TFDS builder write its dataset as array_record files; one that is there is kept.

    Raises:
      DataError: TFDS raised something, of whatever kind.
    """
    config = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
    try:
        # Standard output is for results: what TFDS prints goes where its progress bars go.
        with contextlib.redirect_stdout(sys.stderr), tfds_files.quiet(), _patient_enough():
            builder.download_and_prepare(download_config=config, file_format="array_record")
    except Exception as error:  # TFDS raises of every kind
        with tfds_files.quiet():
            if builder.is_prepared():  # another process was first
                return
        raise DataError(
            f"{builder.name} cannot be prepared in {builder.data_dir}: {first_line(error)}"
        ) from None


@contextlib.contextmanager
def _patient_enough() -> Iterator[None]:
    """Sets TFDS to few retries (it tries for 3.5 minutes), and to bars only where one watches.

    In a log, each redraw of a progress bar is a line.
    """
    before = downloader.MAX_RETRIES
    downloader.MAX_RETRIES = _RETRIES
    watched = sys.stderr.isatty()
    if not watched:
        tqdm_utils.disable_progress_bar()
    try:
        yield
    finally:
        downloader.MAX_RETRIES = before
        if not watched:
            tqdm_utils.enable_progress_bar()
