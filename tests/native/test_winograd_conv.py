"""Convolutions by Winograd's way agree with the definition, in value and gradients."""

from functools import partial

import flax.linen as nn
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings

from lth_jax.models import MODELS, custom_model
from lth_jax.native import dense_conv
from lth_jax.native.dense_conv import winograd_cost
from lth_jax.native.dispatch import Dispatch, conv_general_dilated, dispatching

from ..tiny import arrays, results, tiny_spec, train
from .convolutions import assert_agree, by_hand, cosines, operands

pytestmark = pytest.mark.usefixtures("built")
LAYOUT = ("NHWC", "HWIO", "NHWC")
PAIRS = st.tuples(st.integers(0, 4), st.integers(0, 4))
ONE = ((1, 1), (1, 1))
winograd_conv = partial(dense_conv.dense_conv, strides=(1, 1), winograd=True)
# Images, height, width, channels, features, border.
CASES = {
    "conv2 second": (2, 32, 32, 64, 64, ONE),
    "conv6 fifth": (2, 8, 8, 128, 256, ONE),
    "resnet20": (9, 32, 32, 16, 16, ONE),
    "vgg last, tiles of two": (2, 2, 2, 512, 512, ONE),
    "densenet": (1, 16, 16, 112, 32, ONE),
    "no multiple of lanes nor tiles": (3, 7, 10, 43, 90, ((0, 2), (3, 1))),
    "few channels": (2, 9, 6, 3, 5, ((0, 0), (1, 0))),
}


def outcomes(conv, x, kernel, padding):
    """(value, input gradient, kernel gradient), given `cosines` as the output's gradient."""
    out, pullback = jax.vjp(lambda x, k: conv(x, k, padding=padding), x, kernel)
    return out, *pullback(jnp.asarray(cosines(out.shape), jnp.float32))


def shapes_of(case):
    images, height, width, channels, features, padding = CASES[case]
    return (images, height, width, channels), (3, 3, channels, features), padding


@pytest.mark.slow
@settings(max_examples=40)
@given(st.data())
def test_any_shape_agrees(data):
    images = data.draw(st.sampled_from([1, 2, 5, 31]))
    height, width = (data.draw(st.integers(1, 13)) for _ in range(2))
    channels, features = (data.draw(st.integers(1, 70)) for _ in range(2))
    padding = data.draw(st.tuples(PAIRS, PAIRS))
    assume(height + sum(padding[0]) >= 3 and width + sum(padding[1]) >= 3)
    x, kernel = operands(0, (images, height, width, channels), (3, 3, channels, features))
    assert_agree(outcomes(winograd_conv, x, kernel, padding), by_hand(x, kernel, (1, 1), padding))


@pytest.mark.parametrize("case", CASES)
def test_layers_agree(case):
    *shapes, padding = shapes_of(case)
    x, kernel = operands(1, *shapes)
    assert_agree(outcomes(winograd_conv, x, kernel, padding), by_hand(x, kernel, (1, 1), padding))


@pytest.mark.parametrize("case", ["conv2 second", "resnet20"])
def test_rounding_is_hardly_more_than_a_direct_sums(case):
    """It is 0.5 to 2.2 times as much; the usual points, 0, ±1 and ±2, quadruple it."""
    *shapes, padding = shapes_of(case)
    x, kernel = operands(2, *shapes)
    wanted = by_hand(x, kernel, (1, 1), padding)
    direct = outcomes(partial(dense_conv.dense_conv, strides=(1, 1)), x, kernel, padding)
    for mine, other, true in zip(
        outcomes(winograd_conv, x, kernel, padding), direct, wanted, strict=True
    ):
        error, others = (np.sqrt(np.mean((of - true) ** 2)) for of in (mine, other))
        assert error < 3.5 * others


@pytest.mark.parametrize("channels", [20, 48])  # parts of the tiles, and rows of positions
def test_runs_side_by_side_have_the_bits_of_each_alone(channels):
    x, kernel = operands(3, (3, 2, 6, 7, channels), (3, 3, 3, channels, 80))
    run = partial(outcomes, winograd_conv, padding=((1, 1), (0, 2)))
    together = jax.jit(jax.vmap(run))(x, kernel)
    for index in range(3):
        alone = jax.jit(run)(x[index], kernel[index])
        for mine, other in zip(together, alone, strict=True):
            np.testing.assert_array_equal(mine[index], other)


def test_zeros_stay_zeros():
    """Where a window, a channel or a feature's weights are zero, what follows is, exactly."""
    x, kernel = (np.array(array) for array in operands(4, (2, 12, 12, 40), (3, 3, 40, 33)))
    x[0, :8, :8] = 0  # the windows of the first tile, border included
    x[..., 7] = 0
    kernel[..., 5] = 0
    kernel[:, :, 9] = 0
    out, dx, dkernel = map(np.asarray, outcomes(winograd_conv, x, kernel, ONE))
    assert not np.any(out[0, :4, :4])
    assert not np.any(out[..., 5])
    assert not np.any(dx[..., 9])
    assert not np.any(dkernel[:, :, 7])


def test_gradients_have_directional_derivatives():
    x, kernel = operands(5, (2, 5, 5, 16), (3, 3, 16, 17))

    def flow(conv):
        def loss(x, kernel):
            return jnp.mean(jnp.tanh(conv(x, kernel, padding=((1, 1), (1, 0)))) ** 2)

        return jax.jvp(jax.grad(loss, (0, 1)), (x, kernel), (x, kernel))[1]

    direct = partial(dense_conv._xla, strides=(1, 1))
    for mine, other in zip(flow(winograd_conv), flow(direct), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("images", "side", "kernel", "stride", "products"),
    [
        (60, 32, (3, 3, 64, 64), 1, 36 / 16),
        (128, 32, (3, 3, 16, 16), 1, 36 / 16),
        (60, 7, (3, 3, 64, 64), 1, 4 * 36 / 49),
        (60, 2, (3, 3, 512, 512), 1, 16 / 4),  # tiles of 2 × 2
        (60, 32, (3, 3, 3, 64), 1, None),
        (60, 32, (3, 3, 64, 10), 1, None),
        (60, 32, (3, 3, 64, 64), 2, None),
        (60, 32, (1, 1, 64, 64), 1, None),
        (60, 32, (5, 5, 64, 64), 1, None),
        (60, 1, (3, 3, 512, 512), 1, None),  # a tile is more than an image
        (2, 8, (3, 3, 256, 256), 1, None),  # a kernel is transformed for too few tiles
    ],
)
def test_the_rule_goes_by_shape(images, side, kernel, stride, products):
    cost = winograd_cost(images, (side, side), kernel, (stride, stride))
    if products is None:
        assert cost == 0
    else:
        *_, channels, features = kernel
        assert products * channels * features < cost <= 9 * channels * features


@pytest.mark.parametrize(("channels", "served"), [(3, "DenseConv"), (16, "WinogradConv")])
def test_the_rule_is_followed(channels, served):
    x, kernel = operands(6, (9, 16, 16, channels), (3, 3, channels, 16))
    conv = partial(
        conv_general_dilated, window_strides=(1, 1), padding="SAME", dimension_numbers=LAYOUT
    )
    loss = lambda x, k: jnp.sum(conv(x, k) ** 2)  # noqa: E731
    with dispatching(Dispatch(convolutions=True)):
        text = jax.jit(jax.grad(loss, (0, 1))).lower(x, kernel).as_text()
    for function in ("Forward", "InputGradient", "KernelGradient"):
        assert served + function in text


class Wide(nn.Module):
    """Two convolutions that are computed by Winograd's way on digits."""

    classes: int

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(16, (3, 3), 2, name="conv1")(x))
        x = nn.relu(nn.Conv(24, (3, 3), name="conv2")(x))
        x = nn.relu(nn.Conv(16, (3, 3), padding="VALID", name="conv3")(x))
        return nn.Dense(self.classes, name="output")(x.mean((1, 2)))


@pytest.fixture
def wide(monkeypatch):
    monkeypatch.setitem(MODELS, "wide_convs", custom_model("wide_convs", Wide))
    return partial(
        tiny_spec, model__name="wide_convs", model__hidden=(300, 100), levels=1, branches=()
    )


@pytest.mark.slow
def test_training_agrees(wide, tmp_path):
    for kernel in ("auto", "xla"):
        train(tmp_path / kernel, wide(replicates=1, train__kernel=kernel))
    mine, other = results(tmp_path / "auto"), results(tmp_path / "xla")
    assert [row["kernel"] for row in mine] == ["native", "native"]
    for row, reference in zip(mine, other, strict=True):
        loss = float(reference["final_train_loss"])
        assert float(row["final_train_loss"]) == pytest.approx(loss, rel=1e-3)
    ours, theirs = arrays(tmp_path / "auto"), arrays(tmp_path / "xla")
    for name, (dtype, content) in ours.items():
        pair = (np.frombuffer(c, dtype) for c in (content, theirs[name][1]))
        np.testing.assert_allclose(*pair, rtol=1e-2, atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_a_run_that_diverges_is_seen_to(wide, tmp_path):
    """Weights are too large for float32 after a step; a tile's undefined numbers reach the loss."""
    fields = {"train__kernel": "auto", "train__optimizer": "sgd", "train__learning_rate": 1e30}
    store = train(tmp_path / "run", wide(replicates=1, levels=0, **fields))
    (row,) = store.rows.values()
    assert row.kernel == "native"
    assert row.diverged >= 0
