"""The lock lets one process at a time write in a run directory.

The operating system holds it, on the file `lock`, which names the holder, and on the folder itself,
since an open file may be removed (not on Windows). Where the file system has no locks, a claim
stands for one, the file `lock.holder`: that of a process which is gone is taken over on the same
machine; from another one it is removed by hand.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from pathlib import Path

from lth_jax.disk.files import writing
from lth_jax.disk.locking import (
    claim,
    is_at,
    is_gone,
    locks_folders,
    open_to_lock,
    owner_of,
    this_process,
    try_lock,
)
from lth_jax.errors import RunError, StoreError

# An observer's look takes the lock for an instant: who finds it taken tries again.
TRIES, PAUSE_SECONDS = 20, 0.02


class Lock:
    """Holds an exclusive lock on a folder, by a file in it that names the holder.

    Args:
      path: the file; it and its folder are made if need be.

    Raises:
      StoreError: another process holds it (names host and process id), or it cannot be locked.
    """

    def __init__(self, path: Path):
        self._path, self._claim = path, _claim_of(path)
        self._file = self._folder = -1
        self._is_claimed = False
        self._owner = {**this_process(), "lock": secrets.token_hex(8)}
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            holder = self._take()
            for _ in range(TRIES):
                if holder:
                    time.sleep(PAUSE_SECONDS)
                    holder = self._take()
            if holder:
                raise StoreError(
                    f"{path.parent} is in use by {holder}; wait for it, stop it, "
                    "or choose another --workdir"
                )
        except BaseException:
            self.release()
            raise

    def _take(self) -> str:
        """Takes the lock, or returns who holds it."""
        self._close()
        with writing(self._path):
            if locks_folders():
                self._folder = open_to_lock(self._path.parent.resolve(), os.O_RDONLY)
                if try_lock(self._folder) is False:
                    return _holder(self._path)
        return self._take_file()

    def _take_file(self) -> str:
        with writing(self._path):
            self._file = open_to_lock(self._path, os.O_RDWR | os.O_CREAT)
            locked = try_lock(self._file)
            if locked is False:
                return _holder(self._path)
            if not is_at(self._path, self._file):
                return "another process"  # which has removed the file meanwhile
            if locked is None:
                self._is_claimed = claim(self._claim, self._owner)
            # One that was left where there are no locks, by another machine, counts here as well.
            if not self._is_claimed and (holder := _claimant(self._claim)):
                return holder
            os.truncate(self._file, 0)
            os.lseek(self._file, 0, os.SEEK_SET)
            os.write(self._file, json.dumps(self._owner).encode())
        return ""

    def keep(self) -> None:
        """Makes sure that this process still holds the lock; makes a file anew that was removed.

        Raises:
          RunError: another process has taken it meanwhile, so that nothing more may be written.
        """
        claimed = not self._is_claimed or owner_of(self._claim) == self._owner
        if self._file < 0 or (claimed and is_at(self._path, self._file)):
            return
        os.close(self._file)
        self._file, self._is_claimed = -1, False
        if holder := self._take_file():
            raise RunError(
                f"{self._path} was removed while this process held it, and {holder} has it now: "
                "this one stops and writes no more"
            )

    def release(self) -> None:
        """Gives the lock back. The file stays: another process may have opened it already."""
        if self._file >= 0 and owner_of(self._path) == self._owner:
            with contextlib.suppress(OSError):
                os.truncate(self._file, 0)
        if self._is_claimed and owner_of(self._claim) == self._owner:
            with contextlib.suppress(OSError):
                self._claim.unlink()
        self._is_claimed = False
        self._close()

    def _close(self) -> None:
        for handle in (self._file, self._folder):
            if handle >= 0:
                os.close(handle)
        self._file = self._folder = -1


def held_by(path: Path) -> str:
    """Returns who holds the lock at `path`, or an empty string; changes nothing, waits for nobody.

    A lock that cannot be looked at is nobody's: who wants to take it will be told.
    """
    for place in (path, path.parent.resolve()) if locks_folders() else (path,):
        with contextlib.suppress(OSError, StoreError):
            handle = open_to_lock(place, os.O_RDONLY)
            try:
                if try_lock(handle, shared=True) is False:
                    return _holder(path)
            finally:
                os.close(handle)
    return _claimant(_claim_of(path))


def _claim_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.holder")


def _holder(path: Path) -> str:
    """Returns who wrote a lock's file: `process 12 on host`."""
    owner = owner_of(path) or {}
    if "pid" in owner and "host" in owner:
        return f"process {owner['pid']} on {owner['host']}"
    return "another process"


def _claimant(path: Path) -> str:
    """Returns who made a claim, and the way out if that is gone; an empty string if nobody is."""
    owner = owner_of(path)
    if owner is None or is_gone(owner):
        return ""
    return f"{_holder(path)} (if that is gone: remove {path})"
