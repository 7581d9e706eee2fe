"""The directories that datasets are looked for and kept in, all of them on this machine."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import NamedTuple

from lth_jax.errors import DataError


class DataDirectories(NamedTuple):
    """The directories of one run.

    Attributes:
      data_dir: has prepared datasets, in TFDS's layout `<data_dir>/<name>/<version>`.
      manual_dir: has archives that the user brought, or directories `<name>` of them.
      cache_dir: has decoded arrays (see `cache`), and prepared datasets where `data_dir` cannot be
        written.
    """

    data_dir: Path
    manual_dir: Path
    cache_dir: Path

    @property
    def prepared_dirs(self) -> tuple[Path, Path]:
        """The directories in which prepared datasets are looked for, in this order."""
        return self.data_dir, self.cache_dir / "tfds"

    def manual_dirs(self, name: str) -> tuple[Path, Path]:
        """Returns where the archives of the dataset `name` are looked for, in this order."""
        return self.manual_dir / name, self.manual_dir


def resolve(data_dir: str = "", manual_dir: str = "", cache_dir: str = "") -> DataDirectories:
    """Returns the given directories, with the default for an empty string, and creates none.

    `data_dir` defaults to `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`; `manual_dir` to
    `<data_dir>/downloads/manual`, where TFDS looks; `cache_dir` to `$XDG_CACHE_HOME/lth_jax`, else
    `~/.cache/lth_jax`. For a user without a home, as in some containers, `cache_dir` is made in the
    system's folder for temporary files, and data lie in it.

    Raises:
      DataError: a directory is not on this machine, such as `gs://…`; or there is no home, and the
        folder in its place could be another user's.
    """
    data = _local("data_dir", data_dir or os.environ.get("TFDS_DATA_DIR", ""))
    cache = _local("cache_dir", cache_dir)
    if cache is None:
        caches = _home(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
        cache = caches / "lth_jax" if caches else _in_place_of_home()
    data = data or _home("~/tensorflow_datasets") or cache / "tfds"
    return DataDirectories(
        data_dir=data,
        manual_dir=_local("manual_dir", manual_dir) or data / "downloads" / "manual",
        cache_dir=cache,
    )


def _home(text: str) -> Path | None:
    """Returns a folder of the user's, absolute; None where the user has no home."""
    path = os.path.expanduser(text)
    return None if path.startswith("~") else Path(path)


def _in_place_of_home() -> Path:
    """Returns a folder for this user alone, since what lies in a cache is loaded, and even run.

    Raises:
      DataError: others could have written there.
    """
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"lth_jax-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == user and not found.st_mode & 0o022:
            return folder
        why = "is another user's"
    except OSError as error:
        why = error.strerror or "cannot be made"
    raise DataError(
        f"there is no home directory, and {folder} {why}; accepted: HOME, XDG_CACHE_HOME or "
        "config.data.cache_dir"
    )


def _local(field: str, text: str) -> Path | None:
    if "://" in text:
        raise DataError(f"config.data.{field}={text}: accepted: a folder on this machine")
    return Path(os.path.abspath(os.path.expanduser(text))) if text else None


def can_write(folder: Path) -> bool:
    """Returns whether files can be made in `folder`, which is created if need be.

    It makes one: permission bits say nothing for root, on read-only mounts, or over quota.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
