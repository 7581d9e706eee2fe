"""No bit depends on how many threads compute."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("print_bits.py")


def bits(folder, cores, threads=None):
    """The hash of a process on these cores, with so many of XLA's threads."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    if threads:
        environment["NPROC"] = str(threads)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)  # of this thread, and of what it starts
    try:
        done = subprocess.run(
            [sys.executable, str(PROGRAM), str(folder)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        os.sched_setaffinity(0, before)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="a process cannot be given cores")
@pytest.mark.usefixtures("built")
def test_bits_do_not_depend_on_the_number_of_threads(folder):
    cores = os.sched_getaffinity(0)
    alone = bits(folder, {min(cores)})
    assert len(alone.strip()) == 64
    assert bits(folder, cores) == alone
    assert bits(folder, cores, threads=5) == alone
