"""JAX as the environment sets it up, as far as that has a meaning for training."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import jax

from lth_jax.errors import RunError, SpecError, UserError, first_line
from lth_jax.system.machine import GIB, LEAST_ADDRESSES, addresses

P = ParamSpec("P")
T = TypeVar("T")


@contextlib.contextmanager
def prepared(warn: Callable[[str], None]) -> Iterator[None]:
    """Checks that JAX can work here before anything is built, and says what fails for its reasons.

    Within, numbers have 32 bits whatever `JAX_ENABLE_X64` says: programs that are traced with it
    are others, and results would not be the same bits.

    Args:
      warn: takes a line on what the environment asks for and does not get.

    Raises:
      SpecError: there is no such device, nothing may be compiled, or memory is too little; one
        line that names the variable or the limit.
      RunError: the memory ran out, or a NaN was found that `JAX_DEBUG_NANS` looks for.
    """
    limit = addresses()
    if limit is not None and limit < LEAST_ADDRESSES:
        raise SpecError(
            f"ulimit -v: {limit / GIB:.1f} GiB of addresses; accepted: at least "
            f"{LEAST_ADDRESSES // GIB} GiB (ulimit -v {LEAST_ADDRESSES // 1024}), or unlimited"
        )
    if _configured("jax_disable_jit"):
        raise SpecError(
            f"JAX_DISABLE_JIT={_asked('JAX_DISABLE_JIT')}: training is one compiled program; "
            "accepted: 0 (JAX_DEBUG_NANS=1 finds what is not a number)"
        )
    try:
        jax.devices()
    except Exception as error:  # of kinds that differ by platform
        raise SpecError(
            f"JAX_PLATFORMS={_asked('JAX_PLATFORMS')}: no such device can be used here "
            f"({first_line(error)}); accepted: cpu, or none to take what there is"
        ) from error
    if _is_wide():
        warn("JAX_ENABLE_X64 has no effect: training computes in 32 bits, and gives the same bits")
    try:
        with _narrow():
            yield
    except UserError:
        raise
    except Exception as error:
        if type(error).__name__.endswith("FloatingPointError"):  # one of its kinds is private
            raise RunError(f"JAX_DEBUG_NANS, JAX_DEBUG_INFS: {first_line(error)}") from error
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            raise RunError(f"the memory ran out: {first_line(error)}") from error
        raise


def platform() -> str:
    """Returns the platform that programs are compiled for which are not told another one."""
    device = _configured("jax_default_device")
    if device is None:
        return jax.default_backend()
    return device if isinstance(device, str) else device.platform


def precise(precision: str) -> contextlib.AbstractContextManager[object]:
    """Makes float32 products within as exact as JAX's word for it says, of what is traced there.

    A CPU has one way to compute them, which is `highest`: there it changes nothing, not even the
    program's text.
    """
    exact = precision if platform() != "cpu" else None
    return jax.default_matmul_precision(exact) if exact else contextlib.nullcontext()


def in_32_bits(function: Callable[P, T]) -> Callable[P, T]:
    """Returns `function` for threads that train within `prepared`: with numbers of 32 bits.

    Its products are as exact as they are where this is called, since JAX asks each thread.
    """
    exact = _configured("jax_default_matmul_precision")

    @functools.wraps(function)
    def narrowed(*args: P.args, **kwargs: P.kwargs) -> T:
        products = jax.default_matmul_precision(exact) if exact else contextlib.nullcontext()
        with _narrow(), products:
            return function(*args, **kwargs)

    return narrowed


def _narrow() -> contextlib.AbstractContextManager[object]:
    # For this thread alone: in others, a caller's own work may go on in 64 bits.
    return jax.enable_x64(False) if _is_wide() else contextlib.nullcontext()


def _is_wide() -> bool:
    return _configured("jax_enable_x64")


def _configured(name: str) -> Any:
    return getattr(jax.config, name)  # JAX does not declare what it has


def _asked(variable: str) -> str:
    return os.environ.get(variable, "")
