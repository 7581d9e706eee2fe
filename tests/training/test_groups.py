"""Several runs in one program: what is computed how, and by which convolutions."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from lth_jax.native.choice import NativeCode
from lth_jax.training.groups import (
    TOGETHER,
    gradients_over_runs,
    in_parts,
    over_runs,
    together,
)

RUNS, SIDE = 3, 6


def loss(params, x):
    def network(params, x):
        return nn.Conv(2, (3, 3)).apply({"params": params}, x)

    # As on a GPU; convolutions of a CPU have gradients of their own.
    out = NativeCode(platform="cuda").apply(network)((), params, x)
    return jnp.mean(out**2), jnp.max(out)


def convolutions(gradients):
    """(window, groups of features, groups of the batch) of what a program convolves."""
    params = {"kernel": jnp.ones((RUNS, 3, 3, 1, 2)), "bias": jnp.ones((RUNS, 2))}
    x = jnp.ones((RUNS, 4, SIDE, SIDE, 1))
    lowered = jax.jit(jax.vmap(gradients)).lower(params, x).as_text(dialect="hlo")
    lines = [line for line in lowered.split("\n") if " convolution(" in line]

    def group(kind, line):
        found = re.search(rf"{kind}_group_count=(\d+)", line)
        return int(found[1]) if found else 1

    return sorted(
        (int(re.search(r"size=(\d+)", line)[1]), group("feature", line), group("batch", line))
        for line in lines
    )


def test_gradients_of_kernels_are_convolutions_that_accelerators_know():
    """Groups of the batch, where a `vmap` of gradients has those of features.

    XLA takes the latter for a convolution forward with a window as large as the image.
    """
    alone = jax.value_and_grad(loss, has_aux=True)
    assert convolutions(alone) == [(3, RUNS, 1), (SIDE, RUNS, 1)]
    assert convolutions(gradients_over_runs(loss, "vmap")) == [(3, RUNS, 1), (SIDE, 1, RUNS)]
    assert convolutions(gradients_over_runs(loss, "sequence")) == [(3, 1, 1), (SIDE, 1, 1)]
    assert convolutions(gradients_over_runs(loss, "unrolled")) == (
        [(3, 1, 1)] * RUNS + [(SIDE, 1, 1)] * RUNS
    )


@pytest.mark.parametrize("how", TOGETHER)
def test_runs_get_what_is_theirs_and_what_all_share(how):
    def function(own, shared):
        return {"sum": own["a"] + shared, "key": jax.random.uniform(own["key"])}

    own = {"a": jnp.arange(3.0), "key": jax.random.split(jax.random.key(0), 3)}
    found = jax.jit(jax.vmap(over_runs(function, how), (0, None)))(own, jnp.float32(2))
    assert found["sum"].tolist() == [2.0, 3.0, 4.0]
    assert found["key"].tolist() == [float(jax.random.uniform(key)) for key in own["key"]]


def test_networks_that_mostly_convolve_are_computed_one_after_the_other():
    kernels = {"conv/kernel": (3, 3, 1, 10), "out/kernel": (90, 10), "out/bias": (10,)}
    assert together(kernels, {"conv/kernel": 10.0, "out/kernel": 1.0}) == "vmap"
    assert together(kernels, {"conv/kernel": 11.0, "out/kernel": 1.0}) == "sequence"
    # Heads of an attention have three axes.
    assert together({"query/kernel": (8, 2, 4)}, {"query/kernel": 9.0}) == "vmap"


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 8])
def test_in_parts_every_example_has_its_own_result(parts):
    x = jnp.arange(10.0).reshape(5, 2)
    found = in_parts(lambda x, y: (x.sum(1) + y, x > y[:, None]), parts, x, jnp.ones(5))
    assert found[0].tolist() == (x.sum(1) + 1).tolist()
    assert found[1].tolist() == (x > 1).tolist()
