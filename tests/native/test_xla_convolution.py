"""Convolutions with gradients of our own agree with JAX's."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lth_jax.models.base import from_linen
from lth_jax.native import xla_convolution
from lth_jax.native.choice import NativeCode, choose
from lth_jax.native.dispatch import conv_general_dilated

CASES = {
    "3×3": ((8, 10), 3, (1, 1), "SAME"),
    "strided": ((9, 8), 3, (2, 2), "SAME"),
    "strided, rest": ((8, 9), 3, (2, 3), "VALID"),
    "1×1": ((8, 10), 1, (1, 1), "SAME"),
    "1×1 strided": ((8, 9), 1, (2, 2), "SAME"),
    "5×5": ((9, 11), 5, (1, 1), "VALID"),
    "5×5 strided": ((11, 13), 5, (3, 3), "VALID"),
    "even, uneven border": ((7, 8), 4, (2, 2), ((0, 3), (2, 1))),
    "7×7 stem": ((9, 8), 7, (2, 2), ((3, 3), (3, 3))),
    "wide border": ((5, 5), 3, (1, 1), ((4, 4), (2, 5))),
}
LAYOUT = ("NHWC", "HWIO", "NHWC")


def operands(sides, width, channels=3, features=5, groups=1):
    random = np.random.default_rng(0)
    x = random.normal(size=(4, *sides, channels))
    kernel = random.normal(size=(width, width, channels // groups, features))
    return jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)


def gradients(conv, x, kernel, strides, padding, **options):
    numbers = lax.conv_dimension_numbers(x.shape, kernel.shape, LAYOUT)

    def loss(x, kernel):
        return jnp.sum(
            jnp.sin(conv(x, kernel, strides, padding, dimension_numbers=numbers, **options))
        )

    return jax.jit(jax.value_and_grad(loss, (0, 1)))(x, kernel)


@pytest.fixture
def calls(monkeypatch):
    """The kernel gradients that our own rule computes."""
    found = []
    rule = xla_convolution._kernel_gradient

    def spy(*args):
        found.append(args)
        return rule(*args)

    monkeypatch.setattr(xla_convolution, "_kernel_gradient", spy)
    return found


@pytest.mark.parametrize("case", CASES)
def test_gradients_agree(case, calls):
    sides, width, strides, padding = CASES[case]
    arguments = (*operands(sides, width), strides, padding)
    ours = gradients(conv_general_dilated, *arguments)
    theirs = gradients(lax.conv_general_dilated, *arguments)
    assert len(calls) == 1
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "options", [{"feature_group_count": 3}, {"rhs_dilation": (2, 2)}, {"lhs_dilation": (2, 2)}]
)
def test_other_convolutions_go_to_jax(options, calls):
    groups = options.get("feature_group_count", 1)
    border = ((1, 1), (1, 1))
    arguments = (*operands((9, 9), 3, features=6, groups=groups), (1, 1), border)
    ours = gradients(conv_general_dilated, *arguments, **options)
    theirs = gradients(lax.conv_general_dilated, *arguments, **options)
    assert not calls
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_runs_side_by_side_and_second_derivatives_work():
    x, kernel = operands((6, 6), 3)
    stacked = jnp.stack([kernel, 2 * kernel])

    def loss(kernel, conv):
        out = conv(x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT)
        return jnp.mean(jnp.tanh(out) ** 2)

    def flow(kernel, conv):
        gradient = jax.grad(loss)
        return jax.jvp(lambda k: gradient(k, conv), (kernel,), (kernel,))[1]

    for function in (jax.grad(loss), flow):
        found, wanted = (
            jax.vmap(lambda k, conv=conv, function=function: function(k, conv))(stacked)
            for conv in (conv_general_dilated, lax.conv_general_dilated)
        )
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-6)


class Small(nn.Module):
    """A user's own network, which knows nothing of us."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3), name="conv")(x)
        return nn.Dense(2, name="output")(x.mean((1, 2)))


def test_any_linen_module_gets_them_and_none_keeps_them(calls):
    module = Small()
    model = from_linen(module)
    x, _ = operands((6, 6), 3)
    variables = model.init(jax.random.key(0), x)
    jax.grad(lambda v: jnp.sum(model.apply(v, x, True, {})[0]))(variables)
    assert len(calls) == 1
    jax.grad(lambda v: jnp.sum(module.apply(v, x)))(variables)
    assert len(calls) == 1


@pytest.mark.parametrize(("platform", "own"), [(None, True), ("cpu", True), ("cuda", False)])
def test_convolutions_are_those_of_the_platform_that_is_compiled_for(platform, own):
    """Whatever JAX would take by itself: programs for a GPU are compiled on machines without."""
    x, kernel = operands((6, 6), 3)
    computed = NativeCode(platform=platform).apply(
        lambda x, kernel: conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT)
    )
    found = str(jax.make_jaxpr(jax.grad(lambda x: computed((), x, kernel).sum()))(x))
    assert ("optimization_barrier" in found) is own


def test_no_kernels_are_built_for_another_platform_than_a_cpu(tmp_path):
    found = choose("sparse", tmp_path / "none", no_network, {}, no_network, platform="cuda")
    assert found == NativeCode(platform="cuda")
    assert not list(tmp_path.iterdir())


def no_network(*_):
    raise AssertionError("nothing is looked at")
