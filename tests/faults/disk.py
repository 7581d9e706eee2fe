"""The library `disk.c` between this process and its disk, for whoever was started under it."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

CALLS = ("write", "fsync", "rename", "unlink", "create", "read")
PASS, FREEZE, TEAR, FAIL, FILL, KILL = range(6)
VARIABLE = "LD_PRELOAD"


def compile_library(folder: Path) -> Path:
    """Returns the library, compiled into `folder`."""
    library = folder / "faults_disk.so"
    source = Path(__file__).with_name("disk.c")
    command = [
        "cc",
        "-std=gnu17",
        "-shared",
        "-fPIC",
        "-O1",
        str(source),
        "-o",
        str(library),
        "-ldl",
    ]
    subprocess.run(command, check=True)
    return library


class Disk:
    """Lets calls of this process that concern one folder fail."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(os.environ[VARIABLE])
        self._library.fault_arm.argtypes = [
            ctypes.c_char_p, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
        ]  # fmt: skip

    def arm(self, folder: Path, call: str, action: int, n: int = 0, number: int = 0) -> None:
        """Lets `action` happen at the `n`-th `call` (of `CALLS`, from 1) in `folder` from now on.

        Args:
          folder: an absolute path.
          call: what is counted.
          action: FREEZE lets nothing reach the folder from there on, as after a kill; TEAR writes
            half of that call's bytes before; FAIL lets it fail with the error `number`; FILL lets
            it, and all like it after it, fail; KILL kills the process; PASS only counts.
          n: which call.
          number: an `errno`.
        """
        self._library.fault_arm(str(folder).encode(), CALLS.index(call), action, number, n)

    def disarm(self) -> None:
        """Lets everything pass."""
        self._library.fault_disarm()

    def fired(self) -> bool:
        """Whether the n-th call came."""
        return bool(self._library.fault_fired())

    def counts(self) -> dict[str, int]:
        """Returns how many calls of each kind came since it was armed."""
        self._library.fault_count.restype = ctypes.c_long
        return {call: self._library.fault_count(index) for index, call in enumerate(CALLS)}
