"""Atomic writes: a reader finds the old file or the new one, never a part."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lth_jax.errors import StoreError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives an empty file beside `path`, which takes its place if the block within ends well.

    It is on the disk before it is renamed: else, after a power cut, the new name could stand for
    bytes that were never written. Whatever goes wrong, nothing is left beside the old file. The
    file is private to this user until the caller says otherwise.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Replaces the file at `path` by `content`; makes its folder if need be.

    Raises:
      StoreError: the operating system refuses; one line that names the file.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(content)
            os.chmod(temporary, 0o666 & ~_umask())


def write_text(path: Path, text: str) -> None:
    """Replaces the file at `path` by `text`, in UTF-8; errors as those of `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Replaces the file at `path` by `value` as indented JSON; errors as those of `write_bytes`."""
    write_text(path, json.dumps(value, indent=2) + "\n")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns the operating system's refusals into a StoreError, one line about `path`."""
    try:
        yield
    except (FileExistsError, NotADirectoryError) as error:
        raise StoreError(f"cannot write {path}: a file lies where its folder should be") from error
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
