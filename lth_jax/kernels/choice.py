"""What computes a network's layers: XLA, or native kernels where they pay."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from lth_jax.kernels.build import Unavailable, load
from lth_jax.kernels.convolution import native_convolutions
from lth_jax.kernels.layers import Layer, find_layers
from lth_jax.trees import PyTree


@dataclasses.dataclass(frozen=True)
class Kernels:
    """What computes the layers of one network.

    Attributes:
      choice: `xla`, `auto` or `sparse`, as far as it can be had.
      layers: those that can be packed, by the name of their kernel's leaf.
      convolutions: whether dense convolutions are native.
      note: one line for people where things are not as asked for, else empty.
    """

    choice: str = "xla"
    layers: Mapping[str, Layer] = dataclasses.field(default_factory=dict)
    convolutions: bool = False
    note: str = ""

    @property
    def dense(self) -> str:
        """What computes a run none of whose layers is packed, as `results.csv` says it."""
        return "native" if self.convolutions else "xla"

    @contextlib.contextmanager
    def tracing(self) -> Iterator[None]:
        """Within, what is traced uses these kernels."""
        with native_convolutions() if self.convolutions else contextlib.nullcontext():
            yield


XLA = Kernels()


def choose(
    wanted: str,
    folder: Path,
    apply: Callable[..., Any],
    variables: PyTree,
    x: jax.ShapeDtypeStruct,
) -> Kernels:
    """The kernels of a network, built where that has not happened yet.

    Args:
      wanted: `xla`, `auto` or `sparse`.
      folder: where built libraries are kept.
      apply, variables, x: the network, and shapes of its variables and of a batch.

    Raises:
      Unavailable: `sparse` cannot be had here; one line says why.
    """
    if wanted == "xla" or jax.default_backend() != "cpu":
        return XLA
    layers, convolutions = find_layers(apply, variables, x)
    if not layers and not convolutions:
        return Kernels(note="every layer stays with XLA: none is a float32 Dense or Conv of Linen")
    try:
        if convolutions:
            load("dense_conv", folder)
    except Unavailable as error:
        if wanted == "sparse":
            raise
        return Kernels(note=f"no native kernels, XLA computes everything: {error}")
    return Kernels(wanted, layers, convolutions > 0)
