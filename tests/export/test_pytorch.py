"""Networks in PyTorch: the same logits, with masks as `torch.nn.utils.prune` has them."""

import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.export import pytorch
from lth_jax.models import MODELS, from_linen
from lth_jax.pruning.masks import apply_mask, prunable
from lth_jax.pruning.trees import named_leaves

from ..small_networks import random_mask

EXAMPLES = Path(__file__).parents[2] / "examples"

# One of each family, as narrow and shallow as it can be, and the side of its images.
NETWORKS = {
    "mlp": ({"hidden": (6, 5)}, 4),
    "lenet5": ({}, 32),
    "conv4": ({"width": 0.05}, 8),
    "alexnet": ({"width": 0.02}, 32),
    "vgg11": ({"width": 0.05, "blocks": (1, 2, 1)}, 8),
    "resnet20": ({"width": 0.2, "depth": 14}, 8),
    "resnet18": ({"width": 0.05, "blocks": (1, 2)}, 8),
    "resnet50": ({"width": 0.05, "blocks": (1, 1), "stem": "imagenet"}, 32),
    "densenet121": ({"width": 0.1, "blocks": (2, 2)}, 8),
    "vit_tiny": ({"width": 0.05, "depth": 2}, 8),
}
FAST = ("mlp", "conv4", "vgg11")


@pytest.fixture
def torch_networks(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import pytorch_networks

    yield pytorch_networks
    del sys.modules["pytorch_networks"]


def random_variables(model, images):
    """Variables with none of the neutral norms, statistics and biases that they start with."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)

    def leaf(x):
        if x.ndim == 1:
            return random.uniform(0.1, 1.0, x.shape).astype(np.float32)
        deviation = (2 / np.prod(x.shape[:-1])) ** 0.5
        return (deviation * random.normal(size=x.shape)).astype(np.float32)

    return jax.tree.map(leaf, shapes)


@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS]
)
def test_pytorch_gives_the_same_logits(name, torch_networks):
    import torch

    options, side = NETWORKS[name]
    model = MODELS[name].make(10, **options)
    images = np.random.default_rng(1).normal(size=(5, side, side, 3)).astype(np.float32)
    variables = random_variables(model, images)
    mask = random_mask(variables["params"])
    params = apply_mask(variables["params"], mask)
    state = {n: tree for n, tree in variables.items() if n != "params"}
    wanted, _ = jax.jit(lambda v: model.apply(v, images, False, {}))({"params": params, **state})

    arrays = pytorch.tensors(
        params,
        state.get("batch_stats", {}),
        mask,
        prunable=prunable(params),
        flattened=pytorch.flattened_of(name, params, lambda: 3),
    )
    tensors = {name: torch.tensor(array) for name, array in arrays.items()}
    module = torch_networks.network(name, tensors, **options)
    module.load_state_dict(tensors)  # strict: every name, every shape
    with torch.no_grad():
        found = module.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    pruned = [n for n in tensors if n.endswith("weight_mask")]
    assert len(pruned) == len(prunable(params))
    kept = sum(int(tensors[n].sum()) for n in pruned)
    assert kept == sum(int(named_leaves(mask)[n].sum()) for n in prunable(params))


@pytest.mark.parametrize(
    ("name", "side", "flattened"),
    [
        ("mlp", 8, {"fc1": 3}),
        ("lenet5_wide", 8, {"fc1": 64}),
        ("conv6", 8, {"fc1": 256}),
        ("resnet20", 8, {}),
        ("vgg11", 16, {}),
    ],
)
def test_the_layer_after_a_flattening_follows_from_the_row(name, side, flattened):
    images = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
    variables = jax.eval_shape(MODELS[name].make(10).init, jax.random.key(0), images)
    assert pytorch.flattened_of(name, variables["params"], lambda: 3) == flattened


class Own(nn.Module):
    """A network of a user's own."""

    flatten: bool = False

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(4, (3, 3), name="first")(x))
        x = x.reshape(len(x), -1) if self.flatten else x.mean((1, 2))
        return nn.Dense(3, name="last")(x)


class Unknown(nn.Module):
    """One with a layer whose layout nobody knows."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.ConvTranspose(4, (3, 3), name="up")(x).mean((1, 2))
        return nn.Dense(3)(x)


@pytest.mark.parametrize(
    ("module", "complaint"),
    [
        (Own(), None),
        (Own(flatten=True), "it flattens images of 8×8×4"),
        (Unknown(), "up/bias has a layout that is not known"),
    ],
)
def test_a_network_of_ones_own_goes_over_if_its_layouts_are_known(module, complaint):
    model = from_linen(module)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    if complaint:
        with pytest.raises(ValueError, match=complaint):
            pytorch.check_layouts(model, variables, (8, 8, 1))
    else:
        pytorch.check_layouts(model, variables, (8, 8, 1))
        params = variables["params"]
        found = pytorch.tensors(params, {}, params, prunable=(), flattened={})
        assert found["first.weight"].shape == (4, 1, 3, 3)
        assert found["last.weight"].shape == (3, 4)


def test_a_kernel_of_another_rank_is_refused():
    params = {"heads": {"kernel": np.zeros((2, 3, 4))}}
    with pytest.raises(ValueError, match="heads/kernel has 3 dimensions"):
        pytorch.tensors(params, {}, params, prunable=(), flattened={})
