"""What computes each layer of a network: native code, or XLA.

While a network is traced, one interceptor of Flax Linen's modules, and the convolution function
that NNX modules are given, ask the `Dispatch` in force. So a network is never changed to be
computed natively, and there is one place that decides.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from lth_jax.native.dense_conv import dense_conv, winograd_cost
from lth_jax.native.dense_product import LEAST_OUTPUTS, dense_product
from lth_jax.native.sparse import Tables, Window, sparse_conv, sparse_product
from lth_jax.native.xla_convolution import LAYOUT, xla_conv
from lth_jax.training.backend import platform


class Dispatch(NamedTuple):
    """What computes the layers of the networks that are traced while this is in force.

    Native libraries must be loaded (`build.load`) before what was traced is compiled.

    Attributes:
      tables: the index tables of packed layers, by the name of their kernel's leaf. Such a layer is
        computed from its surviving weights.
      products: the names of the kernels of dense layers that are native where they are not packed.
      convolutions: whether plain float32 convolutions are native where they are not packed.
      watch: is told of every Dense and Conv of Linen that is called: (module, its kernel's name,
        its arguments). What it returns, if not None, is the layer's output.
      convolved: collects the kernel's shape of every native convolution.
      platform: that the networks will be compiled for; None for JAX's own choice.
      narrow: whether a Dense or Conv has as many outputs as its kernel has, not as it was made
        with: a network whose pruned channels are left out is applied so.
    """

    tables: Mapping[str, Tables] = {}
    products: Set[str] = frozenset()
    convolutions: bool = False
    watch: Callable[[nn.Module, str, tuple[Any, ...]], jax.Array | None] | None = None
    convolved: list[tuple[int, ...]] | None = None
    platform: str | None = None
    narrow: bool = False


# A context variable, since networks of several experiments may be traced in threads side by side.
_in_force: ContextVar[Dispatch] = ContextVar("dispatch", default=Dispatch())  # noqa: B039


@contextlib.contextmanager
def dispatching(dispatch: Dispatch) -> Iterator[None]:
    """Puts `dispatch` in force for what is traced within."""
    token = _in_force.set(dispatch)
    try:
        yield
    finally:
        _in_force.reset(token)


def kernel_name(module: nn.Module) -> str:
    """Returns the name of the leaf that a Linen layer's kernel is, such as `fc1/kernel`."""
    return "/".join((*module.path, "kernel"))


def intercept(
    method: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    context: nn.module.InterceptorContext,
) -> Any:
    """Computes a Linen layer as the dispatch in force says; for `flax.linen.intercept_methods`."""
    module, dispatch = context.module, _in_force.get()
    # These classes and no others: one derived from them may compute something else.
    if context.method_name == "__call__" and type(module) in (nn.Dense, nn.Conv):
        name = kernel_name(module)
        if dispatch.watch and (out := dispatch.watch(module, name, args)) is not None:
            return out
        if name in dispatch.tables:
            return _packed(module, dispatch.tables[name], *args)
        kernel = module.get_variable("params", "kernel")
        takes = name in dispatch.products and type(module) is nn.Dense
        if takes and kernel.shape[1] >= LEAST_OUTPUTS:  # a narrow layer may have fewer
            return _with_bias(module, _of_examples(lambda x: dense_product(x, kernel), *args))
    if dispatch.narrow and isinstance(module, nn.Dense | nn.Conv):
        _follow_kernel(module)
    if isinstance(module, nn.Conv) and module.conv_general_dilated is None:
        # The module is this call's own copy; Flax forbids only what would outlive it.
        object.__setattr__(module, "conv_general_dilated", conv_general_dilated)
    return method(*args, **kwargs)


def _follow_kernel(module: Any) -> None:
    """Gives a layer as many outputs as its kernel has, where it has one."""
    outputs = getattr(module.get_variable("params", "kernel"), "shape", (module.features,))[-1]
    if outputs != module.features:  # this call's own copy, too
        object.__setattr__(module, "features", outputs)


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **options: Any,
) -> jax.Array:
    """Computes `jax.lax.conv_general_dilated` as the dispatch in force says.

    Two-dimensional convolutions of NHWC images by HWIO kernels, ungrouped and undilated, are taken
    over on a CPU: by native code, or by XLA with gradients that are fast inside a compiled loop.
    All others go to JAX itself.
    """
    dispatch = _in_force.get()
    if not _is_plain(lhs, rhs, options) or (dispatch.platform or platform()) != "cpu":
        return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)
    strides = window_strides[0], window_strides[1]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], strides, padding)
    pads = tuple((int(low), int(high)) for low, high in padding)
    if dispatch.convolutions and _native_takes(lhs, rhs, pads):
        if dispatch.convolved is not None:
            dispatch.convolved.append(rhs.shape)
        sides = rhs.shape[0], rhs.shape[1]
        images, height, width, _ = Window(sides, strides, pads).out(lhs.shape, rhs.shape[3])
        winograd = winograd_cost(images, (height, width), rhs.shape, strides) > 0
        return dense_conv(lhs, rhs, strides, pads, winograd)
    return xla_conv(lhs, rhs, strides, pads)


def _is_plain(lhs: jax.Array, rhs: jax.Array, options: dict[str, Any]) -> bool:
    numbers = options.get("dimension_numbers")
    if lhs.ndim != 4 or numbers is None:
        return False
    layout = lax.conv_dimension_numbers(lhs.shape, rhs.shape, LAYOUT)
    given = lax.conv_dimension_numbers(lhs.shape, rhs.shape, numbers)
    dilations = (options.get("lhs_dilation"), options.get("rhs_dilation"))
    return (
        given == layout
        and all(dilation is None or set(dilation) == {1} for dilation in dilations)
        and options.get("feature_group_count", 1) == 1
        and options.get("batch_group_count", 1) == 1
        and options.get("precision") is None
        and options.get("preferred_element_type") is None
    )


def _native_takes(x: jax.Array, kernel: jax.Array, padding: Sequence[tuple[int, int]]) -> bool:
    """Returns whether native code knows such a convolution: float32, not empty, not cropping."""
    single = x.dtype == kernel.dtype == jnp.float32
    empty = 0 in x.shape or 0 in kernel.shape
    return single and not empty and min(map(min, padding)) >= 0


def _packed(module: Any, tables: Tables, x: jax.Array) -> jax.Array:
    values = module.get_variable("params", "kernel")
    if type(module) is nn.Conv:
        return _with_bias(module, sparse_conv(values, tables, x, window_of(module, x)))
    return _with_bias(module, _of_examples(partial(sparse_product, values, tables), x))


def _of_examples(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """Applies `function`, which takes [n, in], to x [.., in]."""
    out = function(x.reshape(-1, x.shape[-1]))
    return out.reshape(*x.shape[:-1], out.shape[-1])


def _with_bias(module: Any, out: jax.Array) -> jax.Array:
    if not module.use_bias:
        return out
    bias = module.get_variable("params", "bias")
    return out + bias.reshape((1,) * (out.ndim - 1) + (-1,))


def both(value: Any) -> tuple[Any, Any]:
    """Returns a value for rows and one for columns; Flax takes one for both, and None for 1."""
    if value is None:
        return 1, 1
    return (value, value) if isinstance(value, int) else tuple(value)


def window_of(module: Any, x: jax.Array) -> Window:
    """Returns how a convolution's kernel moves over images `x` [n, height, width, channels]."""
    padding = padding_of(module, x)
    assert padding is not None, "no such layer is found to be packable"
    return Window(tuple(module.kernel_size), both(module.strides), padding)


def padding_of(module: Any, x: jax.Array) -> tuple[tuple[int, int], ...] | None:
    """Returns the zeros that a convolution puts around images `x`; None if it puts other values."""
    padding = module.padding
    if isinstance(padding, str):
        if padding not in ("SAME", "VALID"):
            return None
        sides = tuple(module.kernel_size)
        padding = lax.padtype_to_pads(x.shape[1:3], sides, both(module.strides), padding)
    pairs = tuple(both(pair) for pair in both(padding))
    return pairs if min(map(min, pairs)) >= 0 else None
