"""A run directory."""

import numpy as np
import pytest

from lth_jax.store import level_name

from .run_directories import open_run, row


@pytest.fixture
def path(tmp_path):
    """A run with one row and one checkpoint, closed."""
    path = tmp_path / "run"
    run = open_run(path)
    run.save(0, level_name(0), {"params": {"w": np.arange(300.0)}}, {"layers": {}})
    run.record([row()])
    run.close()
    return path
