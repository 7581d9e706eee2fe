"""The format of MNIST, Fashion-MNIST and KMNIST.

An archive is a gzipped idx file: two zero bytes, a type (8 is uint8), the number of dimensions,
the dimensions as big-endian int32, the values (http://yann.lecun.com/exdb/mnist/).
"""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np

# Of each split: the archive of the images, and that of the labels.
SPLITS = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
ARCHIVES = tuple(file for files in SPLITS.values() for file in files)


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
