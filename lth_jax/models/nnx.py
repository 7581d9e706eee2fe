"""NNX modules as a pair of pure functions: split into graph and variables, merged when called."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from lth_jax.models.base import Model, PyTree, Variables
from lth_jax.native.dispatch import conv_general_dilated


def from_nnx(make: Callable[[nnx.Rngs], nnx.Module]) -> Model:
    """Returns the pair of functions of an NNX module that is called with images alone: `module(x)`.

    Its `nnx.Param` variables are the parameters, by their path in the module (`blocks/0/kernel`);
    all others, such as batch statistics, are `state`, except random streams: those start anew in
    every call, from the key of the step. `module.train()` or `module.eval()` is called before it.

    Args:
      make: builds the module from `nnx.Rngs` that have the streams `params` and `dropout`:
        `lambda rngs: MyNet(classes, rngs=rngs)`.
    """

    @functools.cache
    def template() -> tuple[Any, ...]:
        """Returns the graph, and the shapes of parameters, of random streams, and of all else."""
        with jax.ensure_compile_time_eval():
            module = nnx.eval_shape(lambda: make(_streams(jax.random.key(0))))
        return nnx.split(module, nnx.Param, nnx.RngState, ...)

    def init(key: jax.Array, x: jax.Array) -> Variables:
        del x  # an NNX module knows its shapes
        module = make(_streams(key))
        _, params, _, state = nnx.split(module, nnx.Param, nnx.RngState, ...)
        variables = {"params": _by_name(params), "state": _by_name(state)}
        return {name: tree for name, tree in variables.items() if tree}

    def apply(
        variables: Variables, x: jax.Array, train: bool, rngs: dict[str, jax.Array]
    ) -> tuple[jax.Array, PyTree]:
        graph, params, streams, state = template()
        key = rngs.get("dropout", jax.random.key(0))
        module = nnx.merge(
            graph,
            _filled(params, variables["params"]),
            _begun(streams, key),
            _filled(state, variables.get("state", {})),
            copy=True,
        )
        for _, node in nnx.iter_graph(module):
            if isinstance(node, nnx.Conv) and node.conv_general_dilated is _JAX_CONVOLUTION:
                node.conv_general_dilated = conv_general_dilated
        (module.train if train else module.eval)()
        logits = module(x)  # pyright: ignore[reportCallIssue]
        rest = {name: tree for name, tree in variables.items() if name != "params"}
        if train and rest:
            rest = {"state": _by_name(nnx.split(module, nnx.Param, nnx.RngState, ...)[3])}
        return logits, rest

    return Model(init, apply)


_JAX_CONVOLUTION = jax.lax.conv_general_dilated


def _streams(key: jax.Array) -> nnx.Rngs:
    return nnx.Rngs(params=jax.random.fold_in(key, 0), dropout=jax.random.fold_in(key, 1))


def _by_name(state: Any) -> dict[str, Any]:
    """Returns nested dicts of arrays; every key is a string, as in checkpoints."""
    flat = {tuple(map(str, path)): leaf[...] for path, leaf in nnx.to_flat_state(state)}
    return unflatten_dict(flat)


def _filled(state: Any, values: Mapping[str, Any]) -> Any:
    """Fills a state of shapes with arrays, nested as `_by_name` gives them."""
    flat = flatten_dict(dict(values))
    return nnx.from_flat_state(
        [
            (path, leaf.replace(flat[tuple(map(str, path))]))
            for path, leaf in nnx.to_flat_state(state)
        ]
    )


def _begun(streams: Any, key: jax.Array) -> Any:
    """Sets random streams to their beginning, each with a key of its own."""
    return nnx.from_flat_state(
        [
            (
                path,
                leaf.replace(
                    jax.random.fold_in(key, index)
                    if isinstance(leaf, nnx.RngKey)
                    else jnp.zeros(leaf.shape, leaf.dtype)
                ),
            )
            for index, (path, leaf) in enumerate(nnx.to_flat_state(streams))
        ]
    )
