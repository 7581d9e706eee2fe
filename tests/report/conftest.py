"""A finished run of two levels and two replicates, and a copy of it to spoil."""

import shutil

import pytest

from lth_jax.store import RunDirectory

from ..tiny import finished_run, tiny_spec


@pytest.fixture(scope="session")
def finished():
    return finished_run(tiny_spec())


@pytest.fixture
def copy(finished, tmp_path):
    """The path of a run directory of one's own."""
    return shutil.copytree(finished, tmp_path / "copy")


@pytest.fixture
def read():
    """The directory at a path, to look at."""
    return RunDirectory.read
