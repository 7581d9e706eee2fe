"""Networks that are a chain of dense layers: their loss and gradients in one native call.

Which networks these are is found out by tracing them, as layers that can be packed are: images are
flattened, then `nn.Dense` follows `nn.Dense`, a ReLU behind each but the last, and nothing else
happens. Under dropout, batch norm, or any other operation a network is no chain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jaxtyping import Array, Float32, Int32, Shaped

from lth_jax.native.build import target
from lth_jax.native.dispatch import Dispatch, dispatching
from lth_jax.native.layers import Layer
from lth_jax.native.sparse import Tables
from lth_jax.pruning.trees import PyTree, named_leaves
from lth_jax.training.pixels import Pixels


class Chain(NamedTuple):
    """A network that is a chain of dense layers.

    Attributes:
      kernels: the names of the layers' kernels, from the first layer to the last.
      biases: the names of their biases; None for a layer that has none.
    """

    kernels: tuple[str, ...]
    biases: tuple[str | None, ...]

    def takes(self, constants: PyTree) -> bool:
        """Returns whether it computes a run: one of whose layers some are packed."""
        # Dense layers by themselves leave out inputs that are zero, which pays more.
        return isinstance(constants, Mapping) and any(name in constants for name in self.kernels)

    def loss_and_gradients(
        self,
        constants: Mapping[str, Tables],
        params: PyTree,
        images: Shaped[Array, "n ..."],
        labels: Int32[Array, " n"],
        pixels: Pixels,
    ) -> tuple[Float32[Array, ""], PyTree]:
        """Returns the mean cross-entropy of a batch, and its gradients.

        Args:
          constants: the index tables of packed layers, by the name of their kernel.
          params: float32, packed where there are tables.
          images: as they are stored, [n, ...].
          labels: int32 [n]; one that is no class makes the loss NaN.
          pixels: how stored images become what the network sees.

        Returns:
          The loss, float32 []; the gradients, of the parameters' structure.
        """
        leaves = named_leaves(params)
        names = [name for pair in self._pairs() for name in pair if name]
        shapes = [(), *(leaves[name].shape for name in names)]
        call = self._call("ChainLossAndGradients", shapes, constants, leaves)
        loss, *found = call(pixels, images, labels)
        gradients = dict(zip(names, found, strict=True))
        structure = jax.tree.structure(params)
        return loss, jax.tree.unflatten(structure, [gradients[name] for name in leaves])

    def logits(
        self,
        constants: Mapping[str, Tables],
        params: PyTree,
        images: Shaped[Array, "n ..."],
        pixels: Pixels,
    ) -> Float32[Array, "n classes"]:
        """Returns the logits of stored images, float32 [n, classes]."""
        leaves, last = named_leaves(params), self.kernels[-1]
        classes = constants[last].outputs if last in constants else leaves[last].shape[-1]
        call = self._call("ChainLogits", [(len(images), classes)], constants, leaves)
        return call(pixels, images)[0]

    def _pairs(self) -> Iterator[tuple[str, str | None]]:
        return zip(self.kernels, self.biases, strict=True)

    def _call(
        self,
        name: str,
        shapes: Sequence[tuple[int, ...]],
        constants: Mapping[str, Tables],
        leaves: Mapping[str, Array],
    ) -> Callable[..., Any]:
        """Returns a native function of images and what else comes before the layers' arrays."""
        results = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
        call = jax.ffi.ffi_call(target(name), results, vmap_method="broadcast_all")
        arrays = []
        for kernel, bias in self._pairs():
            arrays += [leaves[kernel], *([leaves[bias]] if bias else [])]
            arrays += constants.get(kernel, ())

        def called(pixels: Pixels, images: Array, *others: Array) -> Any:
            scale = pixels.scale
            # Bytes go in as they are: where all of them have one scale, sums are multiplied by it.
            if pixels.mean or images.dtype not in (jnp.uint8, jnp.float32):
                images, scale = pixels.prepared(images), 1.0
            return call(
                images,
                *others,
                *arrays,
                biased=np.array([bias is not None for bias in self.biases], np.int64),
                packed=np.array([kernel in constants for kernel in self.kernels], np.int64),
                scale=np.float32(scale),
            )

        return called


def find_chain(
    apply: Callable[..., Any],
    variables: PyTree,
    x: jax.ShapeDtypeStruct,
    layers: Mapping[str, Layer],
) -> Chain | None:
    """Returns the chain that a network is, or None; it is traced once, and nothing is computed.

    Args:
      apply, variables, x: as in `find_layers`.
      layers: what was found by it.
    """
    leaves = named_leaves(variables["params"])
    biases = {name: _beside(name, "bias") for name, layer in layers.items()}
    known = {*layers, *(bias for bias in biases.values() if bias in leaves)}
    dense = all(layer.kind == "dense" for layer in layers.values())
    if not layers or not dense or known != set(leaves) or set(variables) != {"params"}:
        return None

    def marked(module: nn.Module, name: str, args: tuple[Any, ...]) -> jax.Array:
        return _layer.bind(*args, name=name, features=module.features)

    def traced(x, key):
        with dispatching(Dispatch(watch=marked)):
            return apply(variables, x, True, {"dropout": key})[0]

    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), variables)
    closed = jax.make_jaxpr(traced)(x, jax.random.key(0))
    kernels = _order(closed.jaxpr, math.prod(x.shape[1:]))
    if kernels is None or sorted(kernels) != sorted(layers):
        return None
    found = (biases[kernel] for kernel in kernels)
    return Chain(kernels, tuple(bias if bias in leaves else None for bias in found))


def _beside(kernel: str, name: str) -> str:
    """Returns the name of another leaf of a kernel's layer."""
    return "/".join((*kernel.split("/")[:-1], name))


# What stands for a layer while a network is looked at.
_layer = core.Primitive("dense_layer")


@_layer.def_abstract_eval
def _layer_shape(x: Any, *, name: str, features: int) -> Any:
    del name
    return x.update(shape=(*x.shape[:-1], features))


class _Value(NamedTuple):
    """What is known of an array in a chain: the layers before it, and whether a ReLU came last."""

    layers: tuple[str, ...]
    rectified: bool


def _order(jaxpr: core.Jaxpr, pixels: int) -> tuple[str, ...] | None:
    """Returns the names of the layers, if a jaxpr of (images, key) is nothing but a chain."""
    images, _ = jaxpr.invars
    values = {images: _Value((), True)}
    for equation in jaxpr.eqns:
        value = _next(equation, values, pixels)
        if value is None:
            return None
        values[equation.outvars[0]] = value
    (out,) = jaxpr.outvars
    last = values.get(out) if isinstance(out, core.Var) else None
    # Each array is used once: nothing else has become of one on the way.
    once = len(jaxpr.eqns) == 2 * len(last.layers) - 1 + _reshapes(jaxpr) if last else False
    return last.layers if last and once and not last.rectified else None


def _reshapes(jaxpr: core.Jaxpr) -> int:
    return sum(equation.primitive.name == "reshape" for equation in jaxpr.eqns)


def _next(equation: Any, values: Mapping[Any, _Value], pixels: int) -> _Value | None:
    """Returns what an equation makes, or None if that is no part of a chain."""
    (x, *others), (out,) = equation.invars, equation.outvars
    if others or not isinstance(x, core.Var) or x not in values:
        return None
    layers, rectified = values[x]
    shape, out_shape = _shape(x), _shape(out)
    if equation.primitive is _layer and rectified and len(shape) == 2:
        return _Value((*layers, equation.params["name"]), False)
    if equation.primitive.name == "reshape" and not layers:
        flat = out_shape in ((shape[0], pixels), shape)
        return _Value((), True) if flat and equation.params["dimensions"] is None else None
    if layers and not rectified and _is_relu(equation):
        return _Value(layers, True)
    return None


def _shape(variable: Any) -> tuple[int, ...]:
    return tuple(variable.aval.shape)


def _is_relu(equation: Any) -> bool:
    """Returns whether an equation is `jax.nn.relu`, in value and gradient.

    `jnp.maximum` is another one: at zero, where units lie that have lost all their weights, it has
    half a gradient.
    """
    if equation.primitive.name != "custom_jvp_call":
        return False
    (relu,) = jax.make_jaxpr(jax.nn.relu)(equation.invars[0].aval).jaxpr.eqns
    return _derived(equation) == _derived(relu)


def _derived(equation: Any) -> str:
    """Returns the text of the value and the gradient of an equation of one operand."""
    (x,), (out,) = equation.invars, equation.outvars
    alone = core.ClosedJaxpr(core.Jaxpr((), [x], [out], [equation]), ())
    function = core.jaxpr_as_fun(alone)

    def value_and_gradient(x: jax.Array) -> Any:
        out, pullback = jax.vjp(lambda x: function(x)[0], x)
        return out, pullback(x)

    return str(jax.make_jaxpr(value_and_gradient)(x.aval))
