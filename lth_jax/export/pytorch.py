"""A network as PyTorch's `state_dict`: its names, its layouts, masks as `torch.nn.utils.prune` has.

A layer `fc1` of Flax is a module `fc1` of PyTorch; a prunable layer's weight is in two tensors,
`fc1.weight_orig` and `fc1.weight_mask`, as after `prune.identity(module.fc1, "weight")`. Flax
flattens images as height, width, channels and PyTorch as channels, height, width: the inputs of a
linear layer that follows are put in PyTorch's order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lth_jax.export import containers, sequential
from lth_jax.export.whole import Origin
from lth_jax.models import MODELS, Model
from lth_jax.pruning.trees import PyTree, named_leaves

# Layers of Flax whose layouts are known, and what PyTorch calls their leaves.
LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
LAYERS = (nn.Dense, nn.Conv, nn.BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.Embed)


def tensors(
    params: PyTree,
    statistics: PyTree,
    mask: PyTree,
    *,
    prunable: Collection[str],
    flattened: Mapping[str, int],
) -> dict[str, np.ndarray]:
    """Returns the entries of a `state_dict`, float32 (num_batches_tracked int64).

    Args:
      params: nested dicts of layers; statistics: of batch norms, the same.
      mask: bool, the structure of `params`.
      prunable: names of the leaves that may be pruned.
      flattened: linear layer -> channels of what is flattened before it.

    Raises:
      ValueError: a kernel of a layout that is not known.
    """
    masks, out = named_leaves(mask), {}
    for name, leaf in named_leaves(params).items():
        module, kind = _split(name)
        channels = flattened.get(module.replace(".", "/"), 1)
        place = f"{module}.{LEAVES.get(kind, kind)}" if module else kind
        weight = _layout(name, np.asarray(leaf, np.float32), kind, channels)
        if name in prunable:
            kept = _layout(name, np.asarray(masks[name], np.float32), kind, channels)
            out |= {f"{place}_orig": weight, f"{place}_mask": kept}
        else:
            out[place] = weight
    for name, leaf in named_leaves(statistics).items():
        module, kind = _split(name)
        out[f"{module}.running_{kind}"] = np.asarray(leaf, np.float32)
        out[f"{module}.num_batches_tracked"] = np.zeros((), np.int64)
    return out


def flattened_of(model: str, params: PyTree, channels: Callable[[], int]) -> dict[str, int]:
    """Returns the linear layer of a network of the zoo that follows a flattening.

    Args:
      model: its name in `MODELS`.
      params: its parameters, or their shapes.
      channels: gives those of an image; called where images themselves are flattened.

    Returns:
      The layer's name and the channels of what is flattened; empty if nothing is.
    """
    try:
        layers = sequential.layers_of(model, list(params))
    except ValueError:  # no other network of the zoo flattens: they take the mean over the pixels
        return {}
    if sequential.FLATTEN not in layers:
        return {}
    flatten = layers.index(sequential.FLATTEN)
    convolutions = [layer.name for layer in layers[:flatten] if layer.kind == "conv"]
    count = params[convolutions[-1]]["kernel"].shape[-1] if convolutions else channels()
    return {layers[flatten + 1].name: count}


def check_layouts(model: Model, variables: Mapping[str, PyTree], shape: tuple[int, ...]) -> None:
    """Checks that a custom network can be carried over.

    Raises:
      ValueError: a parameter is of a layer whose layout is not known, or images with several
        channels are flattened, so that the order of the next layer's inputs would be Flax's.
    """
    known: set[str] = set()

    def note(method: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, LAYERS):
            known.add("/".join(context.module.path))
        return method(*args, **kwargs)

    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    with nn.intercept_methods(note):
        jaxpr = jax.make_jaxpr(lambda v, x: model.apply(v, x, False, {})[0])(variables, x)
    for name in named_leaves(variables["params"]):
        if name.rpartition("/")[0] not in known:
            accepted = ", ".join(layer.__name__ for layer in LAYERS)
            raise ValueError(
                f"{name} has a layout that is not known; accepted: leaves of {accepted}"
            )
    for before, after in _reshapes(jaxpr.jaxpr):
        if len(before) == 4 and len(after) == 2 and before[1] * before[2] > 1 and before[3] > 1:
            raise ValueError(
                f"it flattens images of {'×'.join(map(str, before[1:]))}, and which layer sees "
                "that is not known; accepted: one channel, one pixel, or a mean over pixels"
            )


def _reshapes(jaxpr: Any) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    for equation in jaxpr.eqns:
        if equation.primitive.name == "reshape":
            yield equation.invars[0].aval.shape, equation.outvars[0].aval.shape
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _reshapes(inner)


def is_custom(model: str) -> bool:
    """Returns whether a network is of none of the zoo's families."""
    return model not in MODELS or not MODELS[model].module.__module__.startswith("lth_jax.models.")


def save(path: Path, origin: Origin, what: str, arrays: Mapping[str, np.ndarray]) -> int:
    """Writes a `state_dict` as safetensors to exactly `path`; returns its size in bytes.

    Raises:
      StoreError: it cannot be written.
    """
    return containers.write(
        path, arrays, origin.metadata(containers.PYTORCH) | {"what": json.dumps(what)}
    )


def _split(name: str) -> tuple[str, str]:
    layers, _, leaf = name.rpartition("/")
    return layers.replace("/", "."), leaf


def _layout(name: str, leaf: np.ndarray, kind: str, channels: int) -> np.ndarray:
    if kind != "kernel":
        return leaf
    if leaf.ndim == 4:
        return leaf.transpose(3, 2, 0, 1)  # HWIO -> OIHW
    if leaf.ndim == 2:
        inputs, outputs = leaf.shape
        by_channel = leaf.reshape(inputs // channels, channels, outputs)
        return by_channel.transpose(2, 1, 0).reshape(outputs, inputs)
    raise ValueError(
        f"{name} has {leaf.ndim} dimensions; accepted: kernels of linear layers and of "
        "two-dimensional convolutions"
    )
