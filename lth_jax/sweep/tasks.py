"""What engines place: a command line for each experiment, which is all that a worker knows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

# How often in a row a worker that was killed is started again without having saved anything.
RETRIES = 3
FRACTION = 0.9  # of a GPU's memory, shared by those that train on it


class Task(NamedTuple):
    """One experiment to be run.

    Attributes:
      name: of its run directory.
      command: what a worker is started with.
      folder: where it is started.
      path: its run directory.
      log: the file that takes what it says.
    """

    name: str
    command: tuple[str, ...]
    folder: str
    path: Path
    log: Path

    def start(self, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Starts a worker, which ends, and saves, when this process does."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            return start(self.command, self.folder, log, environment)

    def saved(self) -> tuple[Any, ...]:
        """Returns what tells whether anything was saved since it was last asked."""
        results = self.path / "results.csv"
        size = results.stat().st_size if results.exists() else 0
        return size, *sorted(found.name for found in self.path.glob("checkpoints/progress_*"))


def start(
    command: tuple[str, ...],
    folder: str,
    output: IO[bytes] | int | None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Starts a worker whose standard input is open as long as this process lives."""
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        start_new_session=True,  # Ctrl-C is its parent's, which asks it once to save
    )


def close(process: subprocess.Popen[bytes]) -> None:
    """Lets go of a worker, which ends if it has not."""
    if process.stdin:
        process.stdin.close()


def program() -> list[str]:
    """Returns the command line of this program, as another process would start it."""
    script = Path(sys.argv[0])
    if script.name == "run.py" and script.exists():
        return [sys.executable, str(script.resolve())]
    return [sys.executable, "-m", "lth_jax"]


def was_killed(status: int) -> bool:
    """Tells whether an exit status is that of a process that a signal ended; it may go on."""
    return status < 0 or status in (128 + signal.SIGINT, 128 + signal.SIGTERM, 128 + 9)


def ending(status: int) -> str:
    """Says how a process ended, which told of no failure itself."""
    if was_killed(status):
        number = -status if status < 0 else status - 128
        return f"its worker was ended by signal {number}, {RETRIES + 1} times with nothing saved"
    return f"its worker ended with exit status {status}; its log says more"


def gpu_environment(device: str, per_gpu: int) -> dict[str, str]:
    """Returns what lets a worker see one GPU, of which it takes its share of the memory."""
    return {"CUDA_VISIBLE_DEVICES": device, **memory_share(per_gpu)}


def memory_share(per_gpu: int) -> dict[str, str]:
    """Returns what lets a worker take its share of a GPU's memory."""
    return {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{FRACTION / per_gpu:.3f}"} if per_gpu > 1 else {}
