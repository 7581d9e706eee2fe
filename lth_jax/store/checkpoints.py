"""Checkpoints: each is a folder with Orbax's arrays and a manifest that says what they must be.

Orbax loads a flipped byte as a wrong value without a word, so the manifest keeps a SHA-256 of every
file, and of itself. It also lists the arrays, so that a checkpoint can be looked at without Orbax
and without loading anything. A checkpoint appears by one rename, whole or not at all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import os
import secrets
import shutil
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  tells NumPy the names of bfloat16 and its like
import numpy as np

from lth_jax.disk.files import (
    entries,
    exists,
    read_bytes,
    reading,
    reason_of,
    sync_folder,
    unreadable,
    write_text,
    writing,
)
from lth_jax.errors import StoreError, shown
from lth_jax.pruning.trees import PyTree, map_named, named_leaves

FORMAT = 1
MANIFEST = "manifest.json"
ARRAYS = "arrays"
_SESSION = secrets.token_hex(4)
_ORBAX = threading.Lock()  # two saves at once, in two threads, take each other's files away
OLD = ".old.tmp"  # how the name of a checkpoint ends while a new one takes its place


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Says what a checkpoint holds; it is read without the arrays.

    Attributes:
      arrays: name -> (shape, dtype's name).
      meta: the writer's own JSON object.
      files: relative file name -> SHA-256 in hex.
    """

    arrays: Mapping[str, tuple[tuple[int, ...], str]]
    meta: Mapping[str, Any]
    files: Mapping[str, str]


class Damaged(StoreError):
    """Is raised where the bytes of a checkpoint are not those that were written."""


def save(path: Path, tree: PyTree, meta: Mapping[str, Any] | None = None) -> None:
    """Writes the arrays of `tree`, by name, and `meta` as a checkpoint at `path`, replacing it."""
    from orbax.checkpoint import v1 as ocp

    arrays = {name: np.asarray(leaf) for name, leaf in named_leaves(tree).items()}
    temporary = path.with_name(f".{path.name}.{_writer()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        # Orbax refuses arrays without elements; the manifest says all there is to say of them.
        if stored := {name: array for name, array in arrays.items() if array.size}:
            try:
                _expect_late_answers()
                # Orbax takes absolute paths only.
                with _ORBAX:
                    ocp.save(str((temporary / ARRAYS).absolute()), _nest(stored))
            except Exception as error:  # many kinds, on a full disk too
                raise StoreError(f"cannot write {path}: {reason_of(error)}") from error
        body = {
            "format": FORMAT,
            "meta": dict(meta or {}),
            "arrays": {name: [list(a.shape), a.dtype.name] for name, a in arrays.items()},
            "files": _digests(temporary),
            "place": _place(path),
        }
        write_text(temporary / MANIFEST, json.dumps({**body, "sha256": _seal(body)}, indent=1))
        _replace(temporary, path)


def _writer() -> str:
    """Returns what temporary names tell this process by from all others that write beside it."""
    return f"{os.getpid()}-{_SESSION}"  # other hosts count processes, too


def _place(path: Path) -> str:
    """Returns which of a trunk's checkpoints one is, such as `replicate_0/level_03`, or ''."""
    return f"{path.parent.name}/{path.name}" if path.parent.name.startswith("replicate_") else ""


@functools.cache
def _expect_late_answers() -> None:
    """Lets TensorStore's threads answer in vain: once a write has failed, nobody awaits others.

    Each of those answers would print a traceback.
    """
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = hook


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns the arrays of a checkpoint by name, on the host, and its `meta`.

    Raises:
      Damaged: a byte of it changed, a file is missing, or it is no checkpoint.
      Unreadable: this machine cannot read it now; its checksums alone say what is damaged.
    """
    manifest = verify(path)
    return _read(path, manifest, manifest.arrays), dict(manifest.meta)


def read_arrays(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Returns some arrays of a checkpoint, on the host; checks all its files, as `load` does.

    Raises:
      Damaged, Unreadable: as `load`; StoreError: it has no array of a name.
    """
    return _read(path, verify(path), names)


def _read(path: Path, manifest: Manifest, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Reads arrays with TensorStore, in which Orbax keeps them.

    Orbax itself is imported in seconds, and takes five times as long to load a small network.
    """
    import tensorstore

    names = list(names)
    for name in names:
        if name not in manifest.arrays:
            raise StoreError(f"checkpoint {path} lacks {name}")
    arrays = {name: np.zeros(*manifest.arrays[name]) for name in names}
    folder = {"driver": "file", "path": f"{(path / ARRAYS / 'state').absolute()}/"}
    opened = {}
    try:
        for name in names:
            if arrays[name].size:  # others are never stored, see `save`
                place = {"driver": "ocdbt", "base": folder, "path": name.replace("/", ".") + "/"}
                opened[name] = tensorstore.open({"driver": "zarr3", "kvstore": place}, open=True)
        for name, store in opened.items():
            arrays[name][...] = store.result().read().result()
    except Exception as error:  # TensorStore raises many kinds
        raise unreadable(path, error) from error  # every byte is as it was written
    return arrays


def verify(path: Path) -> Manifest:
    """Returns the manifest of a checkpoint after it has checked all its files.

    Raises:
      Damaged, Unreadable: as `load`; the message names the file.
    """
    manifest = read_manifest(path)
    for name, digest in manifest.files.items():
        try:
            intact = _digest(path / name) == digest
        except FileNotFoundError as error:
            raise Damaged(f"checkpoint {path}: its file {name} is missing") from error
        if not intact:
            raise Damaged(f"checkpoint {path}: its file {name} is damaged")
    return manifest


def read_manifest(path: Path) -> Manifest:
    """Returns the manifest; checks it against its own SHA-256, but not against the files.

    Raises:
      Damaged: it is missing or changed; StoreError: it is of another format; Unreadable: as `load`.
    """
    try:
        body = json.loads(read_bytes(path / MANIFEST))
        seal = body.pop("sha256")
    except FileNotFoundError as error:
        raise Damaged(f"checkpoint {path}: its {MANIFEST} is missing") from error
    except StoreError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"checkpoint {path}: its {MANIFEST} is damaged") from error
    if seal != _seal(body):
        raise Damaged(f"checkpoint {path}: its {MANIFEST} is damaged")
    place = body.get("place")  # which older versions did not write
    if place and _place(path) not in ("", place):
        raise Damaged(f"checkpoint {path}: it is that of {shown(place)}")
    try:
        if body["format"] != FORMAT:
            raise StoreError(
                f"checkpoint {path} has format {shown(body['format'])}; this version reads {FORMAT}"
            )
        arrays = {name: _shape_and_dtype(kind) for name, kind in body["arrays"].items()}
        meta, files = dict(body["meta"]), dict(body["files"])
        if any(Path(name).is_absolute() or ".." in Path(name).parts for name in files):
            raise ValueError("a file lies outside")
        _check_meta(meta)
    except StoreError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"checkpoint {path}: its {MANIFEST} is none of ours") from error
    return Manifest(arrays, meta, files)


def _check_meta(meta: Mapping[str, Any]) -> None:
    """Raises a TypeError, KeyError or ValueError where one of the run's own entries is no such."""
    numbers = [meta.get("step", 0), meta.get("level", 0)]
    for kept, total in meta.get("layers", {}).values():
        numbers += [kept, total]
    for run in meta.get("runs", ()):
        branch, *place = run["id"]
        if not isinstance(branch, str) or len(place) != 3:
            raise ValueError(f"{run['id']} is no run")
        numbers += [*place, run["step"], run.get("evaluated", 0)]
        for point in run.get("points", ()):
            numbers += point[:3]
            if not all(isinstance(value, int | float) for value in point):
                raise ValueError(f"{point} is no evaluation")
    if not all(type(number) is int for number in numbers):
        raise ValueError("a count is no integer")


def _shape_and_dtype(kind: Any) -> tuple[tuple[int, ...], str]:
    """Returns what a manifest says of an array; TypeError or ValueError where that is no array."""
    shape, dtype = kind
    if not all(isinstance(size, int) and size >= 0 for size in shape):
        raise ValueError(f"{shape} is no shape")
    if np.dtype(dtype).hasobject:
        raise ValueError(f"{dtype} is no number")
    return tuple(shape), dtype


def array_bytes(shape: tuple[int, ...], dtype: str) -> int:
    """Returns how many bytes an array has that a manifest lists."""
    return math.prod(shape) * np.dtype(dtype).itemsize


def fill(template: PyTree, arrays: Mapping[str, np.ndarray], prefix: str = "") -> PyTree:
    """Returns the structure of `template` with the arrays of the same names under `prefix`.

    Raises:
      StoreError: an array is missing, or its shape or dtype is another one.
    """

    def leaf(name: str, like: Any) -> np.ndarray:
        array = arrays.get(prefix + name)
        wanted = f"{np.dtype(like.dtype).name}{list(like.shape)}"
        if array is None:
            raise StoreError(f"the checkpoint lacks {prefix}{name} ({wanted})")
        if array.shape != tuple(like.shape) or array.dtype != like.dtype:
            found = f"{array.dtype.name}{list(array.shape)}"
            raise StoreError(f"the checkpoint's {prefix}{name} is {found}, not {wanted}")
        return array

    return map_named(leaf, template)


def subtree(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Returns the arrays under `prefix/` as nested dicts, as Flax names its parameters."""
    start = prefix + "/"
    return _nest({n[len(start) :]: a for n, a in arrays.items() if n.startswith(start)})


def _nest(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `{"a/b": x}` as `{"a": {"b": x}}`."""
    nested: dict[str, Any] = {}
    for name, array in arrays.items():
        *parents, last = name.split("/")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = array
    return nested


def _digest(file: Path) -> str:
    with reading(file), file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _digests(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): _digest(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.relative_to(folder).as_posix() != MANIFEST
    }


def _seal(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _replace(temporary: Path, path: Path) -> None:
    """Puts `temporary` at `path`. A folder cannot be replaced by one rename: the old goes first.

    If the process ends between the two renames, `remove_leftovers` puts the old one back.
    """
    if os.path.lexists(path):
        old = path.with_name(f".{path.name}.{_writer()}{OLD}")
        shutil.rmtree(old, ignore_errors=True)
        os.rename(path, old)
        os.rename(temporary, path)
        sync_folder(path.parent)
        shutil.rmtree(old, ignore_errors=True)  # what is left goes with the next start
    else:
        os.rename(temporary, path)
        sync_folder(path.parent)


def remove(path: Path) -> None:
    """Removes a checkpoint; one that is half removed, by a kill, is a leftover and not damaged."""
    leftover = path.with_name(f".{path.name}.{_writer()}.tmp")
    with contextlib.suppress(OSError):  # it is of no use any more, and the next start tries again
        os.rename(path, leftover)
        path = leftover
    shutil.rmtree(path, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Removes what killed saves left in `folder`; the old checkpoint of a half replacement returns.

    Raises:
      StoreError: the operating system refuses to rename the old checkpoint; Unreadable: the folder.
    """
    for old in entries(folder):
        if old.name.startswith(".") and old.name.endswith(OLD):
            path = old.with_name(old.name.removesuffix(OLD)[1:].rpartition(".")[0])
            if not exists(path):
                with writing(path):
                    os.rename(old, path)
    for leftover in entries(folder):
        if leftover.name.startswith(".") and leftover.name.endswith(".tmp"):
            shutil.rmtree(leftover, ignore_errors=True)
