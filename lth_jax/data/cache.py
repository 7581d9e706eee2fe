"""Decoded arrays on disk: decoding tens of thousands of PNGs at every start takes seconds.

One file holds one dataset: a line with the SHA-256 of all that follows, a line of JSON, and the
arrays' bytes. It appears whole or not at all (written aside, synced, renamed), a file that fails
its checksum is reported and passed over, and two processes that write it at once both succeed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lth_jax.data.dataset import Dataset

FORMAT = 1
_SUFFIX = f".arrays{FORMAT}"
_TEMPORARY = ".tmp"
_ABANDONED_SECONDS = 24 * 3600
# Labels first: with the header padded, they lie aligned.
_ARRAYS = ("train_labels", "test_labels", "train_images", "test_images")
_DTYPES = {"train_labels": "<i4", "test_labels": "<i4", "train_images": "|u1", "test_images": "|u1"}
_DIGEST_LINE = 64 + 1
_ALIGNMENT = 64

_log = logging.getLogger(__name__)


class Key(NamedTuple):
    """What a cached file holds.

    Attributes:
      name: the dataset, such as `mnist` or `emnist/letters`.
      version: of the prepared dataset, such as `3.0.1`.
      source: a fingerprint of the prepared files that were decoded, hexadecimal.
    """

    name: str
    version: str
    source: str

    @property
    def file_name(self) -> str:
        """Such as `mnist-3.0.1-0123456789abcdef.arrays1`."""
        return f"{_stem(self.name)}-{self.version}-{self.source}{_SUFFIX}"


def _stem(name: str) -> str:
    return name.replace("/", "--")


def store(cache_dir: Path, key: Key, dataset: Dataset, content: str = "") -> None:
    """Writes `dataset` under `key`; where that cannot be done, warns and goes on.

    Args:
      cache_dir: created if need be.
      key: what is stored.
      dataset: the arrays; its origin is not kept.
      content: a digest of the examples for `load` to ask for.
    """
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(cache_dir)
        _write_atomically(cache_dir / key.file_name, *_encode(key, dataset, content))
    except OSError as error:
        _log.warning(
            "config.data.cache_dir=%s cannot be written (%s): %s will be decoded again next time",
            cache_dir, error.strerror or error, key.name,
        )  # fmt: skip


def load(
    cache_dir: Path, name: str, *, version: str = "", source: str = "", content: str = ""
) -> Dataset | None:
    """The cached dataset `name`, or None; of several, the newest.

    Args:
      cache_dir: where to look; it need not exist.
      name: the dataset.
      version, source, content: what it must be of, as given to `store`; empty for any.
    """
    for path in _candidates(cache_dir, name, version, source):
        found = _read(path, name)
        if found is not None and content in ("", found[1]):
            return found[0]
    return None


def _candidates(cache_dir: Path, name: str, version: str, source: str) -> list[Path]:
    found = []
    with contextlib.suppress(OSError):
        for path in cache_dir.iterdir():
            parts = path.name.removesuffix(_SUFFIX).rsplit("-", 2)
            if len(parts) != 3 or parts[0] != _stem(name) or not path.name.endswith(_SUFFIX):
                continue
            if version in ("", parts[1]) and source in ("", parts[2]):
                found.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(found, reverse=True)]


def _encode(key: Key, dataset: Dataset, content: str) -> tuple[bytes, list[np.ndarray]]:
    given = [getattr(dataset, field).astype(_DTYPES[field], casting="safe") for field in _ARRAYS]
    arrays = [np.ascontiguousarray(array) for array in given]
    header: dict[str, Any] = dict(key._asdict(), content=content, scale=dataset.scale)
    header |= {"num_classes": dataset.num_classes, "shapes": [a.shape for a in arrays]}
    line = json.dumps(header).encode()
    padding = -(_DIGEST_LINE + len(line) + 1) % _ALIGNMENT
    return line + b" " * padding + b"\n", arrays


def _write_atomically(path: Path, header: bytes, arrays: list[np.ndarray]) -> None:
    digest = hashlib.sha256(header)
    for array in arrays:
        digest.update(array.data)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=_TEMPORARY)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(digest.hexdigest().encode() + b"\n" + header)
            for array in arrays:
                file.write(array.data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _remove_abandoned(cache_dir: Path) -> None:
    """Removes what killed processes left; younger files may be of one at work right now."""
    for path in cache_dir.glob(f"*{_SUFFIX}*{_TEMPORARY}"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                path.unlink()


def _read(path: Path, name: str) -> tuple[Dataset, str] | None:
    try:
        blob = path.read_bytes()
        body = memoryview(blob)[_DIGEST_LINE:]
        if hashlib.sha256(body).hexdigest().encode() + b"\n" != blob[:_DIGEST_LINE]:
            raise ValueError("its checksum does not match")
        return _decode(path, name, blob)
    except (OSError, ValueError, KeyError) as error:
        _log.warning("passing over the damaged data cache %s: %s", path, error)
        return None


def _decode(path: Path, name: str, blob: bytes) -> tuple[Dataset, str]:
    offset = blob.index(b"\n", _DIGEST_LINE) + 1
    header = json.loads(blob[_DIGEST_LINE:offset])
    if Key(header["name"], header["version"], header["source"]).file_name != path.name:
        raise ValueError("its name is not the one it was written under")
    arrays = {}
    for field, shape in zip(_ARRAYS, header["shapes"], strict=True):
        flat = np.frombuffer(blob, _DTYPES[field], count=int(np.prod(shape)), offset=offset)
        offset += flat.nbytes
        arrays[field] = flat.reshape(shape)
    dataset = Dataset(
        name=name,
        num_classes=header["num_classes"],
        scale=header["scale"],
        origin=f"cache {path}",
        **arrays,
    )
    return dataset, header["content"]
