"""The formats of the original archives: MNIST's idx files, and CIFAR's binary records.

Archives are read in memory, where they lie. Nothing is extracted to disk: MNIST, Fashion-MNIST and
KMNIST share their file names, and TFDS, which extracts by name, mixes them up.
"""

from __future__ import annotations

import gzip
import math
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lth_jax.errors import first_line

# The archives of each split: that of the images, and that of the labels.
IDX_SPLITS = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
IDX_ARCHIVES = tuple(file for files in IDX_SPLITS.values() for file in files)

CIFAR_SHAPE = (32, 32, 3)
# CIFAR-100's training file has 154 MB, and nothing in these archives is larger.
_LARGEST_BYTES = 160 * 10**6


class Contents(NamedTuple):
    """What the archives of a dataset hold.

    Attributes:
      images: those of each split, uint8 `[n, height, width]` or `[n, height, width, channels]`.
      labels: for each split and each kind of label, uint8 `[n]`.
      names: for each kind of label, the names of its classes, where the archives give them.
    """

    images: dict[str, np.ndarray]
    labels: dict[str, dict[str, np.ndarray]]
    names: dict[str, list[str]]


def read_idx_archives(paths: Mapping[str, str | Path]) -> Contents:
    """Reads the four archives of MNIST, or of a dataset in its format.

    Args:
      paths: the path of each file of `IDX_ARCHIVES`.

    Raises:
      ValueError: see `read_idx`.
    """
    arrays = {
        split: [read_idx(paths[file]) for file in files] for split, files in IDX_SPLITS.items()
    }
    return Contents(
        images={split: images for split, (images, _) in arrays.items()},
        labels={split: {"label": labels} for split, (_, labels) in arrays.items()},
        names={},
    )


def read_idx(path: str | Path) -> np.ndarray:
    """Returns the values of a gzipped idx file, uint8 of the shape that the file gives.

    Such a file has two zero bytes, a type (8 is uint8), the number of dimensions, the dimensions
    as big-endian int32, and the values (http://yann.lecun.com/exdb/mnist/).

    Raises:
      ValueError: the file is no idx file of uint8, or not whole.
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


class CifarLayout(NamedTuple):
    """Where things are in an archive of CIFAR.

    Attributes:
      folder: has all files.
      splits: the files of each split, in order.
      labels: the labels of a record, in order, and for each the file of its classes' names.
    """

    folder: str
    splits: dict[str, tuple[str, ...]]
    labels: dict[str, str]


CIFAR_LAYOUTS = {
    "cifar10": CifarLayout(
        folder="cifar-10-batches-bin",
        splits={
            "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
            "test": ("test_batch.bin",),
        },
        labels={"label": "batches.meta.txt"},
    ),
    "cifar100": CifarLayout(
        folder="cifar-100-binary",
        splits={"train": ("train.bin",), "test": ("test.bin",)},
        labels={"coarse_label": "coarse_label_names.txt", "label": "fine_label_names.txt"},
    ),
}


def read_cifar(path: str | Path, layout: CifarLayout) -> Contents:
    """Returns the examples of an archive of CIFAR, in their order.

    The archive is a gzipped tar of files of records, one for each example: a byte for each of its
    labels, then 3,072 bytes of the image, its planes of red, green and blue
    (https://www.cs.toronto.edu/~kriz/cifar.html).

    Raises:
      ValueError: the file is no such archive, or not whole.
    """
    needed = {file for files in layout.splits.values() for file in files}
    files = _read_members(path, layout.folder, needed | set(layout.labels.values()))
    kinds = len(layout.labels)
    width = kinds + math.prod(CIFAR_SHAPE)
    images, labels = {}, {}
    for split, parts in layout.splits.items():
        for part in parts:
            if not files[part] or len(files[part]) % width:
                raise ValueError(f"{part} in {path} does not hold whole records of {width} bytes")
        data = b"".join(files.pop(part) for part in parts)
        records = np.frombuffer(data, np.uint8).reshape(-1, width)
        labels[split] = dict(zip(layout.labels, records[:, :kinds].T, strict=True))
        images[split] = records[:, kinds:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    names = {
        label: [line for line in files[file].decode().splitlines() if line]
        for label, file in layout.labels.items()
    }
    return Contents(images, labels, names)


def _read_members(path: str | Path, folder: str, needed: set[str]) -> dict[str, bytes]:
    """Returns the contents of the `needed` files in `folder`; no other member is looked at."""
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
        line = first_line(error)
        raise ValueError(f"{path} is not a whole gzipped tar archive ({line})") from error
    if needed - set(found):
        raise ValueError(f"{path} lacks {', '.join(sorted(needed - set(found)))} in {folder}")
    return found
