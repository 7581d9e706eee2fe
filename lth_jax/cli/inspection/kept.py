"""The checkpoints of a run directory, checked, without their arrays."""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from lth_jax.errors import StoreError
from lth_jax.store.checkpoints import Manifest, array_bytes, read_manifest
from lth_jax.store.checkpoints import verify as verify_checkpoint

# How long a checkpoint that looks damaged may take to be replaced or removed by who is running.
PATIENCE = 0.3


@dataclasses.dataclass(frozen=True)
class Kept:
    """A checkpoint, looked at from outside.

    Attributes:
      name: such as `replicate_0/level_03`.
      path: its folder.
      arrays: name -> (shape, dtype's name).
      meta: the writer's own JSON object.
      saved_at: when it was written, in seconds since the epoch.
      damage: what is wrong with it, or an empty string.
    """

    name: str
    path: Path
    arrays: Mapping[str, tuple[tuple[int, ...], str]]
    meta: Mapping[str, Any]
    saved_at: float
    damage: str = ""

    def sizes(self) -> dict[str, int]:
        """Array name -> its bytes in memory."""
        return {name: array_bytes(*kind) for name, kind in self.arrays.items()}


def find_checkpoints(path: Path, *, verify: bool, running: bool) -> dict[str, Kept]:
    """Every checkpoint under a run directory by its name, in order.

    Args:
      path: the run directory.
      verify: compare every byte with the checksums; otherwise only whether the files are there.
      running: whether a process may be replacing checkpoints meanwhile.
    """
    root = path / "checkpoints"
    folders = sorted(root.glob("replicate_*/[!.]*"), key=_natural)
    folders += sorted(root.glob("progress_*"))
    folders = [folder for folder in folders if folder.is_dir()]
    look = partial(_look, root=root, verify=verify, patience=PATIENCE if running else 0.0)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing leaves Python's lock alone
        found = [kept for kept in pool.map(look, folders) if kept is not None]
    return {kept.name: kept for kept in found}


def _natural(folder: Path) -> list[tuple[int, str]]:
    """Orders `level_99` before `level_100`."""
    parts = re.split(r"(\d+)", f"{folder.parent.name}/{folder.name}")
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _look(folder: Path, *, root: Path, verify: bool, patience: float) -> Kept | None:
    """One checkpoint; None if it is gone, as the progress of a running level goes."""
    name = folder.relative_to(root).as_posix()
    check = verify_checkpoint if verify else _present
    try:
        saved_at = folder.stat().st_mtime
    except FileNotFoundError:
        return None
    try:
        manifest = check(folder)
        return Kept(name, folder, manifest.arrays, manifest.meta, saved_at)
    except StoreError as error:
        if patience:
            time.sleep(patience)
            return _look(folder, root=root, verify=verify, patience=0.0)
        if not folder.exists():
            return None
        what = str(error).replace(f"checkpoint {folder}", "").removeprefix(":").strip()
        return Kept(name, folder, *_manifest_of_damaged(folder), saved_at, damage=what)


def _present(folder: Path) -> Manifest:
    """The manifest of a checkpoint all of whose files exist; their content is not looked at."""
    manifest = read_manifest(folder)
    for name in manifest.files:
        if not (folder / name).is_file():
            raise StoreError(f"its file {name} is missing")
    return manifest


def _manifest_of_damaged(folder: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """(arrays, meta) of a checkpoint whose manifest is whole all the same; else nothing."""
    try:
        manifest = read_manifest(folder)
    except StoreError:
        return {}, {}
    return manifest.arrays, manifest.meta
