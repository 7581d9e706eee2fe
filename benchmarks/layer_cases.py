"""Single layers of the benchmarks' networks, found by tracing them, and what they compute with."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import data
from lth_jax.config import from_config
from lth_jax.config.files import load_config
from lth_jax.lottery.network import model_of
from lth_jax.native.dense_conv import winograd_cost
from lth_jax.native.layers import Layer, window_of
from lth_jax.native.sparse import Tables, Window, sparse_conv, sparse_product

CONFIGS = {
    "lenet": "lenet_mnist",
    **{net: f"{net}_cifar10" for net in ("conv2", "conv4", "conv6", "resnet20")},
}


@dataclasses.dataclass(frozen=True)
class Case:
    """Describes a layer in a step of training.

    Attributes:
      layer: its kind, and its kernel's shape and strides.
      x: the shape of its input, [n, in] or [n, height, width, channels].
      padding: a convolution's zeros on each side of an image.
      first: whether it is a network's first, whose input's gradient training has no use for.
    """

    layer: Layer
    x: tuple[int, ...]
    padding: int = 0
    first: bool = False

    def __str__(self) -> str:
        rows, *_, inputs, outputs = *self.layer.shape[:1], *self.layer.shape[-2:]
        if self.layer.kind == "dense":
            return f"{inputs} → {outputs}, {self.x[0]} examples"
        stride = f" by {self.layer.strides[0]}" if self.layer.strides[0] > 1 else ""
        side = self.x[1]
        return f"{inputs} → {outputs}, {rows}×{rows}{stride}, {self.x[0]} of {side}×{side}"

    @property
    def window(self) -> Window:
        """Returns how a convolution's kernel moves."""
        return Window(self.layer.shape[:2], self.layer.strides, ((self.padding,) * 2,) * 2)

    def product(self, values: jax.Array, tables: Tables, x: jax.Array) -> jax.Array:
        """Returns what our packed kernel computes."""
        if self.layer.kind == "dense":
            return sparse_product(values, tables, x)
        return sparse_conv(values, tables, x, self.window)


class Operands:
    """Holds the arrays that every contender computes with: NumPy, float32.

    Attributes:
      case: the layer.
      inward: whether the gradient of its input is wanted.
      mask, kernel: bool and float32, of the kernel's shape, pruned weights at zero.
      x: the input; given: the gradient of the output.
    """

    def __init__(self, case: Case, density: float, whole: bool = True):
        random = np.random.default_rng(0)

        def normal(shape: Sequence[int]) -> np.ndarray:
            return random.standard_normal(shape, np.float32)

        self.case, shape = case, case.layer.shape
        self.inward = whole or not case.first
        size = math.prod(shape)
        mask = np.arange(size) < max(1, round(density * size))
        random.shuffle(mask)
        self.mask = mask.reshape(shape)
        self.kernel = np.where(self.mask, normal(shape), np.float32(0))
        self.x = normal(case.x)
        features = shape[-1]
        dense = case.layer.kind == "dense"
        self.given = normal((case.x[0], features) if dense else case.window.out(case.x, features))


def layers_of(net: str) -> list[Case]:
    """Returns the layers of a network as training meets them; traces the network to find them."""
    spec = from_config(load_config(f"configs/{CONFIGS[net]}.py", (), ()))
    facts = data.facts(spec.data.name)
    assert facts is not None, f"nothing is known of {spec.data.name}"
    model, found = model_of(spec, facts.classes), []

    def watch(method, args, kwargs, context):
        module = context.module
        if context.method_name == "__call__" and type(module) in (nn.Dense, nn.Conv):
            found.append(_case(module, args[0]))
        return method(*args, **kwargs)

    def traced(key, x):
        with nn.intercept_methods(watch):
            return model.init(key, x)

    x = jax.ShapeDtypeStruct((spec.train.batch_size, *facts.shape), jnp.float32)
    jax.eval_shape(traced, jax.random.key(0), x)
    return [dataclasses.replace(found[0], first=True), *found[1:]]


def _case(module: Any, x: jax.Array) -> Case:
    if isinstance(module, nn.Dense):
        return Case(Layer("dense", (x.shape[-1], module.features)), x.shape)
    window = window_of(module, x)
    assert len({*window.padding[0], *window.padding[1]}) == 1, "SparseProp pads all sides alike"
    shape = (*window.sides, x.shape[-1], module.features)
    images, height, width, _ = window.out(x.shape, module.features)
    winograd = winograd_cost(images, (height, width), shape, window.strides)
    layer = Layer("conv", shape, window.strides, images * height * width, winograd)
    return Case(layer, x.shape, window.padding[0][0])
