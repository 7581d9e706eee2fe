"""Named arrays and metadata as one file: safetensors, or an npz archive without pickles.

Both carry a SHA-256 of all they hold, so that a flipped byte is found and never used.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from lth_jax.disk.files import write_bytes
from lth_jax.errors import StoreError, first_line

FORMATS = ("safetensors", "npz")
# What a file may hold, and what reads it.
TICKET, COMPACT = "lth_jax ticket", "lth_jax compact network"
PYTORCH = "lth_jax network for PyTorch"
READERS = {
    TICKET: "lth_jax.load_ticket",
    COMPACT: "lth_jax.load_compact",
    PYTORCH: "load_state_dict of PyTorch",
}
VERSION = "1"
TEXTS = ("kind", "version", "sha256")  # metadata that are no JSON, whoever writes the others
_ZIP = b"PK"
_METADATA = "metadata"  # the npz's own member, JSON in UTF-8


def write(
    path: Path,
    arrays: Mapping[str, Any],
    metadata: Mapping[str, str],
    file_format: str = "safetensors",
) -> int:
    """Writes arrays and metadata to exactly `path`, whole or not at all; returns its size in bytes.

    Args:
      path: the file.
      arrays: by name, of any dtype that JAX has.
      metadata: strings by name, of which `kind` says what the file is.
      file_format: `safetensors` or `npz`.

    Raises:
      StoreError: it cannot be written.
    """
    plain, dtypes = {}, {}
    for name, array in arrays.items():
        plain[name], dtype = _plain(np.asarray(array))
        if dtype:
            dtypes[name] = dtype
    metadata = {**metadata, "version": VERSION, "dtypes": json.dumps(dtypes)}
    metadata["sha256"] = _digest(plain, metadata)
    content = _to_npz(plain, metadata) if file_format == "npz" else _to_safetensors(plain, metadata)
    write_bytes(path, content)
    return len(content)


def read(path: Path, wanted: str = "") -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns the arrays and the metadata of a file that `write` wrote, whichever its format.

    Args:
      path: the file.
      wanted: the kind of file that is accepted; all are by default.

    Raises:
      StoreError: there is no such file, it is damaged, none of ours, or of another version
        or kind.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    try:
        read = _from_npz if content.startswith(_ZIP) else _from_safetensors
        arrays, metadata = read(content)
        kind, version, sha256 = (metadata[name] for name in ("kind", "version", "sha256"))
        dtypes = json.loads(metadata["dtypes"])
    except Exception as error:  # both readers raise many kinds
        raise StoreError(
            f"{path} is no whole file that `python -m lth_jax export` wrote ({_line(error)})"
        ) from error
    if version != VERSION:
        raise StoreError(f"{path} ({kind}) has version {version}; this version reads {VERSION}")
    if sha256 != _digest(arrays, {n: v for n, v in metadata.items() if n != "sha256"}):
        raise StoreError(f"{path} is damaged: its checksum is another one")
    if wanted not in ("", kind):
        reader = READERS.get(kind, "another program")
        raise StoreError(f"{path} is an {kind}; accepted here: an {wanted}; see {reader}")
    for name, dtype in dtypes.items():
        arrays[name] = arrays[name].view(jnp.dtype(dtype))
    return arrays, metadata


def _plain(array: np.ndarray) -> tuple[np.ndarray, str]:
    """Returns a contiguous array of NumPy's dtypes, and the name of its dtype if that is none."""
    array = np.ascontiguousarray(array).reshape(array.shape)
    if array.dtype.kind in "biuf" and array.dtype.isbuiltin == 1:
        return array, ""
    return array.view(f"u{array.dtype.itemsize}"), array.dtype.name  # bfloat16 and its like


def _digest(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    found = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype.name} {array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def _to_safetensors(arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    from safetensors.numpy import save

    return save(arrays, metadata)


def _from_safetensors(content: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    from safetensors.numpy import load

    arrays = load(content)
    length = int.from_bytes(content[:8], "little")
    return arrays, json.loads(content[8 : 8 + length]).get("__metadata__", {})


def _to_npz(arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    out = io.BytesIO()  # a name of a file would get the suffix .npz
    text = np.frombuffer(json.dumps(metadata).encode(), np.uint8)
    np.savez_compressed(out, **{**arrays, _METADATA: text})
    return out.getvalue()


def _from_npz(content: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return arrays, json.loads(arrays.pop(_METADATA).tobytes())


def _line(error: BaseException) -> str:
    if isinstance(error, zipfile.BadZipFile):
        return "a damaged archive"
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return first_line(error)
