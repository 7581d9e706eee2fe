"""ImageNet (ILSVRC 2012), prepared from its archives without TensorFlow.

What TFDS's own builder writes, under the same name and version and in the same order, save for 23
images that are no JPEGs in red, green and blue: TFDS encodes them anew, here they stay as they are
in the archives. TFDS is slow to import: import this module inside a function.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from lth_jax.data.directories import DataDirectories

NAME = "imagenet2012"
TRAIN, VALIDATION = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"

_Examples = Iterator[tuple[str, dict[str, Any]]]


def folder_of(directories: DataDirectories) -> Path | None:
    """Returns the folder that has both archives; None if there is none."""
    for folder in directories.manual_dirs(NAME):
        if all((folder / archive).is_file() for archive in (TRAIN, VALIDATION)):
            return folder
    return None


# `skip_registration`: TFDS has a builder of this name. Type checkers do not know of it.
class ImageNetBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # pyright: ignore
    """Prepares `imagenet2012` from the archives in a folder, which takes as much space again."""

    name = NAME
    VERSION = tfds.core.Version("5.1.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"{TRAIN} and {VALIDATION}, from https://image-net.org/"

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=_lines("labels.txt")),
            "file_name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Photographs of a thousand kinds of things, of many sizes: 1,281,167 to "
            "train on and 50,000 to validate (Russakovsky et al., 2015).",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage="https://image-net.org/",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        folder = Path(dl_manager.manual_dir)
        return {
            "train": _training_examples(folder / TRAIN),
            "validation": _validation_examples(folder / VALIDATION),
        }

    def _generate_examples(self) -> _Examples:
        raise NotImplementedError  # the splits bring theirs


def _training_examples(path: Path) -> _Examples:
    """Yields the images of an archive that has an archive for each class, by its name."""
    for name, content in _files(path.open("rb")):
        for file, image in _files(io.BytesIO(content)):
            yield file, _example(file, image, name.removesuffix(".tar"))


def _validation_examples(path: Path) -> _Examples:
    """Yields images whose classes TFDS knows: a line for each, in the order of their names."""
    with tarfile.open(path) as archive:
        names = sorted(member.name for member in archive if member.isfile())
    labels = dict(zip(names, _lines("validation_labels.txt"), strict=False))
    for file, image in _files(path.open("rb")):
        yield file, _example(file, image, labels[file])


def _example(file: str, image: bytes, label: str) -> dict[str, Any]:
    # As an open file: TFDS takes what it holds as it is.
    return {"file_name": file, "image": io.BytesIO(image), "label": label}


def _files(file: Any) -> Iterator[tuple[str, bytes]]:
    """Yields the files of an uncompressed tar archive, and closes it."""
    with file, tarfile.open(fileobj=file, mode="r|") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() else None
            if content is not None:
                yield member.name.rpartition("/")[2], content.read()


def _lines(file: str) -> list[str]:
    """Returns the lines of a file that TFDS brings for ImageNet."""
    path = tfds.core.tfds_path(f"datasets/{NAME}/{file}")
    return path.read_text(encoding="utf-8").split()
