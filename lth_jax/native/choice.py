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
from lth_jax.native.chain import Chain, find_chain
from lth_jax.native.dense_product import LEAST_OUTPUTS
from lth_jax.native.dispatch import Dispatch, dispatching
from lth_jax.native.layers import Layer, find_layers
from lth_jax.native.operations import NATIVE
from lth_jax.native.packing import Layout, Packed, layout_of, zero_where_pruned
from lth_jax.native.sparse import TILE
from lth_jax.pruning.trees import PyTree, count_true, named_leaves
from lth_jax.training.backend import platform as default_platform
from lth_jax.training.operations import Operations
from lth_jax.training.parameterization import DENSE, Apply, Parameterization
from lth_jax.training.states import TrainState


@dataclasses.dataclass(frozen=True)
class NativeCode:
    """What of one network, and of its training, native code computes.

    Attributes:
      choice: `xla`, `auto` or `sparse`: what was asked for, as far as it can be had. Under the last
        two the loop's own operations are native.
      layers: the layers that can be packed, by the name of their kernel's leaf.
      products: the names of the kernels of dense layers that are native where they are not packed.
      convolutions: whether convolutions are native where they are not packed.
      chain: the chain of dense layers that the network is, if it is one: the loss of its packed
        runs, and its gradients, are one native call.
      note: one line for people where things are not as asked for, else empty.
      platform: that programs are compiled for; None for JAX's own choice. On any but a CPU, XLA
        computes everything, convolutions as JAX has them.
    """

    choice: str = "xla"
    layers: Mapping[str, Layer] = dataclasses.field(default_factory=dict)
    products: frozenset[str] = frozenset()
    convolutions: bool = False
    chain: Chain | None = None
    note: str = ""
    platform: str | None = None

    def apply(self, apply: Callable[..., Any]) -> Apply:
        """Returns a network's `apply` as the loop calls it; the constants are its index tables."""

        def applied(tables: Any, *arguments: Any) -> Any:
            dispatch = Dispatch(
                tables or {},
                self.products,
                self.convolutions,
                platform=self.platform,
                narrow=True,
            )
            with dispatching(dispatch):
                return apply(*arguments)

        return applied

    @property
    def operations(self) -> Operations:
        """What the loop calls for all but the network."""
        return Operations() if self.choice == "xla" else NATIVE

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

    def parameterization_of(self, level: int, mask: PyTree) -> Parameterization:
        """Returns that of a run whose pruned weights and their moments are zeros, by its mask."""
        layout = self.layout(level, mask, lambda _: True)
        return Packed(layout, self.layers, mask) if layout else DENSE

    def column(self, form: Parameterization) -> str:
        """Returns what `results.csv` says in its column `kernel` of a run in that form."""
        if isinstance(form, Packed):
            return "sparse"
        return "xla" if self.choice == "xla" else "native"

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
        return self._layout(
            {name: count_true(leaves[name]) for name in self.layers if packable(name)}
        )

    def layout_of_counts(self, level: int, kept: Mapping[str, int]) -> Layout:
        """Returns `layout` of masks to come that keep so many weights; of leaves not named, all."""
        if not self.layers or level == 0:
            return ()
        sizes = {name: math.prod(layer.shape) for name, layer in self.layers.items()}
        return self._layout({name: kept.get(name, size) for name, size in sizes.items()})

    def expected(self, level: int, densities: Mapping[str, float]) -> tuple[Layout, float]:
        """Returns what a level will be, before there are masks, to tell how long it takes.

        Args:
          level: which.
          densities: of its leaves, by name.

        Returns:
          Which leaves are packed, and what a step costs, in times of one of the dense network.
        """
        if not self.layers or level == 0:
            return (), 1.0
        sizes = {name: math.prod(layer.shape) for name, layer in self.layers.items()}
        kept = {name: round(densities.get(name, 1.0) * size) for name, size in sizes.items()}
        layout = self._layout(kept)
        packed = dict(layout)
        dense = {name: dense_time(layer) for name, layer in self.layers.items()}
        cost = sum(
            packed_time(self.layers[name], kept[name]) if name in packed else dense[name]
            for name in dense
        )
        return layout, OTHER_TIME + (1 - OTHER_TIME) * cost / sum(dense.values())

    def _layout(self, kept: dict[str, int]) -> Layout:
        """Returns `layout` of layers with so many surviving weights."""
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
CONV_WEIGHT_TIME = 2.5
# To deal a channel of a convolution to planes and back takes as long as so many surviving weights
# do. Both lie between what two processors ask for, each measured on one core. Where a layer of 64
# channels or more is dense by Winograd's way, an idle Zen 4 takes as long packed from 8 to 9% of
# its weights on, a Zen 5 beside other work from 10 to 16% (by this rule 11 to 12%); of 16 to 48
# channels from 10 to 15%, and from 19 to 28% (13 to 16%).
WEIGHTS_PER_CHANNEL = 12
# The share of a dense step's time that no mask saves: gathering a batch, and the loop's own steps.
# Fitted to LeNet's levels from 41 to 0.5% of the weights.
OTHER_TIME = 0.12
# A smaller dense layer takes no time worth saving.
LEAST_WEIGHTS = 10_000
# Dense layers up to these many weights, of so many examples, are native: on one or two cores they
# take as long as XLA's where no input is zero, and less where some are. Larger kernels do not stay
# in a core's second cache.
MOST_PRODUCT_WEIGHTS, PRODUCT_EXAMPLES = 300_000, range(32, 1025)


def dense_time(layer: Layer) -> float:
    """Returns what a layer costs that is not packed: its multiply-adds for a batch."""
    return (layer.winograd or math.prod(layer.shape)) * layer.applied


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
    platform: str | None = None,
) -> NativeCode:
    """Returns what native code computes of a network; builds it where that has not happened yet.

    Args:
      wanted: `xla`, `auto` or `sparse`.
      folder: where built libraries are kept.
      apply, variables, x: the network, and shapes of its variables and of a batch.
      platform: that its programs are compiled for; None for JAX's own choice.

    Raises:
      Unavailable: `sparse` cannot be had here; one line says why.
    """
    if wanted == "xla" or (platform or default_platform()) != "cpu":
        return NativeCode(platform=platform)
    layers, convolutions = find_layers(apply, variables, x)
    products = frozenset(name for name, layer in layers.items() if can_be_native(layer))
    chain = find_chain(apply, variables, x, layers)
    note = ""
    if not layers and not convolutions:
        note = "every layer stays with XLA: none is a float32 Dense or Conv of Linen"
    layers = {name: layer for name, layer in layers.items() if wanted == "sparse" or can_pay(layer)}
    sparse_kinds = {"dense": "sparse_product", "conv": "sparse_conv"}
    kinds = {"loop"} | {sparse_kinds[layer.kind] for layer in layers.values()}
    unpacked = {
        "dense_conv": convolutions,
        # Always beside it: batches of an evaluation have another size, by which this may be best.
        "winograd_conv": convolutions,
        "dense_product": products,
    }
    if not layers:
        chain = None  # which no run of it is packed for
    kinds |= {kind for kind, found in {**unpacked, "chain": chain}.items() if found}
    try:
        load(sorted(kinds), folder)
    except Unavailable as error:
        # `auto` means the fastest there is, which then is XLA; `sparse` was asked for by its name.
        if wanted == "sparse":
            raise
        note = f"no native kernels, XLA computes everything: {error}"
        return NativeCode(note=note, platform=platform)
    return NativeCode(wanted, layers, products, convolutions > 0, chain, note, platform)
