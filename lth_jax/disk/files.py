"""Atomic writes: a reader finds the old file or the new one, never a part."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lth_jax.errors import StoreError, Unreadable, first_line
from lth_jax.system.signals import undone_if_ended


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives an empty file beside `path`, which takes its place if the block within ends well.

    It is on the disk before it is renamed: else, after a power cut, the new name could stand for
    bytes that were never written. Whatever goes wrong, and whatever signal comes, nothing is left
    beside the old file. The file is private to this user until the caller says otherwise.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    with undone_if_ended(temporary.unlink):
        os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            yield temporary
            with open(temporary, "rb+") as written:  # Windows syncs what it may write
                os.fsync(written.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()


def write_bytes(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Replaces the file at `path` by `content`; makes its folder if need be.

    Where a link leads, the file is replaced that it names. A device, a pipe or a socket is no file
    that could be replaced: it is written to.

    Args:
      path: the file.
      content: all of it.
      mode: its permissions, as far as the umask leaves them.

    Raises:
      StoreError: the operating system refuses; one line that names the file.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not (path.is_file() or path.is_dir()):
            # Not to wait for ever for somebody who reads a pipe.
            handle = os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))
            os.set_blocking(handle, True)
            with open(handle, "wb") as out:
                out.write(content)
            return
        with replacing(Path(os.path.realpath(path))) as temporary:
            temporary.write_bytes(content)
            os.chmod(temporary, mode & ~_umask())


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


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what keeps this machine from reading `path` into one line; it says nothing of damage.

    Raises:
      Unreadable: no memory, no rights, too many open files, a failing disk; a folder for a file, or
        a pipe or a device, which may have no end.
      FileNotFoundError: it is not there, which the caller knows best what to make of.
    """
    try:
        kind = os.stat(path).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        yield
    except FileNotFoundError:
        raise
    except NotADirectoryError as error:
        raise FileNotFoundError(error.errno, error.strerror, str(path)) from error
    except (OSError, MemoryError) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: BaseException) -> Unreadable:
    """Returns the error for a file that cannot be read for reasons of this machine."""
    return Unreadable(f"cannot read {path} here: {reason_of(error)}; nothing was changed")


def reason_of(error: BaseException) -> str:
    """Returns why a file cannot be read or written, as the operating system says it if it does."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    code = re.search(r"os_error_code='(\d+)'", str(error))  # so TensorStore keeps it
    return os.strerror(int(code[1])) if code else first_line(error)


def read_bytes(path: Path) -> bytes:
    """Returns the content of a file; errors as those of `reading`."""
    with reading(path):
        return path.read_bytes()


def entries(folder: Path) -> list[Path]:
    """Returns what lies in a folder, by name; nothing where there is no folder.

    `Path.glob` would pass over a folder that it cannot read.

    Raises:
      Unreadable: as `reading`.
    """
    try:
        with reading(folder):
            return [folder / name for name in sorted(os.listdir(folder))]
    except FileNotFoundError:
        return []


def exists(path: Path) -> bool:
    """Returns whether there is anything at `path`; raises Unreadable where that cannot be told."""
    try:
        with reading(path):
            path.stat()
    except FileNotFoundError:
        return False
    return True


def check_private(path: Path) -> None:
    """Checks that nobody but this user could write at `path`, since to load code is to run it.

    On Windows nothing is checked: its rights are not in a file's mode.

    Raises:
      StoreError: somebody else could; FileNotFoundError and OSError as `Path.stat`.
    """
    found = path.stat()
    if not hasattr(os, "getuid"):
        return
    if found.st_uid != os.getuid():
        raise StoreError(f"another user owns {path}, so no compiler's output is taken there")
    if found.st_mode & 0o022:
        raise StoreError(f"others can write {path}, so no compiler's output is taken there")


def private_folder(path: Path) -> None:
    """Makes a folder that only this user can write, if it is not there; checks one that is.

    Raises:
      StoreError: others could write there; OSError: it cannot be made.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_private(path)


def _umask() -> int:
    with _asking:  # another thread would ask in between, and set 0 again for good
        mask = os.umask(0)
        os.umask(mask)
    return mask


_asking = threading.Lock()


def sync_folder(folder: Path) -> None:
    """Brings the names in a folder to the disk, where the file system can do that for folders."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
