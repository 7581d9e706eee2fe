"""One branch: a control, a transfer, or another method."""

# ruff: noqa: RUF009 (`field` is a `dataclasses.field`, which ruff cannot see)

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from lth_jax.config.fields import (
    Duration,
    OwnValue,
    below_one,
    between,
    choice,
    each,
    field,
    is_duration,
    is_some_duration,
    within,
)
from lth_jax.config.spec.accepted import (
    DURATIONS,
    LARGEST,
    LEAST,
    MOST,
    NAMES,
    RATIOS,
    SOME_DURATION,
    empty,
    negative,
)
from lth_jax.config.spec.training import TrainSpec

# The kinds of branches that start from the source's tickets. They stand here rather than beside the
# functions (`lottery.branches`), as the identity of a branch depends on it.
TRANSFERS = ("transfer", "transfer_reinit")
CYCLES = 3  # of the branch `cyclic`, where it names none


@dataclasses.dataclass(frozen=True)
class BranchSpec:
    """One branch. The fields that `train` has too override it for this branch, unless None."""

    kind: str = field(
        "",
        "What the branch does; '' is what its name says.",
        accepted="a kind of branch, or '' for the branch's name",
    )
    draws: int = field(
        1,
        "How many times its random choices are drawn.",
        **between(1, 1000),
        identity=False,
        unit="draws",
    )
    levels: tuple[int, ...] = field(
        (),
        "The levels that it starts from; () is all from 1 on, and the dense network too in a "
        "`sibling`.",
        accepted="levels from 1 to 1,000, and 0 in a sibling",
        check=each(within(0, 1000)),
        identity=False,
    )
    sigma: float = field(
        0.5,
        "How strong the noise of `noise` is.",
        **between(0.0, LARGEST),
        unit="standard deviations of the layer's initialization",
    )
    share: float = field(
        0.5,
        "The share of each layer's kept weights whose sign `flip_signs` turns.",
        **between(0.0, 1.0),
    )
    criterion: str | None = field(
        None,
        "What `prune` scores weights by; None is the criterion of the levels.",
        accepted=f"{NAMES}, or None for that of pruning",
    )
    scope: str = choice(
        "layerwise",
        ("layerwise", "global", *RATIOS),
        "Whether `prune` keeps the ticket's count in each layer, or over all layers together, "
        "ranked or by a ratio.",
    )
    ablation: str = choice(
        "none",
        ("none", "shuffle", "reinit", "invert"),
        "What of `prune` is taken away: its places in each layer are drawn, its weights are fresh, "
        "or the highest scores go, as many in each layer.",
    )
    scored: str | None = choice(
        None,
        ("trained", "rewind"),
        "Which dense network `prune` scores: the trained one, or the one at the rewind step; None "
        "is the criterion's own choice.",
        none="the criterion's own",
    )
    at: tuple[Duration, ...] = field(
        ("0",),
        "The steps of the dense network at which its `sibling` networks part from it.",
        accepted=f"at least one of {DURATIONS}, each once",
        check=lambda values: 0 < len(values) == len(set(values)) and all(map(is_duration, values)),
    )
    rule: str | None = field(
        None,
        "By which rule its mask moves while it trains; None is what its kind says, for most that "
        "it stays.",
        accepted=f"{NAMES}, or None for the kind's own",
    )
    distribution: str = choice(
        "ticket",
        ("ticket", "uniform", "erdos_renyi", "erdos_renyi_kernel"),
        "How many of the ticket's weights each layer has in a branch that trains sparse from the "
        "start or prunes as it trains: as many as the ticket's, or by a rule.",
    )
    every: Duration | None = field(
        None,
        "How long a mask stays before it moves again; None is the rule's own choice.",
        accepted=f"{SOME_DURATION}, or None for the rule's own",
        check=is_some_duration,
    )
    begin: float | None = field(
        None,
        "The share of the training after which a mask begins to move; None is the rule's own.",
        accepted="0 to below 1, or None for the rule's own",
        check=below_one,
    )
    end: float | None = field(
        None,
        "The share of the training after which a mask stays; None is the rule's own.",
        accepted="a number above 0 and up to 1, or None for the rule's own",
        check=lambda value: 0 < value <= 1,
    )
    fraction: float | None = field(
        None,
        "The share of each layer's kept weights that the first move of a mask exchanges; None is "
        "the rule's own.",
        accepted="a number above 0 and up to 1, or None for the rule's own",
        check=lambda value: 0 < value <= 1,
    )
    weights: str = choice(
        "initial",
        ("initial", "signed_constant"),
        "Among what a mask is learned whose weights stay: the rewind point's weights, or their "
        "signs times the deviation of the layer's initial weights.",
    )
    of: str = field(
        "",
        "Of which branch a `mask_of` takes the masks that networks ended with.",
        accepted="the name of another branch, in a branch of the kind mask_of",
    )
    distance: float = field(
        0.1,
        "Below which distance the masks of consecutive epochs must stay for an `early_bird` to be "
        "drawn: the share of the channels, or weights, that differ.",
        accepted="a number above 0 and up to 1",
        check=lambda value: 0 < value <= 1,
    )
    window: int = field(
        5,
        "In how many epochs in a row the masks' distance must be below `distance`.",
        **between(1, 1000),
        unit="epochs",
    )
    keep: bool = field(
        False,
        "Whether its trained networks are kept, as those of a `sibling` always are.",
        identity=False,
    )
    cycles: int | None = field(
        None,
        f"How many times in a row its networks train; {CYCLES} times in `cyclic`, if it is None.",
        **between(1, 1000, none="that of train"),
        unit="cycles",
    )
    steps: Duration | None = field(
        None,
        "How long its networks train, counted from initialization; to the rewind step alone, they "
        "are measured untrained.",
        accepted=f"{DURATIONS}, or None for those of train",
        check=is_duration,
        unset=empty,
    )
    batch_size: int | None = field(
        None,
        "How many examples one step takes.",
        **between(1, MOST, none="that of train"),
        unit="examples",
        unset=empty,
    )
    optimizer: str | None = field(
        None, "The optimizer.", accepted="an optimizer, or None for that of train", unset=empty
    )
    learning_rate: float | None = field(
        None,
        "The learning rate after the warmup.",
        **between(LEAST, LARGEST, none="that of train"),
        unset=empty,
    )
    weight_decay: float | None = field(
        None,
        "The factor of the weight decay.",
        **between(0.0, LARGEST, none="that of train"),
        unset=negative,
    )
    momentum: float | None = field(
        None,
        "The momentum.",
        accepted="0 to below 1, or None for that of train",
        check=below_one,
        unset=negative,
    )
    align: str = choice(
        "weights",
        ("weights", "activations", "none"),
        "By what the units of the other replicate's mask are put into this network's order in "
        "`permuted_mask`.",
    )
    new_head: bool = field(
        False,
        "Whether a transfer gets an output layer of its own, with a full mask, instead of the "
        "source's.",
    )
    custom: Mapping[str, OwnValue] = field(
        {}, "What the branch's function, optimizer and schedule get of `custom` instead."
    )

    @property
    def is_kept(self) -> bool:
        """Whether the trained networks of this branch, whose kind is filled in, are kept."""
        return self.keep or self.kind == "sibling"

    @property
    def takes_mask(self) -> bool:
        """Whether this branch, whose kind is filled in, takes the mask of another replicate."""
        return self.kind == "permuted_mask"

    @property
    def is_aligned(self) -> bool:
        """Whether it puts that mask's units into the order of its replicate's dense network."""
        return self.takes_mask and self.align != "none"

    def train_spec(self, train: TrainSpec) -> TrainSpec:
        """Returns `train` with this branch's overrides."""
        own = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        shared = {one.name for one in dataclasses.fields(train)}
        if self.kind == "cyclic":
            own["cycles"] = self.cycles or CYCLES
        overrides = {name: own[name] for name in shared & own.keys() if own[name] is not None}
        return dataclasses.replace(train, **overrides)
