"""Which layers of a network native code computes, and which of them packed: where that pays."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import optax

from lth_jax.native.build import Unavailable, load
from lth_jax.native.dense_product import LEAST_OUTPUTS
from lth_jax.native.dispatch import Dispatch, dispatching
from lth_jax.native.layers import Layer, find_layers
from lth_jax.native.packing import Layout, Packed, layout_of, zero_where_pruned
from lth_jax.native.sparse import TILE
from lth_jax.pruning.trees import PyTree, count_true, named_leaves
from lth_jax.training.parameterization import DENSE, Apply, Parameterization
from lth_jax.training.states import TrainState


@dataclasses.dataclass(frozen=True)
class NativeCode:
    """What of one network native code computes.

    Attributes:
      choice: `xla`, `auto` or `sparse`: what was asked for, as far as it can be had.
      layers: the layers that can be packed, by the name of their kernel's leaf.
      products: the names of the kernels of dense layers that are native where they are not packed.
      convolutions: whether convolutions are native where they are not packed.
      note: one line for people where things are not as asked for, else empty.
    """

    choice: str = "xla"
    layers: Mapping[str, Layer] = dataclasses.field(default_factory=dict)
    products: frozenset[str] = frozenset()
    convolutions: bool = False
    note: str = ""

    def apply(self, apply: Callable[..., Any]) -> Apply:
        """Returns a network's `apply` as the loop calls it; the constants are its index tables."""

        def applied(tables: Any, *arguments: Any) -> Any:
            dispatch = Dispatch(tables or {}, self.products, self.convolutions)
            with dispatching(dispatch):
                return apply(*arguments)

        return applied

    def parameterization(
        self, level: int, mask: PyTree, state: TrainState, optimizer: optax.GradientTransformation
    ) -> Parameterization:
        """Returns the form in which a run is trained: packed where that pays, else dense.

        Args:
          level: of the run; the dense network is never packed.
          mask: of the run.
          state: that it starts from. A layer whose pruned weights, or their moments, are not zero
            there stays dense, since its surviving weights do not say all.
          optimizer: of the run.
        """
        layout = self.layout(level, mask, zero_where_pruned(optimizer, state, mask))
        return Packed(layout, self.layers, mask) if layout else DENSE

    def column(self, form: Parameterization) -> str:
        """Returns what `results.csv` says in its column `kernel` of a run in that form."""
        if form.form:
            return "sparse"
        return "native" if self.convolutions or self.products else "xla"

    def layout(self, level: int, mask: PyTree, packable: Callable[[str], bool]) -> Layout:
        """Returns which leaves of a run are packed, and the lengths of their vectors.

        A fixed rule on kinds, shapes and densities decides, never a timing, so that a run always
        takes the same path and has the same bits. Under `auto` all layers of a kind are packed
        together, at the level where that pays for all as a whole: one by one, each that joins would
        need another program.

        Args:
          level: of the run.
          mask: of the run.
          packable: says of a leaf, by its name, whether its surviving weights say all of it.
        """
        if not self.layers or level == 0:
            return ()
        leaves = named_leaves(mask)
        kept = {name: count_true(leaves[name]) for name in self.layers if packable(name)}
        if self.choice == "auto":
            paid = {kind for kind in ("dense", "conv") if self._pays(kind, kept)}
            kept = {name: some for name, some in kept.items() if self.layers[name].kind in paid}
        sizes = {name: math.prod(layer.shape) for name, layer in self.layers.items()}
        return layout_of(kept, sizes, max(sizes.values()))

    def _pays(self, kind: str, kept: Mapping[str, int]) -> bool:
        """Returns whether layers of that kind, with `kept` surviving weights, are faster packed."""
        of_kind = {name: self.layers[name] for name in kept if self.layers[name].kind == kind}
        packed = sum(packed_time(layer, kept[name]) for name, layer in of_kind.items())
        return packed <= sum(dense_time(layer) for layer in of_kind.values())


XLA = NativeCode()
# The time that a surviving weight of a packed layer takes, in times of one of a native dense layer.
# Of dense layers where a third of the inputs are zero, as in images of digits, and with what the
# optimizer saves: LeNet's level at 41% is faster packed, that at 51% is not.
DENSE_WEIGHT_TIME = 1 / 0.45
CONV_WEIGHT_TIME = 1 / 0.45
# To deal a channel of a convolution to planes and back takes as long as so many surviving weights
# do. Both are fitted to forward and gradients of 30 shapes, from LeNet-5's to VGG's, at densities
# of 5 to 60%, on one core.
WEIGHTS_PER_CHANNEL = 12
# A smaller dense layer takes no time worth saving.
LEAST_WEIGHTS = 10_000
# Dense layers up to these many weights, of so many examples, are native: on one or two cores they
# take as long as XLA's where no input is zero, and less where some are. Larger kernels do not stay
# in a core's second cache.
MOST_PRODUCT_WEIGHTS, PRODUCT_EXAMPLES = 300_000, range(32, 1025)


def dense_time(layer: Layer) -> float:
    """Returns what a layer costs that is not packed: its multiply-adds for a batch."""
    return math.prod(layer.shape) * layer.applied


def packed_time(layer: Layer, kept: int) -> float:
    """Returns what a packed layer with `kept` surviving weights costs, in units of `dense_time`."""
    if layer.kind == "dense":
        examples = -(-layer.applied // TILE) * TILE
        return kept * examples * DENSE_WEIGHT_TIME
    overhead = WEIGHTS_PER_CHANNEL * sum(layer.shape[-2:])
    return (kept + overhead) * layer.applied * CONV_WEIGHT_TIME


def can_pay(layer: Layer) -> bool:
    """Returns whether a layer is faster packed at a tenth of its weights, and has time to save."""
    size = math.prod(layer.shape)
    if layer.kind == "dense" and size < LEAST_WEIGHTS:
        return False
    return packed_time(layer, size // 10) <= dense_time(layer)


def can_be_native(layer: Layer) -> bool:
    """Returns whether a dense layer that is not packed is best computed natively."""
    return (
        layer.kind == "dense"
        and layer.shape[1] >= LEAST_OUTPUTS
        and LEAST_WEIGHTS <= math.prod(layer.shape) <= MOST_PRODUCT_WEIGHTS
        and layer.applied in PRODUCT_EXAMPLES
    )


def choose(
    wanted: str,
    folder: Path,
    apply: Callable[..., Any],
    variables: PyTree,
    x: jax.ShapeDtypeStruct,
) -> NativeCode:
    """Returns what native code computes of a network; builds it where that has not happened yet.

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
        return NativeCode(
            note="every layer stays with XLA: none is a float32 Dense or Conv of Linen"
        )
    products = frozenset(name for name, layer in layers.items() if can_be_native(layer))
    layers = {name: layer for name, layer in layers.items() if wanted == "sparse" or can_pay(layer)}
    sparse_kinds = {"dense": "sparse_product", "conv": "sparse_conv"}
    kinds = {sparse_kinds[layer.kind] for layer in layers.values()}
    unpacked = {"dense_conv": convolutions, "dense_product": products}
    kinds |= {kind for kind, layers_of_kind in unpacked.items() if layers_of_kind}
    try:
        load(sorted(kinds), folder)
    except Unavailable as error:
        if wanted == "sparse":
            raise
        return NativeCode(note=f"no native kernels, XLA computes everything: {error}")
    return NativeCode(wanted, layers, products, convolutions > 0)
