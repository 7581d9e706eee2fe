"""The operations of a network, counted from its mask: against arithmetic by hand."""

import jax
import jax.numpy as jnp
import pytest

from lth_jax.models import MODELS
from lth_jax.pruning.trees import named_leaves
from lth_jax.training.operation_counts import training_operations, uses_of_weights


def uses_of(name, shape, dtype=jnp.float32, **options):
    model = MODELS[name].make(10, **options)
    x = jax.ShapeDtypeStruct((1, *shape), dtype)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    return uses_of_weights(model.apply, variables, x), named_leaves(variables["params"])


def test_a_weight_is_used_once_in_a_dense_layer_and_for_each_pixel_in_a_convolution():
    uses, _ = uses_of("conv2", (32, 32, 3))
    assert uses == {
        "conv1/kernel": 32 * 32, "conv2/kernel": 32 * 32,
        "fc1/kernel": 1, "fc2/kernel": 1, "output/kernel": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "shape", "millions"),
    [
        ("mlp", (28, 28, 1), 0.2662),
        ("resnet20", (32, 32, 3), 40.813),
        ("vgg16", (32, 32, 3), 313.2),
    ],
)
def test_a_network_s_multiplications_are_those_that_are_known_of_it(name, shape, millions):
    uses, leaves = uses_of(name, shape)
    assert {leaf for leaf in leaves if leaf.endswith("kernel")} == uses.keys()
    total = sum(uses[leaf] * leaves[leaf].size for leaf in uses)
    assert total / 1e6 == pytest.approx(millions, rel=1e-3)


def test_every_token_meets_the_weights_of_a_transformer():
    uses, _ = uses_of("vit_tiny", (32, 32, 3))
    assert uses["block1_query/kernel"] == 64  # patches of 4×4 pixels


def test_a_kernel_that_is_shared_transposed_and_cast_is_found_each_time():
    def apply(variables, x, train, rngs):
        w = variables["params"]["w"]
        half = jax.jit(lambda x: x @ (2 * w).astype(jnp.bfloat16))(x.astype(jnp.bfloat16))
        return half.astype(jnp.float32) @ w.T, {}

    x = jax.ShapeDtypeStruct((1, 5, 3), jnp.float32)
    uses = uses_of_weights(apply, {"params": {"w": jnp.ones((3, 4))}}, x)
    assert uses == {"w": 2 * 5}


def test_the_operations_of_training_are_those_of_the_weights_that_are_kept():
    found = training_operations({"w": 15, "b": 5}, {"w": 10.0}, steps=7, batch_size=3)
    assert found == 2 * 3 * 15 * 10 * 7 * 3
