"""Two hundred steps by two kernels, from one state, differ as two orders of summation do."""

import flax.linen as nn
import numpy as np
import pytest

from lth_jax.models import MODELS, Member
from lth_jax.models.layers import Network

from ..tiny import arrays, results, tiny_spec, train

STEPS = 200
# Random masks and no rewinding but to initialization: level 1 starts from the same bits under every
# kernel, whatever level 0 came to.
FIELDS = {
    "levels": 1,
    "replicates": 1,
    "branches": (),
    "pruning.criterion": "random",
    "pruning.fraction": 0.8,
    "model.hidden": (300, 100),
    "train.steps": str(STEPS),
    # Adam divides gradients by their own size, so that those which are hardly more than rounding
    # move weights as far as any: after it LeNet's weights differ by up to 15% of the largest, its
    # loss by 4e-5 (measured), which no bound could tell from an error.
    "train.optimizer": "sgd",
    "train.learning_rate": 0.1,
    "eval.every": str(STEPS),
}


class Normalized(Network):
    """Batch norm behind a convolution and behind a dense layer."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(8, (3, 3), strides=2, use_bias=False, name="conv")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm1")(x))
        x = nn.Dense(32, use_bias=False, name="fc")(x.reshape(len(x), -1))
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm2")(x))
        return self.output(x)


NETWORKS = {"lenet": {}, "batch norm": {"model.name": "normalized"}}


def level_1(path, network, kernel):
    """(its row, its arrays by name) of level 1 of a run by `kernel`."""
    train(path, tiny_spec(**FIELDS, **NETWORKS[network], **{"train.kernel": kernel}))
    prefix = "replicate_0/level_01/"
    found = {
        name.removeprefix(prefix): np.frombuffer(content, dtype)
        for name, (dtype, content) in arrays(path).items()
        if name.startswith(prefix)
    }
    return results(path)[1], found


@pytest.mark.slow
@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("network", NETWORKS)
def test_training_agrees(network, monkeypatch, tmp_path):
    monkeypatch.setitem(MODELS, "normalized", Member(Normalized))
    row, ours = level_1(tmp_path / "ours", network, "sparse")
    reference, theirs = level_1(tmp_path / "theirs", network, "xla")
    assert (reference["kernel"], row["kernel"]) == ("xla", "sparse")
    for name, wanted in theirs.items():
        if wanted.dtype == bool:
            np.testing.assert_array_equal(ours[name], wanted)
        elif wanted.dtype == np.float32:
            allowed = 1e-5 * np.max(np.abs(wanted), initial=0)
            np.testing.assert_allclose(ours[name], wanted, rtol=0, atol=allowed, err_msg=name)
    loss, other = float(row["final_train_loss"]), float(reference["final_train_loss"])
    assert loss == pytest.approx(other, rel=1e-6)
