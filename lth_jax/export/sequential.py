"""Networks that are a sequence of layers, as data: to be shrunk, counted, and run without Flax."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lth_jax.models import MODELS
from lth_jax.models.alexnet import AlexNet
from lth_jax.models.conv import Conv
from lth_jax.models.lenet5 import LeNet5
from lth_jax.models.mlp import MLP
from lth_jax.models.vgg import VGG
from lth_jax.pruning.trees import PyTree

EPSILON = 1e-5  # of Flax's batch norm, and of PyTorch's


class Layer(NamedTuple):
    """One step of a sequence.

    Attributes:
      kind: a row of `KINDS`.
      name: of its parameters; empty for layers without.
      padding: of a convolution, zeros on each side.
      stride: of a convolution.
    """

    kind: str
    name: str = ""
    padding: int = 0
    stride: int = 1


RELU, POOL, FLATTEN, MEAN = (Layer(k) for k in ("relu", "max_pool", "flatten", "global_mean"))


def layers_of(model: str, names: Sequence[str]) -> tuple[Layer, ...]:
    """Returns the layers of a network of the zoo.

    Args:
      model: its name in `MODELS`.
      names: of its layers with parameters, as it has them.

    Raises:
      ValueError: it is no sequence of layers, or its layers are others.
    """
    accepted = [name for name, member in MODELS.items() if member.module in SEQUENCES]
    if model not in accepted:
        raise ValueError(
            f"{model} is not a sequence of layers with ReLUs; accepted: {', '.join(accepted)}"
        )
    member = MODELS[model]
    layers = tuple(SEQUENCES[member.module](names, member.module(1, **member.sizes)))
    if {layer.name for layer in layers if layer.name} != set(names):
        raise ValueError(f"{model} has layers {', '.join(sorted(names))}, which are not the zoo's")
    return layers


def _classifier(names: Sequence[str]) -> Iterator[Layer]:
    """Yields the hidden linear layers `fc1`, … and `output`."""
    for index in range(1, 1 + sum(name.startswith("fc") for name in names)):
        yield from (Layer("dense", f"fc{index}"), RELU)
    yield Layer("dense", "output")


def _mlp(names: Sequence[str], _network: MLP) -> Iterator[Layer]:
    yield FLATTEN
    yield from _classifier(names)


def _lenet5(names: Sequence[str], _network: LeNet5) -> Iterator[Layer]:
    for index in (1, 2):
        yield from (Layer("conv", f"conv{index}"), RELU, POOL)
    yield FLATTEN
    yield from _classifier(names)


def _conv(names: Sequence[str], network: Conv) -> Iterator[Layer]:
    for pair in range(network.pairs):
        for index in (2 * pair + 1, 2 * pair + 2):
            yield from (Layer("conv", f"conv{index}", padding=1), RELU)
        yield POOL
    yield FLATTEN
    yield from _classifier(names)


def _alexnet(names: Sequence[str], _network: AlexNet) -> Iterator[Layer]:
    for index in range(1, 6):
        yield Layer("conv", f"conv{index}", padding=1, stride=2 if index == 1 else 1)
        yield RELU
        if index in (1, 2, 5):
            yield POOL
    yield FLATTEN
    yield from _classifier(names)


def _vgg(names: Sequence[str], network: VGG) -> Iterator[Layer]:
    starts = [0, *accumulate(network.blocks)]
    for start, end in pairwise(starts):
        if start:
            yield POOL
        for index in range(start + 1, end + 1):
            yield from (Layer("conv", f"conv{index}", padding=1), Layer("norm", f"norm{index}"))
            yield RELU
    yield MEAN
    yield from _classifier(names)


# Each family that is a sequence: from the names of its layers, and a network of it.
SEQUENCES: dict[Callable[..., Any], Callable[[Sequence[str], Any], Iterator[Layer]]] = {
    MLP: _mlp,
    LeNet5: _lenet5,
    Conv: _conv,
    AlexNet: _alexnet,
    VGG: _vgg,
}


def apply(layers: Sequence[Layer], params: PyTree, statistics: PyTree, x: jax.Array) -> jax.Array:
    """Returns the logits, float32 [batch, classes], of images [batch, height, width, channels].

    Args:
      layers: the sequence.
      params: layer -> its leaves.
      statistics: norm -> its mean and var.
      x: what the first layer takes.
    """
    for layer in layers:
        leaves = {**params.get(layer.name, {}), **statistics.get(layer.name, {})}
        x = KINDS[layer.kind](layer, leaves, x)
    return x


def sizes(
    layers: Sequence[Layer], params: PyTree, statistics: PyTree, shape: tuple[int, ...]
) -> list[tuple[int, ...]]:
    """Returns the shape of one example before the first layer and after each.

    Raises:
      TypeError or ValueError: they do not fit one another.
    """
    shapes = [shape]
    for layer in layers:
        x = jax.ShapeDtypeStruct((1, *shapes[-1]), jnp.float32)
        found = jax.eval_shape(lambda p, s, x, layer=layer: apply([layer], p, s, x),
                               params, statistics, x)  # fmt: skip
        shapes.append(found.shape[1:])
    return shapes


def flops(
    layers: Sequence[Layer], params: PyTree, statistics: PyTree, shape: tuple[int, ...]
) -> int:
    """Counts multiplications and additions in convolutions and linear layers for one example."""
    total = 0
    for layer, found in zip(layers, sizes(layers, params, statistics, shape)[1:], strict=True):
        if layer.kind in ("conv", "dense"):
            pixels = math.prod(found[:-1])
            total += 2 * pixels * math.prod(params[layer.name]["kernel"].shape)
    return total


def _apply_conv(layer: Layer, leaves: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
    x = lax.conv_general_dilated(
        x,
        leaves["kernel"],
        (layer.stride, layer.stride),
        [(layer.padding, layer.padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return x + leaves["bias"].reshape(1, 1, 1, -1) if "bias" in leaves else x


def _apply_dense(_: Layer, leaves: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
    return x @ leaves["kernel"] + leaves["bias"].reshape(1, -1)


def _apply_norm(_: Layer, leaves: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
    shape = (1,) * (x.ndim - 1) + (-1,)
    factor = lax.rsqrt(leaves["var"] + EPSILON) * leaves["scale"]
    mean, bias = leaves["mean"].reshape(shape), leaves["bias"].reshape(shape)
    return (x - mean) * factor.reshape(shape) + bias


def _apply_pool(_: Layer, leaves: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
    del leaves
    window = (1, 2, 2, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")


def _apply_select(_: Layer, leaves: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
    return jnp.take(x, leaves["indices"], axis=-1)


KINDS: dict[str, Callable[[Layer, Mapping[str, jax.Array], jax.Array], jax.Array]] = {
    "conv": _apply_conv,
    "dense": _apply_dense,
    "norm": _apply_norm,
    "select": _apply_select,
    "max_pool": _apply_pool,
    "relu": lambda _layer, _leaves, x: jax.nn.relu(x),
    "flatten": lambda _layer, _leaves, x: x.reshape(x.shape[0], -1),
    "global_mean": lambda _layer, _leaves, x: jnp.mean(x, (1, 2)),
}
