"""Where datasets are looked for and kept: folders, their defaults, and whether one can be written.

Every folder here is a local one.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from lth_jax.errors import DataError


class Places(NamedTuple):
    """The folders of one run.

    Attributes:
      data_dir: of prepared datasets, in TFDS's layout `<data_dir>/<name>/<version>`.
      manual_dir: of archives that the user brought, or one with a folder `<name>` of them.
      cache_dir: of decoded arrays, and of prepared datasets where `data_dir` cannot be written.
    """

    data_dir: Path
    manual_dir: Path
    cache_dir: Path

    @property
    def prepared_dirs(self) -> tuple[Path, Path]:
        """Where prepared datasets are looked for, in this order."""
        return self.data_dir, self.cache_dir / "tfds"

    def manual_dirs(self, name: str) -> tuple[Path, Path]:
        """Where the archives of `name` are looked for, in this order."""
        return self.manual_dir / name, self.manual_dir


def resolve(data_dir: str = "", manual_dir: str = "", cache_dir: str = "") -> Places:
    """The given folders, or for an empty string the default ones; nothing is created.

    `data_dir` defaults to `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`; `manual_dir` to
    `<data_dir>/downloads/manual`, where TFDS looks; `cache_dir` to `$XDG_CACHE_HOME/lth_jax`, else
    `~/.cache/lth_jax`.

    Raises:
      DataError: a folder that is not on this machine, such as `gs://…`.
    """
    data = _local("data_dir", data_dir or os.environ.get("TFDS_DATA_DIR", ""))
    data = data or Path("~/tensorflow_datasets").expanduser()
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return Places(
        data_dir=data,
        manual_dir=_local("manual_dir", manual_dir) or data / "downloads" / "manual",
        cache_dir=_local("cache_dir", cache_dir) or caches / "lth_jax",
    )


def _local(field: str, text: str) -> Path | None:
    if "://" in text:
        raise DataError(f"config.data.{field}={text}: accepted: a folder on this machine")
    return Path(os.path.abspath(os.path.expanduser(text))) if text else None


def can_write(folder: Path) -> bool:
    """Whether files can be made in `folder`, which is created if need be.

    Found out by doing it: permission bits say nothing for root, on read-only mounts, over quota.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
