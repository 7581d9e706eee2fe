"""The one cache of datasets: decoded arrays on disk, a file for each dataset.

Decoding tens of thousands of PNGs at every start takes seconds. What TFDS has prepared is the
source of a cached file, not a cache: it is never replaced.

A file holds a line with the SHA-256 of all that follows, a line of JSON, and the arrays' bytes.

- It is found by its name: the dataset, its version, and a fingerprint of what was decoded.
- It is checked against its SHA-256. A damaged file is reported and passed over.
- It is replaced by another under the same name, and appears whole or not at all (written aside,
  synced, renamed): two processes that write it at once both succeed.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import logging
import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from lth_jax.data.dataset import Dataset
from lth_jax.disk.files import read_bytes, replacing
from lth_jax.errors import Unreadable, first_line, shown

FORMAT = 1
_SUFFIX = f".arrays{FORMAT}"
_TEMPORARY = ".tmp"
_ABANDONED_SECONDS = 24 * 3600
# Labels first: with the header padded, they lie aligned.
_ARRAYS = ("train_labels", "test_labels", "train_images", "test_images")
# The dtypes in files that were written before headers told them.
_FORMER_DTYPES = ("<i4", "<i4", "|u1", "|u1")
_DIGEST_LINE = 64 + 1
_ALIGNMENT = 64

_log = logging.getLogger(__name__)


def file_name(name: str, version: str, source: str) -> str:
    """Returns such as `mnist-3.0.1-0123456789abcdef.arrays1`; arguments as in `store`."""
    return f"{name.replace('/', '--')}-{version}-{source}{_SUFFIX}"


def store(
    cache_dir: Path, dataset: Dataset, *, version: str, source: str, content: str = ""
) -> None:
    """Writes a dataset, its arrays of any dtypes and shapes; where it cannot, warns and goes on.

    Args:
      cache_dir: created if need be.
      dataset: its name, arrays, number of classes and scale are kept.
      version: that of the prepared dataset, such as `3.0.1`.
      source: the fingerprint of the prepared files that were decoded, hexadecimal.
      content: a digest of the examples for `load` to ask for.
    """
    arrays = [np.ascontiguousarray(getattr(dataset, field)) for field in _ARRAYS]
    header = {
        "name": dataset.name,
        "version": version,
        "source": source,
        "content": content,
        "scale": dataset.scale,
        "num_classes": dataset.num_classes,
        "shapes": [array.shape for array in arrays],
        "dtypes": [array.dtype.str for array in arrays],
    }
    line = json.dumps(header).encode()
    padding = -(_DIGEST_LINE + len(line) + 1) % _ALIGNMENT
    parts = [line + b" " * padding + b"\n", *(array.data for array in arrays)]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(cache_dir)
        path = cache_dir / file_name(dataset.name, version, source)
        with replacing(path) as temporary, temporary.open("wb") as file:
            file.writelines([digest.hexdigest().encode() + b"\n", *parts])
    except OSError as error:
        _log.warning(
            "config.data.cache_dir=%s cannot be written (%s): %s will be decoded again next time",
            cache_dir, error.strerror or error, dataset.name,
        )  # fmt: skip


def load(
    cache_dir: Path, name: str, *, version: str = "", source: str = "", content: str = ""
) -> Dataset | None:
    """Returns the cached dataset `name`, or None; of several, the newest.

    Args:
      cache_dir: where to look; it need not exist.
      name: the dataset.
      version, source, content: what it must be of, as given to `store`; empty for any.
    """
    pattern = file_name(glob.escape(name), version or "[0-9]*", source or "*")
    found = []
    for path in cache_dir.glob(pattern):
        with contextlib.suppress(OSError):
            found.append((path.stat().st_mtime_ns, path))
    for _, path in sorted(found, reverse=True):
        try:
            dataset, stored = _read(path)
        except FileNotFoundError:  # it was replaced a moment ago
            continue
        except Unreadable as error:
            _log.warning("passing over a data cache: %s", error)
            continue
        except Exception as error:  # whatever a file may say that was made with care
            _log.warning("passing over the damaged data cache %s: %s", path, first_line(error))
            continue
        if dataset.name == name and content in ("", stored):
            return dataset
    return None


def _remove_abandoned(cache_dir: Path) -> None:
    """Removes what killed processes left; younger files may be of one at work right now."""
    for path in cache_dir.glob(f"*{_SUFFIX}*{_TEMPORARY}"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                path.unlink()


def _read(path: Path) -> tuple[Dataset, str]:
    """Returns what `store` was given, or raises a ValueError if that cannot be told for sure."""
    blob = read_bytes(path)
    body = memoryview(blob)[_DIGEST_LINE:]
    if hashlib.sha256(body).hexdigest().encode() + b"\n" != blob[:_DIGEST_LINE]:
        raise ValueError("its checksum does not match")
    offset = blob.index(b"\n", _DIGEST_LINE) + 1
    header = json.loads(blob[_DIGEST_LINE:offset])
    shapes = header["shapes"]
    if not all(type(size) is int and size >= 0 for shape in shapes for size in shape):
        raise ValueError(f"arrays of the shapes {shown(shapes)}")
    if file_name(header["name"], header["version"], header["source"]) != path.name:
        raise ValueError("its name is not the one it was written under")
    classes, scale, content = (header[name] for name in ("num_classes", "scale", "content"))
    if type(classes) is not int or not 0 < classes < 1 << 31 or type(content) is not str:
        raise ValueError(f"{shown(classes)} classes of the content {shown(content)}")
    if type(scale) not in (int, float) or not 0 < scale < math.inf:
        raise ValueError(f"a scale of {shown(scale)}")
    arrays: dict[str, Any] = {}
    dtypes = header.get("dtypes", _FORMER_DTYPES)
    for field, shape, dtype in zip(_ARRAYS, header["shapes"], dtypes, strict=True):
        flat = np.frombuffer(blob, dtype, count=math.prod(shape), offset=offset)
        offset += flat.nbytes
        arrays[field] = flat.reshape(shape)
    if offset != len(blob):
        raise ValueError("its arrays are not as long as it says")
    for split in ("train", "test"):
        if len(arrays[f"{split}_labels"]) != len(arrays[f"{split}_images"]):
            raise ValueError(f"its {split} images and labels are not as many")
    dataset = Dataset(
        name=header["name"],
        num_classes=classes,
        scale=scale,
        origin=f"cache {path}",
        version=header["version"],
        **arrays,
    )
    return dataset, content
