"""Experiments whose convolutions are packed: the same science and the same safety."""

import flax.linen as nn
import numpy as np
import pytest

from lth_jax.errors import Interrupted
from lth_jax.models import MODELS, custom_model

from ..tiny import StopAt, arrays, assert_same_run, experiment, results, tiny_spec, train

pytestmark = [pytest.mark.usefixtures("built"), pytest.mark.slow]


class Plain(nn.Module):
    """Convolutions of several strides and borders, with bias, as a user writes them."""

    classes: int

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(6, (3, 3), name="conv1")(x))
        x = nn.relu(nn.Conv(8, (2, 3), (2, 1), padding=((0, 1), (1, 0)), name="conv2")(x))
        x = nn.relu(nn.Conv(8, (3, 3), 2, padding="VALID", name="conv3")(x))
        return nn.Dense(self.classes, name="output")(x.reshape(len(x), -1))


class Residual(nn.Module):
    """A strided block with batch norm, and its 1×1 shortcut."""

    classes: int

    @nn.compact
    def __call__(self, x, train=False):
        def norm(x, name):
            return nn.BatchNorm(use_running_average=not train, momentum=0.9, name=name)(x)

        def conv(x, features, width, stride, name):
            return nn.Conv(features, (width, width), stride, use_bias=False, name=name)(x)

        x = nn.relu(norm(conv(x, 6, 3, 1, "conv1"), "norm1"))
        y = nn.relu(norm(conv(x, 8, 3, 2, "conv2"), "norm2"))
        y = norm(conv(y, 8, 3, 1, "conv3"), "norm3")
        x = nn.relu(y + norm(conv(x, 8, 1, 2, "shortcut"), "norm4"))
        return nn.Dense(self.classes, name="output")(x.mean((1, 2)))


NETS = {"plain_convs": Plain, "residual_convs": Residual}


@pytest.fixture(scope="module", params=NETS)
def net(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, request.param, custom_model(request.param, NETS[request.param]))
        yield request.param


def spec(net, kernel="sparse", **fields):
    fields = {"levels": 1, "replicates": 1, "branches": ("reinit",)} | fields
    fields["model__hidden"] = (300, 100)  # the default: these nets take no such option
    return tiny_spec(model__name=net, train__kernel=kernel, **fields)


@pytest.fixture(scope="module")
def whole(net, built, tmp_path_factory):
    path = tmp_path_factory.mktemp("sparse") / "run"
    train(path, spec(net))
    return path


def test_every_convolution_is_packed(net, whole):
    kernels = experiment(spec(net)).native
    convolutions = [name for name, layer in kernels.layers.items() if layer.kind == "conv"]
    assert len(convolutions) == {"plain_convs": 3, "residual_convs": 4}[net]
    levels = {(row["level"] == "0", row["kernel"]) for row in results(whole)}
    assert levels == {(True, "native"), (False, "sparse")}


def test_both_kernels_find_the_same_masks_and_nearly_the_same_numbers(net, whole, tmp_path):
    train(tmp_path / "run", spec(net, "xla"))
    for mine, other in zip(results(whole), results(tmp_path / "run"), strict=True):
        assert mine["kept"] == other["kept"]
        loss = float(other["final_train_loss"])
        assert float(mine["final_train_loss"]) == pytest.approx(loss, rel=1e-3)
    ours, theirs = arrays(whole), arrays(tmp_path / "run")
    assert ours.keys() == theirs.keys()
    for name, (dtype, content) in ours.items():
        mine, other = (np.frombuffer(c, dtype) for c in (content, theirs[name][1]))
        np.testing.assert_allclose(mine, other, rtol=1e-2, atol=1e-4, err_msg=name)


def test_bits_depend_neither_on_a_kill_nor_on_other_runs(net, whole, tmp_path):
    with pytest.raises(Interrupted):
        train(tmp_path / "run", spec(net), StopAt(level=1))
    train(tmp_path / "run", spec(net))
    assert_same_run(tmp_path / "run", whole)
    train(tmp_path / "more", spec(net, replicates=2, branches=()))
    more = [row for row in results(tmp_path / "more") if row["replicate"] == "0"]
    assert more == [row for row in results(whole) if row["branch"] == "ticket"]
