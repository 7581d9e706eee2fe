"""The format of CIFAR-10 and CIFAR-100: the binary archives, read in memory.

An archive is a gzipped tar of files of records, one for each example: a byte for each of its
labels, then 3,072 bytes of the image, its planes of red, green and blue
(https://www.cs.toronto.edu/~kriz/cifar.html).
"""

from __future__ import annotations

import tarfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

SHAPE = (32, 32, 3)
_PIXELS = 32 * 32 * 3
# CIFAR-100's training file has 154 MB, and nothing in these archives is larger.
_LARGEST_BYTES = 160 * 10**6


class Layout(NamedTuple):
    """What is where in an archive.

    Attributes:
      folder: of all its files.
      splits: the files of each split, in order.
      labels: of each label in a record, in order: the file of its classes' names.
    """

    folder: str
    splits: dict[str, tuple[str, ...]]
    labels: dict[str, str]


LAYOUTS = {
    "cifar10": Layout(
        folder="cifar-10-batches-bin",
        splits={
            "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
            "test": ("test_batch.bin",),
        },
        labels={"label": "batches.meta.txt"},
    ),
    "cifar100": Layout(
        folder="cifar-100-binary",
        splits={"train": ("train.bin",), "test": ("test.bin",)},
        labels={"coarse_label": "coarse_label_names.txt", "label": "fine_label_names.txt"},
    ),
}


class Contents(NamedTuple):
    """What an archive holds.

    Attributes:
      names: of each label, those of its classes.
      images: of each split, uint8 [n, 32, 32, 3].
      labels: of each split, uint8 [n, labels], in the order of `names`.
    """

    names: dict[str, list[str]]
    images: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]


def read_archive(path: str | Path, layout: Layout) -> Contents:
    """The examples of an archive, in their order. Nothing is extracted to disk.

    Raises:
      ValueError: it is no such archive, or not whole.
    """
    needed = {file for files in layout.splits.values() for file in files} | {
        *layout.labels.values()
    }
    files = _read_members(path, layout.folder, needed)
    width = len(layout.labels) + _PIXELS
    images, labels = {}, {}
    for split, parts in layout.splits.items():
        for part in parts:
            if not files[part] or len(files[part]) % width:
                raise ValueError(f"{part} in {path} does not hold whole records of {width} bytes")
        data = b"".join(files.pop(part) for part in parts)
        records = np.frombuffer(data, np.uint8).reshape(-1, width)
        labels[split] = records[:, : len(layout.labels)]
        planes = records[:, len(layout.labels) :].reshape(-1, 3, 32, 32)
        images[split] = planes.transpose(0, 2, 3, 1)
    names = {label: _lines(files[file]) for label, file in layout.labels.items()}
    return Contents(names, images, labels)


def _lines(text: bytes) -> list[str]:
    return [line for line in text.decode().splitlines() if line]


def _read_members(path: str | Path, folder: str, needed: set[str]) -> dict[str, bytes]:
    """The contents of the `needed` files in `folder` of the archive; no other is looked at."""
    found = {}
    try:
        with tarfile.open(path, "r|gz") as archive:  # a stream: seeking would unpack it twice
            for member in archive:
                parent, _, name = member.name.rpartition("/")
                if parent != folder or name not in needed or not member.isfile():
                    continue
                if member.size > _LARGEST_BYTES:
                    raise ValueError(f"{member.name} in {path} has {member.size} bytes")
                file = archive.extractfile(member)
                found[name] = file.read() if file else b""
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise ValueError(f"{path} is not a whole gzipped tar archive ({error})") from error
    if needed - set(found):
        raise ValueError(f"{path} lacks {', '.join(sorted(needed - set(found)))} in {folder}")
    return found
