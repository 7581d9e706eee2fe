"""What memory an experiment needs at least, and what there is: too large ones are never built.

The estimate is a lower bound. What networks compute on their way, their activations, is not in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax

from lth_jax.config import Spec
from lth_jax.data import Facts
from lth_jax.errors import SpecError
from lth_jax.lottery.network import Network
from lth_jax.system import machine


def check_memory(
    spec: Spec, network: Network, facts: Facts, init_optimizer: Callable[..., Any]
) -> None:
    """Checks that the images and the networks of the largest level fit in this machine's memory.

    Args:
      spec: the spec.
      network: its network.
      facts: of its dataset, before images are scaled.
      init_optimizer: gives the optimizer's state for parameters.

    Raises:
      SpecError: they do not; one line that names what takes most.
    """
    there_is = machine.memory()
    count = facts.train + facts.test
    # A byte for each value, in uint8; images that stay on disk are never all in memory.
    images = 0 if facts.stored else count * math.prod(network.shape)
    runs = spec.replicates * _runs_of_a_replicate(spec)
    networks = runs * _run_bytes(network.params, init_optimizer)
    if images + networks <= there_is:
        return
    if images > networks:
        fields = {"side": spec.data.side, "channels": spec.data.channels, "name": spec.data.name}
        name = next(name for name, value in fields.items() if value)
        place = f"data.{name}={fields[name]!r}"
        size = "×".join(map(str, network.shape))
        what, accepted = f"{count:,} images of {size}", "smaller images"
    else:
        parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(network.params))
        place = f"model.name={spec.model.name!r}"
        what = f"{runs:,} runs side by side of {parameters:,} parameters"
        accepted = "a smaller network, or fewer replicates or draws"
    needed, left = (f"{amount / machine.GIB:,.1f}" for amount in (images + networks, there_is))
    raise SpecError(
        f"config.{place}: {what} take at least {needed} GiB of memory, of which there are {left}; "
        f"accepted: {accepted}"
    )


def _runs_of_a_replicate(spec: Spec) -> int:
    """Returns how many runs of one replicate the largest level trains: all are in memory."""
    branches = [spec.branch_spec(name) for name in spec.branches]
    everywhere = sum(branch.draws for branch in branches if not branch.levels)
    named = {level for branch in branches for level in branch.levels}
    most = max(
        (sum(branch.draws for branch in branches if level in branch.levels) for level in named),
        default=0,
    )
    return 1 + (everywhere + most if spec.levels else 0)


def _run_bytes(params: Any, init_optimizer: Callable[..., Any]) -> int:
    """Returns what a run holds: parameters, those of its early stop, optimizer's state, mask."""
    leaves = jax.tree.leaves(params)
    state = jax.tree.leaves(jax.eval_shape(init_optimizer, params))
    held = [*leaves, *leaves, *state]
    mask = sum(math.prod(leaf.shape) for leaf in leaves)
    return mask + sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in held)
