"""The directories that datasets are looked for and kept in, all of them on this machine."""

from __future__ import annotations

import os
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
    """Returns the given directories, with the default for an empty string; creates nothing.

    `data_dir` defaults to `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`; `manual_dir` to
    `<data_dir>/downloads/manual`, where TFDS looks; `cache_dir` to `$XDG_CACHE_HOME/lth_jax`, else
    `~/.cache/lth_jax`.

    Raises:
      DataError: a directory is not on this machine, such as `gs://…`.
    """
    data = _local("data_dir", data_dir or os.environ.get("TFDS_DATA_DIR", ""))
    data = data or Path("~/tensorflow_datasets").expanduser()
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return DataDirectories(
        data_dir=data,
        manual_dir=_local("manual_dir", manual_dir) or data / "downloads" / "manual",
        cache_dir=_local("cache_dir", cache_dir) or caches / "lth_jax",
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
