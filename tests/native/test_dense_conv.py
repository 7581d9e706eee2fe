"""Native dense convolutions agree with XLA's, in value and gradients, for any shape."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings

from lth_jax.native import dense_conv
from lth_jax.native.dispatch import Dispatch, conv_general_dilated, dispatching

from .convolutions import ZOO, assert_agree, by_hand, cosines, operands

pytestmark = pytest.mark.usefixtures("built")
LAYOUT = ("NHWC", "HWIO", "NHWC")
PAIRS = st.tuples(st.integers(0, 3), st.integers(0, 3))


def outcomes(conv, x, kernel, strides, padding):
    """(value, input gradient, kernel gradient), given `cosines` as the output's gradient."""
    out, pullback = jax.vjp(lambda x, k: conv(x, k, strides, padding), x, kernel)
    return out, *pullback(jnp.asarray(cosines(out.shape), jnp.float32))


@pytest.mark.slow
@settings(max_examples=30)
@given(st.data())
def test_any_shape_agrees(data):
    n = data.draw(st.sampled_from([1, 2, 3, 33]))  # the last: several images share a pass
    height, width = (data.draw(st.integers(1, 11)) for _ in range(2))
    channels, features = (data.draw(st.integers(1, 40)) for _ in range(2))
    rows, columns = (data.draw(st.integers(1, 5)) for _ in range(2))
    strides = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = data.draw(st.tuples(PAIRS, PAIRS))
    assume(height + sum(padding[0]) >= rows and width + sum(padding[1]) >= columns)
    shapes = (n, height, width, channels), (rows, columns, channels, features)
    case = *operands(0, *shapes), strides, padding
    assert_agree(outcomes(dense_conv.dense_conv, *case), by_hand(*case))


@pytest.mark.parametrize("case", ZOO)
def test_the_zoos_layers_agree(case):
    side, channels, features, width, stride, border = ZOO[case]
    shapes = (2, side, side, channels), (width, width, channels, features)
    case = *operands(1, *shapes), (stride, stride), ((border, border),) * 2
    assert_agree(outcomes(dense_conv.dense_conv, *case), by_hand(*case))


@pytest.mark.parametrize(
    ("images", "side", "stride", "border"), [(61, 2, 1, 1), (37, 4, 1, 0), (45, 5, 2, 1)]
)
def test_several_small_images_in_one_pass_agree(images, side, stride, border):
    shapes = (images, side, side, 7), (2, 2, 7, 20)
    case = *operands(5, *shapes), (stride, stride), ((border, border),) * 2
    assert_agree(outcomes(dense_conv.dense_conv, *case), by_hand(*case))


def test_runs_side_by_side_have_the_bits_of_each_alone():
    x, kernel = operands(2, (3, 2, 6, 6, 5), (3, 3, 3, 5, 7))
    padding = ((1, 1), (0, 2))

    def run(x, kernel):
        return outcomes(dense_conv.dense_conv, x, kernel, (2, 1), padding)

    together = jax.jit(jax.vmap(run))(x, kernel)
    for index in range(3):
        alone = jax.jit(run)(x[index], kernel[index])
        for mine, other in zip(together, alone, strict=True):
            np.testing.assert_array_equal(mine[index], other)


def test_an_operand_without_runs_serves_all():
    x, kernel = operands(3, (2, 6, 6, 5), (3, 3, 3, 5, 7))
    conv = lambda k: dense_conv.dense_conv(x, k, (1, 1), ((1, 1), (1, 1)))  # noqa: E731
    for index, mine in enumerate(jax.vmap(conv)(kernel)):
        np.testing.assert_array_equal(mine, conv(kernel[index]))


def test_gradients_have_directional_derivatives():
    x, kernel = operands(4, (2, 5, 5, 3), (3, 3, 3, 4))

    def flow(conv):
        def loss(x, kernel):
            return jnp.mean(jnp.tanh(conv(x, kernel, (2, 1), ((1, 1), (1, 0)))) ** 2)

        return jax.jvp(jax.grad(loss, (0, 1)), (x, kernel), (x, kernel))[1]

    for mine, other in zip(flow(dense_conv.dense_conv), flow(dense_conv._xla), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{}, {"feature_group_count": 3}, {"rhs_dilation": (2, 2)}, {"lhs_dilation": (2, 2)}],
    ids=str,
)
def test_plain_float32_is_served_and_nothing_else(options):
    groups = options.get("feature_group_count", 1)
    x, kernel = operands(5, (2, 9, 9, 3), (3, 3, 3 // groups, 6))

    def served(x, kernel, padding=((1, 1), (1, 1))):
        numbers = jax.lax.conv_dimension_numbers(x.shape, kernel.shape, LAYOUT)
        convolved = []
        with dispatching(Dispatch(convolutions=True, convolved=convolved)):
            conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=numbers, **options)
        return convolved

    assert served(x, kernel) == ([] if options else [kernel.shape])
    assert served(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)) == []
    assert served(x, kernel, ((-1, 1), (1, 1))) == []


def test_outside_of_a_native_program_xla_computes():
    x, kernel = operands(6, (1, 4, 4, 3), (3, 3, 3, 2))
    conv = lambda x: conv_general_dilated(  # noqa: E731
        x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT
    )
    assert "DenseConvForward" not in jax.jit(conv).lower(x).as_text()
    with dispatching(Dispatch(convolutions=True)):
        assert "DenseConvForward" in jax.jit(lambda x: conv(x)).lower(x).as_text()
