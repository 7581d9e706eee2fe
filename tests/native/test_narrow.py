"""Vectors of eight numbers, as on machines without AVX-512, agree too."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lth_jax.native import build

HERE = Path(__file__).resolve().parent
TESTS = (
    "chain.py::test_lenet_agrees",
    "chain.py::test_images_of_any_type_agree",
    "dense_conv.py::test_the_zoos_layers_agree",
    "dense_product.py::test_the_zoos_layers_agree",
    "operations.py::test_a_step_is_that_of_the_definition_in_float64_to_rounding",
    "sparse_conv.py::test_the_zoos_layers_agree",
    "sparse_conv.py::test_small_images_lie_side_by_side",
    "sparse_conv.py::test_large_images_are_cut_into_bands",
    "sparse_product.py::test_the_zoos_layers_agree",
    "winograd_conv.py::test_layers_agree",
    "winograd_conv.py::test_rounding_is_hardly_more_than_a_direct_sums",
)
CHOSEN = "few or not sparse_product"  # of this one's many masks


def has_sixteen_lanes():
    """Whether this machine's own kernels have vectors of sixteen numbers; others have eight."""
    return re.search(r"\bavx512f\b", build._processor()) is not None


@pytest.mark.slow
@pytest.mark.skipif(not has_sixteen_lanes(), reason="vectors have eight lanes here in all tests")
@pytest.mark.usefixtures("built")
def test_eight_lanes_agree():
    # In a process of its own, since XLA is told of native code once. The source asks for this macro
    # alone; it stands in `$CXX`, so that the key of what is built has it.
    compiler = shlex.join((*build._compiler(), "-U__AVX512F__"))
    tests = [str(HERE / f"test_{name}") for name in TESTS]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n0", "-q", "-m", "not paper", *tests, "-k", CHOSEN],
        cwd=HERE.parents[1],
        env=dict(os.environ, CXX=compiler),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout
