"""No bit depends on how many threads compute."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lth_jax.native import build

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("print_bits.py")


@pytest.fixture
def counter(tmp_path):
    """A library that tells how many threads native code gets."""
    path = tmp_path / "threads.so"
    sources = f"-I{build.jax.ffi.include_dir()}", str(PROGRAM.with_name("threads.cc"))
    command = (
        *build._compiler(),
        "-std=c++17",
        "-w",
        "-shared",
        "-fPIC",
        *sources,
        "-o",
        str(path),
    )
    subprocess.run(command, check=True)
    return path


def bits(folder, counter, cores, threads=None):
    """(threads, hash) of a process on these cores, with so many of XLA's threads if told."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    if threads:
        environment["NPROC"] = str(threads)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)  # of this thread, and of what it starts
    try:
        done = subprocess.run(
            [sys.executable, str(PROGRAM), str(folder), str(counter)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        os.sched_setaffinity(0, before)
    assert done.returncode == 0, done.stderr
    found, digest = done.stdout.split()
    return int(found), digest


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="a process cannot be given cores")
@pytest.mark.usefixtures("built")
def test_bits_do_not_depend_on_the_number_of_threads(folder, counter):
    cores = os.sched_getaffinity(0)
    threads, alone = bits(folder, counter, {min(cores)})
    assert (threads, len(alone)) == (1, 64)
    assert bits(folder, counter, cores) == (len(cores), alone)
    assert bits(folder, counter, cores, threads=5) == (5, alone)
