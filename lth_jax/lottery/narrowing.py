"""Which runs are trained as narrow networks: those whose pruned channels can be left out."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import cached_property, partial

import jax
import numpy as np
import optax

from lth_jax.models.base import Model
from lth_jax.native.choice import OTHER_TIME, XLA
from lth_jax.native.packing import zero_where_pruned
from lth_jax.pruning.channels import Channels
from lth_jax.pruning.masks import ones_mask
from lth_jax.pruning.trees import PyTree, named_leaves
from lth_jax.training.narrowing import Narrow, is_same_program, narrow_shapes
from lth_jax.training.states import TrainState


class Narrowing:
    """An experiment's channels, and whether its network can be computed without some of them.

    Args:
      channels: those that may be pruned.
      model: the network.
      example: the shape of an input, [1, …].
    """

    def __init__(self, channels: Channels, model: Model, example: jax.ShapeDtypeStruct):
        self.channels, self.example = channels, example
        self._apply = partial(XLA.apply(model.apply), ())
        self._shapes = jax.eval_shape(model.init, jax.random.key(0), example)
        self._reasons: dict[Hashable, str] = {}

    @cached_property
    def note(self) -> str:
        """One line for people where runs are trained at full size, else empty.

        It is found out with one channel fewer in each layer.
        """
        full = ones_mask(self._shapes["params"])
        alive = {
            name: np.arange(units) >= min(1, units - 1)
            for name, units in self.channels.units.items()
        }
        reason = self._reason(Narrow(self.channels, self.channels.mask(alive, full)))
        if not reason:
            return ""
        return f"pruned channels stay in the network as zeros while it trains: {reason}"

    def form(
        self, mask: PyTree, state: TrainState, optimizer: optax.GradientTransformation
    ) -> Narrow | None:
        """Returns the form of a run without its pruned channels; None where these must stay.

        Args:
          mask: of the run.
          state: that it starts from. Where pruned weights or their moments are not zero there, what
            is left does not say all.
          optimizer: of the run; it must treat each number by itself.
        """
        form = Narrow(self.channels, mask)
        if form.is_whole() or self.note or self._reason(form):
            return None
        is_zero = zero_where_pruned(optimizer, state, mask)
        pruned = [name for name, leaf in named_leaves(mask).items() if not np.all(leaf)]
        return form if all(map(is_zero, pruned)) else None

    def _reason(self, form: Narrow) -> str:
        # The zoo's networks are the same at any width. Others may ask for sizes as they like, so
        # that each form is looked at: once, which takes a hundredth of what compiling it takes.
        if form.form not in self._reasons:
            shapes = narrow_shapes(form, self._shapes)
            self._reasons[form.form] = is_same_program(
                self._apply, self._shapes, shapes, self.example
            )
        return self._reasons[form.form]


def narrow_cost(
    densities: Mapping[str, float], operations: Mapping[str, float]
) -> tuple[Hashable, float]:
    """Returns what a narrow level will be: what tells its program from others, and a step's cost.

    Args:
      densities: of its leaves, by name.
      operations: of the whole network's leaves, those that take part in products.

    Returns:
      What its program depends on, and the cost in times of a step of the dense network.
    """
    left = sum(densities.get(name, 1.0) * count for name, count in operations.items())
    share = left / sum(operations.values())
    return tuple(sorted(densities.items())), OTHER_TIME + (1 - OTHER_TIME) * share
