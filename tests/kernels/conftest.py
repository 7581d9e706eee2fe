"""The kernels of this machine, built where there is a compiler."""

import pytest

from lth_jax.data.places import resolve
from lth_jax.kernels import build


@pytest.fixture(scope="session")
def folder():
    """Where the tests' kernels are kept."""
    return resolve().cache_dir / "kernels"


@pytest.fixture(scope="session")
def built(folder):
    """All kernels, ready to be called; without a compiler the test is skipped."""
    try:
        for kind in build.TARGETS:
            build.load(kind, folder)
    except build.Unavailable as error:
        pytest.skip(str(error))
