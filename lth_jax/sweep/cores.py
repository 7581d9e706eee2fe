"""Cores that no other worker of this machine has: each holds a lock for every core it takes.

A lock ends with its process, however that ends; so cores are never lost, and no list of them has
to be kept by anybody.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from lth_jax.disk.locking import open_to_lock, try_lock
from lth_jax.system.machine import cores

_held: list[int] = []  # the open files, as long as this process lives


def take_cores(count: int, folder: Path | None = None) -> list[int]:
    """Lets this process run on `count` cores alone that no other worker has taken, if it can.

    To be called before anything starts a thread: those that are there keep all cores. Where fewer
    are free it takes these; where none is, or the system pins no processes, nothing changes.

    Args:
      count: how many.
      folder: where locks lie; one of this user's own by default.

    Returns:
      The cores that it took.
    """
    if not hasattr(os, "sched_setaffinity"):  # not on macOS
        return []
    folder = folder or Path(tempfile.gettempdir()) / f"lth_jax-cores-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    taken: list[int] = []
    # A container may grant fewer cores than it shows: no more than those are taken.
    for core in sorted(os.sched_getaffinity(0))[: max(cores(), count)]:
        if len(taken) == count:
            break
        handle = open_to_lock(folder / str(core), os.O_RDWR | os.O_CREAT)
        if try_lock(handle):
            _held.append(handle)
            taken.append(core)
        else:
            os.close(handle)
    if taken:
        os.sched_setaffinity(0, taken)
    return taken
