"""What memory an experiment needs, and what there is.

Before anything is loaded, what surely does not fit is refused: that estimate is a lower bound, and
what networks compute on their way, their activations, is not in it. Before a level, its compiled
programs say what they take; where that is too much, less is done at once (`Portions`).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from lth_jax.config import Spec
from lth_jax.data import Facts
from lth_jax.errors import SpecError
from lth_jax.lottery.network import Network
from lth_jax.system import machine
from lth_jax.training.devices import Memory


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


class Need(NamedTuple):
    """What a group takes on each device, in bytes.

    Attributes:
      held: its runs' states and masks, from its beginning to its end.
      training: besides, while a chunk of it trains.
      evaluation: besides, while it is evaluated or tested.
    """

    held: int
    training: int
    evaluation: int


def need_of(programs: Mapping[str, Memory], examples: int) -> Need:
    """Returns what a group needs.

    Args:
      programs: what its compiled functions take, by name.
      examples: the bytes of the training examples, which are among what `train` is given.
    """
    besides = {name: memory.besides for name, memory in programs.items()}
    training = max(besides[name] for name in ("train", "gradients") if name in besides)
    evaluation = max(besides["evaluate"], besides["test"])
    return Need(max(0, programs["train"].arguments - examples), training, evaluation)


class AtOnce(NamedTuple):
    """How many groups are worked on at a time.

    Attributes:
      training: how many train side by side.
      begun: how many have their state on the devices.
    """

    training: int
    begun: int


def at_once(
    needs: Sequence[Need], examples: int, there_is: float, workers: int, *, on_host: bool
) -> AtOnce | None:
    """Returns how many of a level's groups fit in a device's memory; None if not even one does.

    Args:
      needs: of the groups.
      examples: the bytes of all examples, which are there throughout.
      there_is: the bytes that there are.
      workers: how many groups are wanted to train side by side.
      on_host: whether states that are not on the devices lie in the same memory.
    """
    most = max(max(need.training, need.evaluation) for need in needs)
    held = list(itertools.accumulate(sorted((need.held for need in needs), reverse=True)))
    for training in range(min(workers, len(needs)), 0, -1):
        left = there_is - examples - training * most
        begun = sum(total <= left for total in held)
        if begun == len(needs) or (begun >= training and not on_host):
            return AtOnce(training, begun)
    return None


@dataclasses.dataclass
class Portions:
    """How much an experiment does at once, where not all that was asked for fits.

    Attributes:
      runs: how many runs a group has on each device at most; 0 for as many as were asked for.
      parts: in how many parts a batch of an evaluation is computed. Nothing else is counted or
        added up then, nor in another order.
      told: what was said of it last.
    """

    runs: int = 0
    parts: int = 1
    told: str = ""

    def halve(self, runs: int, batch: int, needs: Sequence[Need]) -> bool:
        """Halves what can be halved; returns whether there was anything.

        First the groups: networks that do not fit side by side keep a device at work by fewer of
        them. Then, where that is what takes most, the batches of evaluations.

        Args:
          runs: how many a group has on each device now, at most.
          batch: the number of examples in one of an evaluation.
          needs: of the groups.
        """
        if runs > 1:
            self.runs = -(-runs // 2)
            return True
        training, evaluation = (max(column) for column in list(zip(*needs, strict=True))[1:])
        if evaluation <= training or self.parts >= batch:
            return False
        self.parts *= 2
        return True
