"""A trunk that is trained once for many tests."""

import pytest
from tiny import tiny_spec, train


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """A finished trunk of two levels, one replicate."""
    path = tmp_path_factory.mktemp("plain") / "run"
    train(path, tiny_spec(levels=2, replicates=1, branches=()))
    return path
