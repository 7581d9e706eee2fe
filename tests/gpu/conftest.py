"""The device that is tested, and a way to let everything happen on it.

    JAX_PLATFORMS=cuda,cpu python -m pytest tests/gpu -n 0           # on a GPU
    LTH_JAX_GPU_TESTS=cpu python -m pytest tests/gpu                 # tries the tests without one

`tests/conftest.py` takes the CPU where the environment names no platform, and a GPU's memory is
JAX's as soon as it is seen: so these tests run where they are asked for, and are skipped elsewhere.
"""

import contextlib
import os

import jax
import pytest

from lth_jax.lottery.building import build
from lth_jax.training.backend import precise


@pytest.fixture(scope="session")
def gpu():
    """The device that is tested."""
    if os.environ.get("LTH_JAX_GPU_TESTS") == "cpu":
        return jax.local_devices(backend="cpu")[0]
    if jax.default_backend() != "gpu":
        pytest.skip("no GPU: JAX_PLATFORMS=cuda,cpu python -m pytest tests/gpu -n 0")
    return jax.local_devices()[0]


@pytest.fixture(scope="session")
def cpu():
    """The device whose numbers are the measure."""
    return jax.local_devices(backend="cpu")[0]


@pytest.fixture
def on(monkeypatch):
    """A context in which a device is JAX's own choice, in all threads, as on a machine with it."""

    @contextlib.contextmanager
    def on_device(device, precision="highest"):
        before = jax.config.jax_default_device
        with monkeypatch.context() as patch:
            # Arrays of an experiment that was built before may lie on another device.
            patch.setattr("tests.tiny.experiment", build)
            jax.config.update("jax_default_device", device)
            try:
                with precise(precision):
                    yield
            finally:
                jax.config.update("jax_default_device", before)

    return on_device
