"""Which layers of a network native kernels can serve, found out by watching it being traced."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from lth_jax.native.convolution import native_convolutions
from lth_jax.native.sparse import Window
from lth_jax.pruning.trees import PyTree, named_leaves

# The window's sides and the channels that an index table can tell apart.
MOST_SIDE, MOST_CHANNELS = 256, 1 << 15


class Layer(NamedTuple):
    """A layer whose kernel can be packed.

    Attributes:
      kind: `dense`, its kernel [in, out], or `conv`, [height, width, channels, features].
      shape: of its kernel.
      strides: of a convolution's window, by row and column.
      applied: how often the kernel is in a batch: its examples, times a convolution's output
        pixels.
    """

    kind: str
    shape: tuple[int, ...]
    strides: tuple[int, int] = (1, 1)
    applied: int = 1


def find_layers(
    apply: Callable[..., Any], variables: PyTree, x: jax.ShapeDtypeStruct
) -> tuple[dict[str, Layer], int]:
    """The layers that can be packed, and the number of native convolutions, in a step of training.

    Nothing is computed: the network is traced once. Networks without Flax Linen's layers have none.

    Args:
      apply: (variables, x, train, rngs) -> (logits, new_state), as a model has it.
      variables: the network's, as arrays or shapes.
      x: the shape of a batch.

    Returns:
      The packable layers by the name of their kernel's leaf; native convolutions in training.
    """
    leaves = named_leaves(variables["params"])
    found: dict[str, Layer | None] = {}

    def watch(method, args, kwargs, context):
        module = context.module
        if context.method_name == "__call__" and type(module) in (nn.Dense, nn.Conv):
            name = kernel_name(module)
            layer = _layer(module, leaves.get(name), args)
            found[name] = layer if found.get(name, layer) == layer else None
        return method(*args, **kwargs)

    def traced(variables, x, key):
        with nn.intercept_methods(watch), native_convolutions() as served:
            logits, _ = apply(variables, x, True, {"dropout": key})
        convolutions.extend(served)
        return logits

    convolutions: list[tuple[int, ...]] = []
    jax.eval_shape(traced, variables, x, jax.random.key(0))
    return {name: layer for name, layer in found.items() if layer}, len(convolutions)


def kernel_name(module: nn.Module) -> str:
    """The name of the leaf that a layer's kernel is."""
    return "/".join((*module.path, "kernel"))


def _layer(module: nn.Module, leaf: Any, args: tuple[Any, ...]) -> Layer | None:
    """The layer if it can be packed: plain, and in float32 throughout."""
    if leaf is None or len(args) != 1 or not isinstance(args[0], jax.Array):
        return None
    x = args[0]
    single = leaf.dtype == x.dtype == jnp.float32 and module.dtype in (None, jnp.float32)
    if not single or module.precision is not None or 0 in (*x.shape, *leaf.shape):
        return None
    if _is_plain_dense(module, leaf, x):
        return Layer("dense", tuple(leaf.shape), applied=math.prod(x.shape[:-1]))
    if _is_plain_conv(module, leaf, x):
        *places, _ = window_of(module, x).out(x.shape, module.features)
        return Layer("conv", tuple(leaf.shape), strides_of(module), math.prod(places))
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
        and all(set(_both(d)) == {1} for d in (module.input_dilation, module.kernel_dilation))
        and module.feature_group_count == 1
        and module.mask is None
        and module.conv_general_dilated is None
        and padding_of(module, x) is not None
    )


def _both(value: Any) -> tuple[Any, Any]:
    """A value for rows and one for columns, as Flax takes them: one for both, or None for 1."""
    if value is None:
        return 1, 1
    return (value, value) if isinstance(value, int) else tuple(value)


def strides_of(module: Any) -> tuple[int, int]:
    """The strides of a convolution's window."""
    return _both(module.strides)


def window_of(module: Any, x: jax.Array) -> Window:
    """How a plain convolution's kernel moves over images `x` [n, height, width, channels]."""
    padding = padding_of(module, x)
    assert padding is not None, "`find_layers` finds no such convolution"
    return Window(tuple(module.kernel_size), strides_of(module), padding)


def padding_of(module: Any, x: jax.Array) -> tuple[tuple[int, int], ...] | None:
    """A convolution's zeros around images `x` [n, height, width, channels]; None if of others."""
    padding = module.padding
    if isinstance(padding, str):
        if padding not in ("SAME", "VALID"):
            return None
        sides = tuple(module.kernel_size)
        padding = jax.lax.padtype_to_pads(x.shape[1:3], sides, strides_of(module), padding)
    pairs = tuple(_both(pair) for pair in _both(padding))
    return pairs if min(map(min, pairs)) >= 0 else None
