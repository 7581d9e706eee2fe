"""A finished run of two levels and two replicates, and a copy of it to spoil."""

import shutil

import pytest

from lth_jax.store import RunDirectory

from ..tiny import tiny_spec, train


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "run"
    train(path, tiny_spec())
    return path


@pytest.fixture
def copy(finished, tmp_path):
    """The path of a run directory of one's own."""
    return shutil.copytree(finished, tmp_path / "copy")


@pytest.fixture
def read():
    """The directory at a path, to look at."""
    return RunDirectory.read
