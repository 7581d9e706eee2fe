"""Named arrays and metadata as one file: safetensors, or an npz archive without pickles.

Both carry a SHA-256 of all they hold, so that a flipped byte is found and never used.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from lth_jax.disk.files import read_bytes, unreadable, write_bytes
from lth_jax.errors import StoreError, first_line, shown
from lth_jax.system import machine

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
MOST_METADATA = 64 << 20  # bytes
# What safetensors calls the dtypes that are written here.
_SAFETENSORS = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "u2", "I16": "i2", "U32": "u4", "I32": "i4",
    "U64": "u8", "I64": "i8", "F16": "f2", "F32": "f4", "F64": "f8",
}  # fmt: skip
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


class Header(NamedTuple):
    """What a file says of an array: its dtype in the file, and its shape."""

    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)


Check = Callable[[Mapping[str, Header], Mapping[str, str]], None]


def read(
    path: Path, wanted: str = "", check: Check = lambda *_: None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns the arrays and the metadata of a file that `write` wrote, whichever its format.

    Args:
      path: the file.
      wanted: the kind of file that is accepted; all are by default.
      check: raises a ValueError where arrays' headers, or metadata, cannot be those of such a file.
        It sees them before any array is read: a small file may well say that it holds a large one.

    Raises:
      StoreError: there is no such file, it is damaged, none of ours, or of another version
        or kind; Unreadable: this machine cannot read it now.
    """
    try:
        content = read_bytes(path)
    except FileNotFoundError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    with understanding(path):
        headers, metadata, load = (_npz if content.startswith(_ZIP) else _safetensors)(content)
        texts = ("kind", "version", "sha256", "dtypes")
        kind, version, sha256, dtypes = (metadata[name] for name in texts)
        if version != VERSION:
            raise StoreError(
                f"{path} ({_named(kind)}) has version {_named(version)}; "
                f"this version reads {VERSION}"
            )
        if wanted not in ("", kind):
            reader = READERS.get(kind, "another program")
            raise StoreError(
                f"{path} is an {_named(kind)}; accepted here: an {wanted}; see {reader}"
            )
        check(headers, metadata)
        check_memory(sum(header.size * header.dtype.itemsize for header in headers.values()))
        arrays = load()
        if sha256 != _digest(arrays, {n: v for n, v in metadata.items() if n != "sha256"}):
            raise StoreError(f"{path} is damaged: its checksum is another one")
        for name, dtype in json.loads(dtypes).items():
            arrays[name] = arrays[name].view(jnp.dtype(dtype))
    return arrays, metadata


def check_memory(size: int) -> None:
    """Raises a MemoryError where there is not enough memory for arrays of `size` bytes.

    They are there twice on their way to JAX. A small file may well unpack to more than any machine
    has, all of it consistent.
    """
    if 2 * size > machine.memory():
        raise MemoryError


def is_ours(content: bytes) -> bool:
    """Returns whether a file is one that `write` wrote, as far as its header tells."""
    try:
        _, metadata, _ = (_npz if content.startswith(_ZIP) else _safetensors)(content)
        return metadata.get("kind") in READERS
    except Exception:  # it may be anything
        return False


@contextlib.contextmanager
def understanding(path: Path) -> Iterator[None]:
    """Turns whatever is raised over what a file says into one line: a stranger may have made it.

    Raises:
      StoreError: it is no whole file of ours; Unreadable: there is not enough memory.
    """
    try:
        yield
    except StoreError:
        raise
    except MemoryError as error:
        raise unreadable(path, error) from error
    except Exception as error:  # readers raise many kinds
        raise StoreError(
            f"{path} is no whole file that `python -m lth_jax export` wrote ({_line(error)})"
        ) from error


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


Parts = tuple[dict[str, Header], dict[str, str], Callable[[], dict[str, np.ndarray]]]


def _safetensors(content: bytes) -> Parts:
    """Returns the headers of a file's arrays, its metadata, and what reads the arrays."""
    from safetensors.numpy import load

    length = int.from_bytes(content[:8], "little")
    if length > len(content) - 8:
        raise ValueError("it is cut short")
    entries = json.loads(content[8 : 8 + length])
    metadata = entries.pop("__metadata__", {})
    headers = {
        name: Header(np.dtype(_SAFETENSORS[entry["dtype"]]), tuple(entry["shape"]))
        for name, entry in entries.items()
    }
    # The library checks that they fit the file's length, and one another.
    return headers, metadata, lambda: load(content)


def _to_npz(arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    out = io.BytesIO()  # a name of a file would get the suffix .npz
    text = np.frombuffer(json.dumps(metadata).encode(), np.uint8)
    np.savez_compressed(out, **{**arrays, _METADATA: text})
    return out.getvalue()


def _npz(content: bytes) -> Parts:
    """Returns the headers of an archive's arrays, its metadata, and what reads the arrays."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {one.filename.removesuffix(".npy"): one for one in archive.infolist()}
        headers = {name: _npy_header(archive, member) for name, member in members.items()}
        text = headers.pop(_METADATA)
        if text.dtype != np.uint8 or text.size > MOST_METADATA:
            raise ValueError(f"{text.size} bytes of metadata")

    def load() -> dict[str, np.ndarray]:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in headers}

    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return headers, json.loads(archive[_METADATA].tobytes()), load


def _npy_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Header:
    """Reads the header of one array, and no more; checks that it fits the archive's own word."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        reader = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, dtype = reader(file)
        header = Header(dtype, shape)
        if dtype.hasobject or min(shape, default=0) < 0:
            raise ValueError(f"{member.filename} is {dtype} of shape {shape}")
        if file.tell() + header.size * dtype.itemsize != member.file_size:
            raise ValueError(f"{member.filename} has another length than its header says")
    return header


def _named(text: str) -> str:
    """Returns what a file says of itself, as a word of ours or as a value that anyone wrote."""
    return text if text in (*READERS, VERSION) else shown(text)


def _line(error: BaseException) -> str:
    if isinstance(error, zipfile.BadZipFile):
        return "a damaged archive"
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return first_line(error)
