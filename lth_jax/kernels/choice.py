"""What computes a network's layers: XLA, or native kernels where they pay."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from lth_jax.kernels.build import Unavailable, load
from lth_jax.kernels.convolution import native_convolutions
from lth_jax.kernels.layers import Layer, find_layers
from lth_jax.kernels.packing import Layout, layout_of
from lth_jax.trees import PyTree, count_true, named_leaves


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

    def layout(self, level: int, mask: PyTree, packable: Callable[[str], bool]) -> Layout:
        """The leaves of a run to pack, and the lengths of their vectors; empty for none.

        A fixed rule on kind, size and density decides, so that a run always takes the same path.

        Args:
          level: the run's.
          mask: its mask.
          packable: whether the pruned weights of the leaf of that name are zero, so that the
            surviving ones say all.
        """
        if not self.layers or level == 0:
            return ()
        leaves = named_leaves(mask)
        kept = {name: count_true(leaves[name]) for name in self.layers}
        sizes = {name: math.prod(layer.shape) for name, layer in self.layers.items()}
        chosen = {
            name: kept[name]
            for name, layer in self.layers.items()
            if (self.choice == "sparse" or pays(layer, kept[name])) and packable(name)
        }
        return layout_of(chosen, sizes, max(sizes.values()))

    @contextlib.contextmanager
    def tracing(self) -> Iterator[None]:
        """Within, what is traced uses these kernels."""
        with native_convolutions() if self.convolutions else contextlib.nullcontext():
            yield


XLA = Kernels()
# A dense layer pays at or below this density; a smaller one takes no time worth saving.
DENSE_DENSITY, LEAST_WEIGHTS = 0.5, 10_000
# A weight of a packed convolution takes as long as two of a dense one, and dealing a channel to
# planes and back as long as 12 weights do. Both fitted to forward and gradients of 30 shapes, from
# LeNet-5's to VGG's, at densities of 5 to 60%, against native dense convolutions on one core.
CONV_DENSITY, WEIGHTS_PER_CHANNEL = 0.45, 12


def pays(layer: Layer, kept: int) -> bool:
    """Whether a layer with `kept` surviving weights is faster packed than dense."""
    size = math.prod(layer.shape)
    if layer.kind == "dense":
        return size >= LEAST_WEIGHTS and kept <= DENSE_DENSITY * size
    channels = sum(layer.shape[-2:])
    return kept + WEIGHTS_PER_CHANNEL * channels <= CONV_DENSITY * size


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
    layers = {name: layer for name, layer in layers.items() if wanted == "sparse" or pays(layer, 0)}
    try:
        if convolutions:
            load("dense_conv", folder)
        for kind in sorted({layer.kind for layer in layers.values()}):
            load(f"sparse_{kind}", folder)
    except Unavailable as error:
        if wanted == "sparse":
            raise
        return Kernels(note=f"no native kernels, XLA computes everything: {error}")
    return Kernels(wanted, layers, convolutions > 0)
