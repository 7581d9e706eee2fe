"""Checkpoints: each is a folder with Orbax's arrays and a manifest that says what they must be.

Orbax loads a flipped byte as a wrong value without a word, so the manifest keeps a SHA-256 of every
file, and of itself. It also lists the arrays, so that a checkpoint can be looked at without Orbax
and without loading anything. A checkpoint appears by one rename, whole or not at all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  tells NumPy the names of bfloat16 and its like
import numpy as np

from lth_jax.disk.files import write_text, writing
from lth_jax.errors import StoreError, first_line
from lth_jax.pruning.trees import PyTree, map_named, named_leaves

FORMAT = 1
MANIFEST = "manifest.json"
ARRAYS = "arrays"
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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        # Orbax refuses arrays without elements; the manifest says all there is to say of them.
        if stored := {name: array for name, array in arrays.items() if array.size}:
            try:
                # Orbax takes absolute paths only.
                ocp.save(str((temporary / ARRAYS).absolute()), _nest(stored))
            except Exception as error:  # many kinds, on a full disk too
                raise StoreError(f"cannot write {path}: {first_line(error)}") from error
        body = {
            "format": FORMAT,
            "meta": dict(meta or {}),
            "arrays": {name: [list(a.shape), a.dtype.name] for name, a in arrays.items()},
            "files": _digests(temporary),
        }
        write_text(temporary / MANIFEST, json.dumps({**body, "sha256": _seal(body)}, indent=1))
        _replace(temporary, path)


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns the arrays of a checkpoint by name, on the host, and its `meta`.

    Raises:
      Damaged: a byte of it changed, a file is missing, or it is no checkpoint.
    """
    manifest = verify(path)
    from orbax.checkpoint import v1 as ocp

    arrays = {
        name: np.broadcast_to(np.zeros((), dtype), shape)
        for name, (shape, dtype) in manifest.arrays.items()
    }
    stored = {name: array for name, array in arrays.items() if array.size}
    try:
        if stored:
            arrays |= named_leaves(ocp.load(str((path / ARRAYS).absolute()), _nest(stored)))
    except Exception as error:  # Orbax and TensorStore raise many kinds
        raise Damaged(f"checkpoint {path} cannot be read: {first_line(error)}") from error
    return {name: np.asarray(arrays[name]) for name in manifest.arrays}, dict(manifest.meta)


def read_arrays(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Returns some arrays of a checkpoint, on the host; checks all its files, as `load` does.

    TensorStore, in which Orbax keeps them, reads them: the import of Orbax and JAX takes seconds.

    Raises:
      Damaged: as `load`; StoreError: it has no array of a name.
    """
    manifest = verify(path)
    import tensorstore

    folder = {"driver": "file", "path": f"{(path / ARRAYS / 'state').absolute()}/"}
    arrays = {}
    for name in names:
        if name not in manifest.arrays:
            raise StoreError(f"checkpoint {path} lacks {name}")
        shape, dtype = manifest.arrays[name]
        arrays[name] = np.zeros(shape, dtype)
        if not arrays[name].size:
            continue  # never stored, see `save`
        place = {"driver": "ocdbt", "base": folder, "path": name.replace("/", ".") + "/"}
        try:
            opened = tensorstore.open({"driver": "zarr3", "kvstore": place}, open=True).result()
            arrays[name][...] = opened.read().result()
        except ValueError as error:  # what TensorStore raises
            raise Damaged(f"checkpoint {path} cannot be read: {first_line(error)}") from error
    return arrays


def verify(path: Path) -> Manifest:
    """Returns the manifest of a checkpoint after it has checked all its files.

    Raises:
      Damaged: as `load`; the message names the file.
    """
    manifest = read_manifest(path)
    try:
        found = _digests(path)
    except OSError as error:
        raise Damaged(f"checkpoint {path} cannot be read: {error.strerror}") from error
    for name, digest in manifest.files.items():
        if found.get(name) != digest:
            what = "is missing" if name not in found else "is damaged"
            raise Damaged(f"checkpoint {path}: its file {name} {what}")
    return manifest


def read_manifest(path: Path) -> Manifest:
    """Returns the manifest; checks it against its own SHA-256, but not against the files.

    Raises:
      Damaged: it is missing or changed; StoreError: it is of another format.
    """
    try:
        body = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        seal = body.pop("sha256")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"checkpoint {path}: its {MANIFEST} is missing or damaged") from error
    if seal != _seal(body):
        raise Damaged(f"checkpoint {path}: its {MANIFEST} is damaged")
    if body["format"] != FORMAT:
        raise StoreError(
            f"checkpoint {path} has format {body['format']}; this version reads {FORMAT}"
        )
    arrays = {name: (tuple(shape), dtype) for name, (shape, dtype) in body["arrays"].items()}
    return Manifest(arrays, body["meta"], body["files"])


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


def subtree(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, Any]:
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


def _digests(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.relative_to(folder).as_posix() != MANIFEST
    }


def _seal(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _replace(temporary: Path, path: Path) -> None:
    """Puts `temporary` at `path`. A folder cannot be replaced by one rename: the old goes first.

    If the process ends between the two renames, `remove_leftovers` puts the old one back.
    """
    if path.exists():
        old = path.with_name(f".{path.name}.{os.getpid()}{OLD}")
        shutil.rmtree(old, ignore_errors=True)
        os.rename(path, old)
        os.rename(temporary, path)
        shutil.rmtree(old)
    else:
        os.rename(temporary, path)


def remove_leftovers(folder: Path) -> None:
    """Removes what killed saves left in `folder`; the old checkpoint of a half replacement returns.

    Raises:
      StoreError: the operating system refuses to rename the old checkpoint.
    """
    for old in folder.glob(f".*{OLD}"):
        path = old.with_name(old.name.removesuffix(OLD)[1:].rpartition(".")[0])
        if not path.exists():
            with writing(path):
                os.rename(old, path)
    for leftover in folder.glob(".*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
