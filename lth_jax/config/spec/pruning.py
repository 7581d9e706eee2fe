"""What a level prunes, and where the weights that survive go on from."""

# ruff: noqa: RUF009 (`field` is a `dataclasses.field`, which ruff cannot see)

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

from lth_jax.config.fields import Duration, Rule, between, choice, field, is_duration
from lth_jax.config.spec.accepted import DURATIONS, LARGEST, LEAST, MOST, NAMES, RATIOS, empty
from lth_jax.pruning.granularity import ACCEPTED, granularity_of, is_granularity

# How a criterion takes gradients where these fields of `pruning` are None: as its authors do. They
# stand here rather than beside the functions (`pruning.criteria`), as the identity depends on them.
# `GRADIENTS` is what every criterion did before it had a choice of its own, and what all others do.
# What a criterion does by itself may change with a version; what a run did, never: it is recorded
# in words (`settled`), and a run from before these fields is one of `GRADIENTS`.
GRADIENTS = {"mode": "train", "probe": "random", "hessian": "all"}
OWN_GRADIENTS = {
    "snip": {"mode": "eval"},
    "grasp": {"probe": "balanced", "hessian": "kernels"},
}


@dataclasses.dataclass(frozen=True)
class PruningSpec:
    """What a level prunes."""

    criterion: str = field("magnitude", "What the scores of weights are.", accepted=NAMES)
    scope: str = choice(
        "layerwise",
        ("layerwise", "global", *RATIOS),
        "Whether weights are ranked within their layer or among all, or each layer keeps a share "
        "of its own: Erdős–Rényi, `smart` (Su et al. 2020), or `uniform`, the same in all.",
    )
    fraction: float = field(
        0.2,
        "The share of the surviving weights that a level removes.",
        accepted="a number above 0 and below 1",
        check=lambda value: 0 < value < 1,
    )
    layer_rates: tuple[tuple[str, float], ...] = field(
        (),
        "By what `fraction` is multiplied for the parameters whose path a pattern matches.",
        accepted="(pattern, multiple) pairs, such as (('output', 0.5),)",
    )
    granularity: str = field(
        "weight",
        "What is pruned together: single weights; channels, with all that depends on them; blocks "
        "of neighbouring inputs and outputs; or all but N of each M neighbouring inputs, one more "
        "at each level.",
        accepted=ACCEPTED,
        check=is_granularity,
    )
    rank: str = choice(
        "sum",
        ("sum", "l1", "l2", "batch_norm"),
        "What channels are ranked by: the sum of the criterion's scores of the weights that write "
        "a channel, a norm of these weights, or the scale of the channel's batch norm (Liu et al. "
        "2017).",
    )
    schedule: str = choice(
        "iterative",
        ("iterative", "one_shot"),
        "Whether a level prunes the network of the level before, or in one shot the dense one.",
    )
    densities: tuple[float, ...] = field(
        (),
        "The densities of levels 1, 2, … instead of equal fractions.",
        accepted="falling densities, each below the one before it (1 at level 0) and above 0",
        check=lambda values: all(a > b > 0 for a, b in itertools.pairwise((1.0, *values))),
    )
    at: str | None = field(
        None,
        "Which network is scored: the trained one, or the one at the rewind step; None is the "
        "criterion's own choice.",
        accepted="trained or rewind, or None for the criterion's own",
        check=lambda value: value in ("trained", "rewind"),
        unset=empty,
    )
    rounds: int | None = field(
        None,
        "In how many rounds of scoring and pruning a level prunes; None is the criterion's own "
        "choice.",
        **between(1, 1000, none="the criterion's own"),
        unit="rounds",
        unset=empty,
    )
    invert: bool = field(
        False,
        "Whether the weights of the highest scores are pruned instead, as many in each layer: a "
        "check.",
    )
    examples: int = field(
        1000,
        "How many training examples a criterion's gradients are taken of.",
        **between(1, MOST),
        unit="examples",
    )
    alpha: float = field(1.0, "A parameter of some criteria.", **between(LEAST, LARGEST))
    temperature: float = field(
        200.0,
        "What logits are divided by, in the gradients of some criteria.",
        **between(LEAST, LARGEST),
    )
    mode: str | None = choice(
        None,
        ("train", "eval"),
        "Whether the gradients of the loss are those of training, with dropout and the batch's own "
        "statistics, or of evaluation; None is the criterion's own choice.",
        none="the criterion's own",
    )
    probe: str | None = choice(
        None,
        ("random", "balanced"),
        "Whether the examples that gradients are taken of are drawn alike from all, or balanced "
        "over the classes; None is the criterion's own choice.",
        none="the criterion's own",
    )
    hessian: str | None = choice(
        None,
        ("all", "kernels"),
        "Whether a criterion's Hessian is that of all parameters or of the prunable kernels alone; "
        "None is the criterion's own choice.",
        none="the criterion's own",
    )

    def gradients(self) -> dict[str, str]:
        """Returns `mode`, `probe` and `hessian`, each as it is set or else the criterion's own."""
        own = GRADIENTS | OWN_GRADIENTS.get(self.criterion, {})
        return {name: getattr(self, name) or value for name, value in own.items()}

    def rules(self) -> Iterator[Rule]:
        """Gives what must hold of several fields."""
        yield (
            all(0 <= rate * self.fraction < 1 for _, rate in self.layer_rates),
            "layer_rates",
            self.layer_rates,
            "multiples of 0 or more that times pruning.fraction stay below 1",
        )
        channels = self.granularity == "channel"
        yield (
            not channels or self.scope in ("layerwise", "global"),
            "scope",
            self.scope,
            "layerwise or global with pruning.granularity=channel",
        )
        yield (
            self.rank == "sum" or (channels and self.criterion == "magnitude"),
            "rank",
            self.rank,
            "sum save with pruning.granularity=channel and the criterion magnitude, which it "
            "takes the place of",
        )
        if granularity_of(self.granularity).of_each:
            even = all(rate in (0, 1) for _, rate in self.layer_rates)
            plain = self.scope == "layerwise" and not self.densities and even
            yield (
                plain,
                "granularity",
                self.granularity,
                "N:M with scope layerwise, no densities, and layer_rates of 0 or 1: every layer "
                "keeps the same",
            )


@dataclasses.dataclass(frozen=True)
class RewindSpec:
    """Where the weights that survive go on from."""

    step: Duration = field(
        "0",
        "The step whose training state is returned to; 0 is the initialization.",
        accepted=DURATIONS,
        check=is_duration,
    )
    kind: str = choice(
        "weights",
        ("weights", "learning_rate", "finetune"),
        "What returns to that step (Renda et al. 2020): `weights`, all of the state; "
        "`learning_rate`, all but the weights, which stay trained; `finetune`, nothing.",
    )
