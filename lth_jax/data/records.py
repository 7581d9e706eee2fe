"""The records of a dataset that TFDS has prepared, read one by one where they are asked for.

They stay on disk. What is kept of them is an index: of each record its length, its CRC-32 and its
label. It is made by reading all of them once, so that it also says that they can be read.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

from lth_jax.errors import DataError, first_line

# A TFRecord is its length (8 bytes), that length's CRC (4), the data, and their CRC (4).
TFRECORD_HEAD, TFRECORD_TAIL = 12, 4
_AT_ONCE = 1024


class Index(NamedTuple):
    """What is known of the records of a split.

    Attributes:
      records: int64 [n, 2], the length in bytes and the CRC-32 of each.
      labels: int32 [n].
    """

    records: Int64[np.ndarray, "n 2"]
    labels: Int32[np.ndarray, " n"]


def tfrecords(path: Path) -> Iterator[bytes]:
    """Yields the records of a TFRecord file.

    Raises:
      ValueError: the file is cut off.
    """
    with path.open("rb") as file:
        while head := file.read(TFRECORD_HEAD):
            (length,) = struct.unpack("<Q", head[:8].ljust(8, b"\0"))
            data = file.read(length) if len(head) == TFRECORD_HEAD else b""
            whole = len(data) == length and len(file.read(TFRECORD_TAIL)) == TFRECORD_TAIL
            if len(head) != TFRECORD_HEAD or not whole:
                raise ValueError(f"{path.name} ends inside a record")
            yield data


class Files(NamedTuple):
    """The files of a split, in order.

    Attributes:
      paths: where they lie.
      counts: how many records each has.
      file_format: `array_record` or `tfrecord`.
    """

    paths: tuple[Path, ...]
    counts: tuple[int, ...]
    file_format: str

    @classmethod
    def of(cls, builder: Any, split: str) -> Files:
        """Returns those of a split of a prepared dataset, by the builder that TFDS makes of it.

        Raises:
          ValueError: they are of another format.
        """
        file_format = builder.info.file_format.value
        if file_format not in ("array_record", "tfrecord"):
            raise ValueError(f"files of format {file_format}; accepted: array_record, tfrecord")
        info = builder.info.splits[split]
        paths, counts = map(Path, info.filepaths), map(int, info.shard_lengths)
        return cls(tuple(paths), tuple(counts), file_format)

    def read(self) -> Iterator[bytes]:
        """Yields all records, in order."""
        if self.file_format == "tfrecord":
            for path in self.paths:
                yield from tfrecords(path)
            return
        source = self.array_records()
        for start in range(0, len(source), _AT_ONCE):
            yield from source.__getitems__(range(start, min(start + _AT_ONCE, len(source))))

    def array_records(self) -> Any:
        """Returns those of `array_record` files, to be read by number."""
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        return ArrayRecordDataSource([str(path) for path in self.paths])


def index_of(files: Files, label_of: Callable[[bytes], int]) -> Index:
    """Reads all records once.

    Raises:
      ValueError: there are others than promised; and whatever reading a damaged file raises.
    """
    records, labels = [], []
    for record in files.read():
        records.append((len(record), zlib.crc32(record)))
        labels.append(label_of(record))
    if not labels or len(labels) != sum(files.counts):
        raise ValueError(f"they hold {len(labels)} of {sum(files.counts)} examples")
    return Index(np.array(records, np.int64), np.array(labels, np.int32))


class Records:
    """The records of a split, by number. Several threads may read at once.

    Args:
      files: where they are.
      index: what is known of them.
    """

    def __init__(self, files: Files, index: Index):
        self.files, self.index = files, index
        if files.file_format == "array_record":
            self._source = files.array_records()
            return
        self._source = None
        framed = index.records[:, 0] + TFRECORD_HEAD + TFRECORD_TAIL
        bounds = [0, *itertools.accumulate(files.counts)]
        self._file = np.repeat(np.arange(len(files.counts)), files.counts)
        self._offset = np.empty(len(framed), np.int64)
        for start, stop in itertools.pairwise(bounds):
            self._offset[start:stop] = np.cumsum(framed[start:stop]) - framed[start:stop]

    def read(self, numbers: Sequence[int]) -> list[bytes]:
        """Returns records by their numbers.

        Raises:
          DataError: one cannot be read, or is not what it was when the index was made.
        """
        try:
            if self._source is not None:
                found = list(self._source.__getitems__(list(numbers)))
            else:
                found = [self._tfrecord(number) for number in numbers]
        except Exception as error:  # of every kind, as of files on a network
            raise self._unreadable(f"{type(error).__name__}: {first_line(error)}") from error
        for number, record in zip(numbers, found, strict=True):
            if (len(record), zlib.crc32(record)) != tuple(self.index.records[number].tolist()):
                raise self._unreadable(f"record {number} is another than when it was first read")
        return found

    def _tfrecord(self, number: int) -> bytes:
        length, _ = self.index.records[number].tolist()
        # Opened anew each time, which takes microseconds: threads share no place in a file, and a
        # dataset may have more files than a process may hold open.
        with self.files.paths[self._file[number]].open("rb") as file:
            file.seek(int(self._offset[number]) + TFRECORD_HEAD)
            return file.read(length)

    def _unreadable(self, problem: str) -> DataError:
        return DataError(f"the examples in {self.files.paths[0].parent} cannot be read: {problem}")
