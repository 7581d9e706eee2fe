"""Trunks that are trained once for many tests."""

import pytest

from ..tiny import tiny_spec, train
from .trunk_runs import BIG, LATE, SPEC


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The tiny experiment, never interrupted."""
    path = tmp_path_factory.mktemp("whole") / "run"
    train(path, SPEC)
    return path


@pytest.fixture(scope="session")
def late(tmp_path_factory):
    """The same with late rewinding, to step 7 (of 12, in the second epoch, at no evaluation)."""
    path = tmp_path_factory.mktemp("late") / "run"
    train(path, LATE)
    return path


@pytest.fixture(scope="session")
def three(tmp_path_factory):
    """Four levels of one replicate."""
    path = tmp_path_factory.mktemp("three") / "run"
    train(path, tiny_spec(levels=3, replicates=1))
    return path


@pytest.fixture(scope="session")
def big(tmp_path_factory):
    """The tiny experiment with a replicate and a draw more."""
    path = tmp_path_factory.mktemp("big") / "run"
    train(path, BIG)
    return path


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """A finished trunk of two levels, one replicate."""
    path = tmp_path_factory.mktemp("plain") / "run"
    train(path, tiny_spec(levels=2, replicates=1, branches=()))
    return path
