"""Serving layers natively inside any Flax Linen network, without a change to it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Set
from functools import partial
from typing import Any

import flax.linen as nn
import jax

from lth_jax.native.layers import kernel_name, window_of
from lth_jax.native.product import product
from lth_jax.native.sparse import Tables, sparse_conv, sparse_dense


@contextlib.contextmanager
def packed_layers(tables: Mapping[str, Tables]) -> Iterator[None]:
    """Within, layers whose kernel `tables` names take it packed.

    Args:
      tables: by the name of the kernel's leaf; empty for none.
    """
    if not tables:
        yield
        return

    def serve(method, args, kwargs, context):
        module = context.module
        if context.method_name == "__call__" and type(module) in (nn.Dense, nn.Conv):
            name = kernel_name(module)
            if name in tables:
                return _output(module, tables[name], *args)
        return method(*args, **kwargs)

    with nn.intercept_methods(serve):
        yield


@contextlib.contextmanager
def native_products(names: Set[str]) -> Iterator[None]:
    """Within, dense layers whose kernel is named, and is not packed, are computed natively.

    Their library must be loaded (`build.load`) before what was traced is compiled.

    Args:
      names: of the kernels' leaves; empty for none.
    """
    if not names:
        yield
        return

    def serve(method, args, kwargs, context):
        module = context.module
        if context.method_name == "__call__" and type(module) is nn.Dense:
            kernel = module.get_variable("params", "kernel")
            if kernel_name(module) in names and kernel.ndim == 2:
                return _with_bias(module, _of_examples(lambda x: product(x, kernel), *args))
        return method(*args, **kwargs)

    with nn.intercept_methods(serve):
        yield


def _output(module: Any, tables: Tables, x: jax.Array) -> jax.Array:
    values = module.get_variable("params", "kernel")
    if type(module) is nn.Conv:
        return _with_bias(module, sparse_conv(values, tables, x, window_of(module, x)))
    return _with_bias(module, _of_examples(partial(sparse_dense, values, tables), x))


def _of_examples(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """`function` of [n, in], of x [.., in]."""
    out = function(x.reshape(-1, x.shape[-1]))
    return out.reshape(*x.shape[:-1], out.shape[-1])


def _with_bias(module: Any, out: jax.Array) -> jax.Array:
    if not module.use_bias:
        return out
    bias = module.get_variable("params", "bias")
    return out + bias.reshape((1,) * (out.ndim - 1) + (-1,))
