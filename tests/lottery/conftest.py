"""Trunks that are trained once for many tests."""

import pytest

from ..tiny import finished_run, tiny_spec
from .trunk_runs import BIG, LATE, SPEC


@pytest.fixture
def whole():
    """The tiny experiment, never interrupted."""
    return finished_run(SPEC)


@pytest.fixture
def late():
    """The same with late rewinding, to step 7 (of 12, in the second epoch, at no evaluation)."""
    return finished_run(LATE)


@pytest.fixture
def three():
    """Four levels of one replicate."""
    return finished_run(tiny_spec(levels=3, replicates=1))


@pytest.fixture
def big():
    """The tiny experiment with a replicate and a draw more."""
    return finished_run(BIG)


@pytest.fixture
def plain():
    """A finished trunk of two levels, one replicate."""
    return finished_run(tiny_spec(levels=2, replicates=1, branches=()))
