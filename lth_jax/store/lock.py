"""The lock lets one process at a time write in a run directory."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from pathlib import Path

from lth_jax.disk.files import writing
from lth_jax.errors import StoreError


class Lock:
    """Holds an exclusive lock on a file that names its holder.

    The operating system holds it, so that it ends with the process, however that ends: a dead
    process's lock is simply free.

    Raises:
      StoreError: another process holds it; names host and process id.
    """

    def __init__(self, path: Path):
        self._path = path
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(self._file)
            os.close(self._file)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise StoreError(
                    f"{path.parent} is in use by {holder}; wait for it, stop it, "
                    "or choose another --workdir"
                ) from None
            raise StoreError(f"cannot lock {path}: {error.strerror}") from error
        text = json.dumps({"host": socket.gethostname(), "pid": os.getpid()})
        with writing(path):
            os.truncate(self._file, 0)
            os.pwrite(self._file, text.encode(), 0)

    def release(self) -> None:
        """Gives the lock back. The file stays: another process may have opened it already."""
        if self._file >= 0:
            os.truncate(self._file, 0)
            os.close(self._file)
            self._file = -1


def held_by(path: Path) -> str:
    """Returns who holds the lock at `path`, or an empty string; takes nothing."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return ""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return ""
    except OSError:
        return _holder(file)
    finally:
        os.close(file)


def _holder(file: int) -> str:
    """Returns who wrote the open lock file: `process 12 on host`."""
    try:
        owner = json.loads(os.pread(file, 4096, 0))
        return f"process {owner['pid']} on {owner['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
