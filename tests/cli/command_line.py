"""`run.py` as a process of its own, as a person starts it."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from ..tiny import arguments

RUN = Path(__file__).resolve().parents[2] / "run.py"
# An experiment that takes no time.
QUICK = arguments(levels=1, replicates=1, branches="reinit,random_mask")


@contextlib.contextmanager
def start(*arguments: str, cwd: Path) -> Iterator[subprocess.Popen]:
    """Starts it; both streams are pipes. It is dead at the end."""
    process = subprocess.Popen(
        [sys.executable, str(RUN), *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    """(exit status, standard output, standard error)."""
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def run(*arguments: str, cwd: Path) -> tuple[int, str, str]:
    """Runs it to its end."""
    with start(*arguments, cwd=cwd) as process:
        return finish(process)
