"""No bit depends on how many threads compute."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("print_bits.py")


def bits(folder, threads=None, cores=None):
    """The hash of a process with so many of XLA's threads, or only these cores."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    if threads:
        environment["NPROC"] = str(threads)
    set_cores = (lambda: os.sched_setaffinity(0, cores)) if cores else None
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder)],
        env=environment,
        preexec_fn=set_cores,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="a process cannot be given cores")
@pytest.mark.usefixtures("built")
def test_bits_do_not_depend_on_the_number_of_threads(folder):
    cores = os.sched_getaffinity(0)
    alone = bits(folder, cores={min(cores)})
    assert len(alone.strip()) == 64
    assert bits(folder, cores=cores) == alone
    assert bits(folder, threads=5) == alone
