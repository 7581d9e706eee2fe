"""Locks on open files and folders, and claims where a file system has no locks.

A lock ends with the process that holds it, however that ends. A claim is a file that one process
alone can make, and that it removes at the end; it outlives a process that is killed.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import operator
import os
import socket
import stat
from pathlib import Path
from typing import Any

from lth_jax.errors import StoreError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None
try:
    import msvcrt
except ImportError:  # on Windows alone
    msvcrt = None

# filelock, the library for this, cannot stand here: its locks are exclusive, so that an observer's
# look could refuse a start; they do not lock folders; and of file systems without locks it knows
# ENOSYS alone, and stays without a lock where NFS says ENOLCK.

# What file systems without locks say; NFS says so of folders alone.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EBADF)
_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
# A link must not lead elsewhere, and a pipe not be waited for.
_FLAGS = ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_NOINHERIT")
_SAFELY = functools.reduce(operator.or_, (getattr(os, name, 0) for name in _FLAGS))
# Windows locks bytes, which nobody else can then read: one past all that a file holds.
_LOCKED_BYTE = 1 << 30


def open_to_lock(path: Path, flags: int) -> int:
    """Opens a file, or a folder, that is to be locked; makes nothing empty; returns its handle.

    Raises:
      StoreError: it is a link, a device or a pipe; OSError: it cannot be opened.
    """
    if path.is_symlink():
        raise StoreError(f"cannot lock {path}: it is a link")
    handle = os.open(path, flags | _SAFELY, 0o666)
    mode = os.fstat(handle).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        os.close(handle)
        raise StoreError(f"cannot lock {path}: it is no file")
    return handle


def locks_folders() -> bool:
    """Returns whether this system can lock folders, too; Windows does not even open them."""
    return fcntl is not None


def try_lock(handle: int, *, shared: bool = False) -> bool | None:
    """Locks an open file or folder, if nobody else holds it; never waits.

    Args:
      handle: of what `open_to_lock` opened.
      shared: whether others may lock it so, too.

    Returns:
      Whether it is locked now; None where there are no locks.

    Raises:
      OSError: anything else.
    """
    try:
        if fcntl is not None:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        elif msvcrt is not None:  # which knows no shared locks
            windows: Any = msvcrt
            os.lseek(handle, _LOCKED_BYTE, os.SEEK_SET)
            windows.locking(handle, windows.LK_NBLCK, 1)
        else:
            return None
        return True
    except OSError as error:
        if error.errno in _HELD:
            return False
        if error.errno in _NO_LOCKS:
            return None
        raise


def is_at(path: Path, handle: int) -> bool:
    """Returns whether an open file is still what lies at `path`."""
    try:
        found, opened = path.lstat(), os.fstat(handle)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)


def this_process() -> dict[str, Any]:
    """Returns what tells this process from all others: host, number, and since when they count."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "boot": _text("/proc/sys/kernel/random/boot_id"),
        "space": _link("/proc/self/ns/pid"),  # containers count processes each for themselves
        "started": _started(os.getpid()),
    }


def owner_of(path: Path) -> dict[str, Any] | None:
    """Returns which process wrote a lock's file or a claim, `{}` if that cannot be told.

    None where there is no file.
    """
    try:
        owner = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def is_gone(owner: dict[str, Any]) -> bool:
    """Returns whether a process is known to have ended; of another machine that is never known."""
    here = this_process()
    if not here["boot"] or any(owner.get(name) != here[name] for name in ("boot", "space")):
        return False
    pid = owner.get("pid")
    return not (isinstance(pid, int) and _started(pid) == owner.get("started"))


def claim(path: Path, owner: dict[str, Any]) -> bool:
    """Makes the file that claims a place; returns whether the claim is `owner`'s.

    The claim of a process that is gone is taken over.

    Raises:
      OSError: it cannot be written.
    """
    before = owner_of(path)
    if before is not None and is_gone(before):
        # Aside, for another process may have taken it over since it was read.
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, aside)
            if owner_of(aside) != before:
                with contextlib.suppress(OSError):
                    os.link(aside, path)
            aside.unlink()
    with contextlib.suppress(FileExistsError):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFELY, 0o666)
        with open(handle, "wb") as file:
            file.write(json.dumps(owner).encode())
    return owner_of(path) == owner


def _started(pid: int) -> str:
    """Returns when a process of this machine started, in its own units; empty if it is not there.

    Numbers of processes are given again.
    """
    # The name of a program, in brackets, may hold anything.
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
