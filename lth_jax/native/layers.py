"""Which layers of a network native code can compute, found out by watching it being traced."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from lth_jax.native.dense_conv import winograd_cost
from lth_jax.native.dispatch import Dispatch, both, dispatching, padding_of, window_of
from lth_jax.pruning.trees import PyTree, named_leaves

# The sides of a window and the channels that an entry of an index table can tell apart: it holds
# the channel in 16 bits of 32, a row and a column under the window in 8 each.
MOST_SIDE, MOST_CHANNELS = 256, 1 << 15


class Layer(NamedTuple):
    """A layer whose kernel can be packed.

    Attributes:
      kind: `dense`, its kernel [in, out], or `conv`, [height, width, channels, features].
      shape: of its kernel.
      strides: of a convolution's window, by row and column.
      applied: how often a batch meets the kernel: its number of examples, times the number of
        output pixels of a convolution.
      winograd: what an output pixel takes, in multiply-adds, of a convolution that is computed by
        Winograd's way where it is dense; else 0.
    """

    kind: str
    shape: tuple[int, ...]
    strides: tuple[int, int] = (1, 1)
    applied: int = 1
    winograd: float = 0.0


def find_layers(
    apply: Callable[..., Any], variables: PyTree, x: jax.ShapeDtypeStruct
) -> tuple[dict[str, Layer], int]:
    """Returns the layers that can be packed, and the number of native convolutions in a step.

    Nothing is computed: the network is traced once. A network that is none of Flax's has neither.

    Args:
      apply: (variables, x, train, rngs) -> (logits, new_state), as a model has it.
      variables: the network's, as arrays or shapes.
      x: the shape of a batch.

    Returns:
      The packable layers by the name of their kernel's leaf; native convolutions in training.
    """
    leaves = named_leaves(variables["params"])
    found: dict[str, Layer | None] = {}
    convolved: list[tuple[int, ...]] = []

    def watch(module: nn.Module, name: str, args: tuple[Any, ...]) -> None:
        layer = _layer(module, leaves.get(name), args)
        # A kernel that is shared by two calls of different shapes has no one cost: left to XLA.
        found[name] = layer if found.get(name, layer) == layer else None

    def traced(variables, x, key):
        on_cpu = Dispatch(convolutions=True, watch=watch, convolved=convolved, platform="cpu")
        with dispatching(on_cpu):
            logits, _ = apply(variables, x, True, {"dropout": key})
        return logits

    jax.eval_shape(traced, variables, x, jax.random.key(0))
    return {name: layer for name, layer in found.items() if layer}, len(convolved)


def _layer(module: nn.Module, leaf: Any, args: tuple[Any, ...]) -> Layer | None:
    """Returns the layer if it can be packed: a plain one, in float32 throughout."""
    if leaf is None or len(args) != 1 or not isinstance(args[0], jax.Array):
        return None
    x = args[0]
    single = leaf.dtype == x.dtype == jnp.float32 and module.dtype in (None, jnp.float32)
    if not single or module.precision is not None or 0 in (*x.shape, *leaf.shape):
        return None
    if _is_plain_dense(module, leaf, x):
        return Layer("dense", tuple(leaf.shape), applied=math.prod(x.shape[:-1]))
    if _is_plain_conv(module, leaf, x):
        images, *out, _ = window_of(module, x).out(x.shape, module.features)
        shape, strides = tuple(leaf.shape), both(module.strides)
        winograd = winograd_cost(images, (out[0], out[1]), shape, strides)
        return Layer("conv", shape, strides, images * math.prod(out), winograd)
    return None


def _is_plain_dense(module: Any, leaf: Any, x: jax.Array) -> bool:
    return (
        isinstance(module, nn.Dense)
        and leaf.shape == (x.shape[-1], module.features)
        and x.ndim >= 2
        and module.dot_general is None
        and module.dot_general_cls is None
    )


def _is_plain_conv(module: Any, leaf: Any, x: jax.Array) -> bool:
    if not isinstance(module, nn.Conv) or x.ndim != 4 or module.conv_general_dilated_cls:
        return False
    sides = module.kernel_size
    if isinstance(sides, int) or len(sides) != 2 or max(sides) >= MOST_SIDE:
        return False
    return (
        leaf.shape == (*sides, x.shape[-1], module.features)
        and max(x.shape[-1], module.features) < MOST_CHANNELS
        and all(set(both(d)) == {1} for d in (module.input_dilation, module.kernel_dilation))
        and module.feature_group_count == 1
        and module.mask is None
        and module.conv_general_dilated is None
        and padding_of(module, x) is not None
    )
