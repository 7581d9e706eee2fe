"""The spec of an experiment: every field with its default, its meaning, and what is accepted.

A field that is None leaves the choice to what its meaning names. Where a number counts things,
0 may mean "all" or "automatic", and says so.
"""

# ruff: noqa: RUF009 (`field` is a `dataclasses.field`, which ruff cannot see)

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from lth_jax.config import own_fields, reference
from lth_jax.config.fields import (
    Duration,
    OwnValue,
    Rule,
    below_one,
    between,
    choice,
    each,
    field,
    is_duration,
    is_some_duration,
    plain,
    within,
)
from lth_jax.pruning.granularity import ACCEPTED, granularity_of, is_granularity

# The kinds of branches that start from the source's tickets. They stand here rather than beside the
# functions (`lottery.branches`), as the identity of a branch depends on it.
TRANSFERS = ("transfer", "transfer_reinit")

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

MOST = 10**9  # examples; more than any dataset has
LEAST, LARGEST = 1e-30, 1e30  # what float32 can compute with
MOST_RUNS = 100_000
PAIRS = ("siblings", "levels", "ticket_dense", "ticket_branch", "replicates")
# The layer ratios that are no ranking, as `pruning.schedules` has them, which imports JAX.
RATIOS = ("erdos_renyi", "smart", "uniform")
CYCLES = 3  # of the branch `cyclic`, where it names none

_DURATIONS = "steps or epochs, such as 5000 or 40ep"
_SOME_DURATION = f"at least one step, in {_DURATIONS}"
_NAMES = "a name of the package, or of a custom row"


SCORES_ALONE = ("supermask", "edge_popup")  # kinds whose weights stay while their mask is learned


def _negative(value: float) -> bool:
    """Whether a number means None, as it did before None could be given (-1)."""
    return -LARGEST < value < 0


def _empty(value: Any) -> bool:
    """Whether 0 or '' means None, as it did before None could be given."""
    return not value


def _is_part(value: str) -> bool:
    match = re.fullmatch(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})", value)
    return not value or (match is not None and int(match[1]) <= int(match[2]))


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """The network."""

    name: str = field("mlp", "The network.", accepted=_NAMES)
    hidden: tuple[int, ...] = field(
        (300, 100),
        "The sizes of the hidden layers, of `mlp`.",
        accepted="at most 100 widths of 1 to 1,000,000",
        check=lambda values: len(values) <= 100 and all(1 <= v <= 10**6 for v in values),
        unit="units",
    )
    init: str = field(
        "glorot_normal",
        "What the kernels are drawn from at initialization.",
        accepted="the name of an initialization",
    )
    width: float = field(
        1.0,
        "The factor by which a network's layers are wider.",
        **between(1e-3, 1e3),
    )
    dropout: float | None = field(
        None,
        "The share of units that dropout removes in training; None is the network's own.",
        accepted="0 to below 1, or None for the network's own",
        check=below_one,
        unset=_negative,
    )
    stem: str = field(
        "small",
        "The first layers of residual and dense networks, for small images or as for ImageNet.",
        accepted="small or imagenet",
    )
    layers: int | None = field(
        None,
        "How many layers a transformer has; None is the network's own.",
        **between(1, 1000, none="the network's own"),
        unit="layers",
    )
    features: int | None = field(
        None,
        "How many features a transformer's tokens have; None is the network's own.",
        **between(1, 10**6, none="the network's own"),
        unit="features",
    )
    heads: int | None = field(
        None,
        "How many heads a transformer's attention has; None is the network's own.",
        **between(1, 10**4, none="the network's own"),
        unit="heads",
    )
    dtype: str = field(
        "float32",
        "The type that the network computes in; its parameters are float32.",
        accepted="float32 or bfloat16",
    )


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """The dataset, its splits, and the directories where it lies."""

    name: str = field("digits", "The dataset.", accepted=_NAMES)
    validation_size: int = field(
        200,
        "How many training examples are kept back for validation.",
        **between(1, MOST),
        unit="examples",
    )
    train_size: int = field(
        0,
        "How many of the other examples are trained on; 0 is all.",
        **between(0, MOST, zero="all"),
        unit="examples",
    )
    test_size: int = field(
        0,
        "How many examples of the test set are used; 0 is all.",
        **between(0, MOST, zero="all"),
        unit="examples",
    )
    classes: tuple[int, ...] = field(
        (), "The classes that are kept; () is all.", accepted="classes, such as (0, 1), or ()"
    )
    labels: str = choice(
        "remapped",
        ("remapped", "original", "random"),
        "Whether the labels of the kept classes are remapped to count from 0; `random` ones are "
        "so, and each training example has one that is drawn.",
    )
    pixels: str = choice(
        "original",
        ("original", "permuted"),
        "Whether the pixels of each training image are permuted, in an order of its own.",
    )
    part: str = field(
        "",
        "A share of the training set, class by class: 1/2 is the first half, '' all of it.",
        accepted="'' or a part such as 1/2 or 2/2",
        check=_is_part,
    )
    side: int = field(
        0,
        "The height and width that images are scaled to; 0 leaves them as they are.",
        **between(0, 4096, zero="as they are"),
        unit="pixels",
    )
    channels: int = field(
        0,
        "How many channels images are repeated to; 0 leaves them as they are.",
        **between(0, 4096, zero="as they are"),
        unit="channels",
    )
    standardize: bool = field(
        False, "Whether each channel of the training set gets mean 0 and standard deviation 1."
    )
    crop: int = field(
        0,
        "By how many pixels an image is moved at most, at random, in training.",
        **between(0, 4096, zero="none"),
        unit="pixels",
    )
    flip: bool = field(False, "Whether half of the images are mirrored, at random, in training.")
    data_dir: str = field(
        "", "The directory of prepared datasets; '' is the usual one.", identity=False
    )
    manual_dir: str = field(
        "",
        "The directory of archives that you loaded by hand; '' is the usual one.",
        identity=False,
    )
    cache_dir: str = field(
        "", "The directory of what can be made again; '' is the usual one.", identity=False
    )


@dataclasses.dataclass(frozen=True)
class TrainSpec:
    """How one network is trained."""

    steps: Duration = field(
        "1000", "How long one network trains.", accepted=_SOME_DURATION, check=is_some_duration
    )
    batch_size: int = field(
        60,
        "How many examples one step takes.",
        **between(1, MOST),
        unit="examples",
    )
    optimizer: str = field("adam", "The optimizer.", accepted=_NAMES)
    learning_rate: float = field(
        1.2e-3, "The learning rate after the warmup.", **between(LEAST, LARGEST)
    )
    weight_decay: float = field(
        0.0,
        "The factor of the weight decay, decoupled in `adamw`, an L2 penalty elsewhere.",
        **between(0.0, LARGEST),
    )
    momentum: float = field(
        0.9, "The momentum, of the optimizer `momentum`.", accepted="0 to below 1", check=below_one
    )
    nesterov: bool = field(False, "Whether the momentum is Nesterov's.")
    schedule: str = field(
        "constant",
        "How the learning rate goes on after the warmup; `cosine` ends at 0 with the last step.",
        accepted=_NAMES,
    )
    warmup: Duration = field(
        "0",
        "How long the learning rate rises from 0, linearly.",
        accepted=_DURATIONS,
        check=is_duration,
    )
    drops: tuple[tuple[Duration, float], ...] = field(
        (),
        "When a constant learning rate is multiplied, and by what.",
        accepted="(duration, factor) pairs such as (('20000', 0.1), ('120ep', 0.1)), factors from "
        f"{plain(LEAST)} to {plain(LARGEST)}",
        check=each(lambda drop: is_duration(drop[0]) and LEAST <= drop[1] <= LARGEST),
    )
    cycles: int = field(
        1,
        "How many times in a row a network trains for `steps`; the learning rate begins anew each "
        "time.",
        **between(1, 1000),
        unit="cycles",
    )
    label_smoothing: float = field(
        0.0,
        "The share of a label that is spread over all classes.",
        accepted="0 to below 1",
        check=below_one,
    )
    kernel: str = choice(
        "auto",
        ("auto", "xla", "sparse"),
        "What computes the layers on CPU: `xla` alone, `auto` native kernels where they pay, "
        "`sparse` these for every layer with a mask too.",
        identity=False,
    )

    def rules(self) -> Iterator[Rule]:
        """Gives what must hold of several fields."""
        yield (
            not self.drops or self.schedule == "constant",
            "drops",
            self.drops,
            "none unless train.schedule is constant",
        )


@dataclasses.dataclass(frozen=True)
class EvalSpec:
    """When a network is evaluated."""

    every: Duration = field(
        "100",
        "How long a network trains between two evaluations.",
        accepted=_SOME_DURATION,
        check=is_some_duration,
    )
    batch_size: int = field(
        1000,
        "How many examples are evaluated at once.",
        **between(1, MOST),
        unit="examples",
    )


@dataclasses.dataclass(frozen=True)
class PruningSpec:
    """What a level prunes."""

    criterion: str = field("magnitude", "What the scores of weights are.", accepted=_NAMES)
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
        "What is pruned together: single weights, blocks of neighbouring inputs and outputs, or "
        "all but N of each M neighbouring inputs, one more at each level.",
        accepted=ACCEPTED,
        check=is_granularity,
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
        unset=_empty,
    )
    rounds: int | None = field(
        None,
        "In how many rounds of scoring and pruning a level prunes; None is the criterion's own "
        "choice.",
        **between(1, 1000, none="the criterion's own"),
        unit="rounds",
        unset=_empty,
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
        accepted=_DURATIONS,
        check=is_duration,
    )
    kind: str = choice(
        "weights",
        ("weights", "learning_rate", "finetune"),
        "What returns to that step (Renda et al. 2020): `weights`, all of the state; "
        "`learning_rate`, all but the weights, which stay trained; `finetune`, nothing.",
    )


@dataclasses.dataclass(frozen=True)
class CheckpointSpec:
    """How often a running level is saved."""

    every_seconds: float = field(
        20.0,
        "How long a level runs, at least, between two checkpoints.",
        **between(0.0, 1e9),
        unit="seconds",
    )


@dataclasses.dataclass(frozen=True)
class ExecutionSpec:
    """How runs are executed."""

    group_size: int = field(
        0,
        "How many runs train at once in one `vmap`, on each device; 0 is 1 on CPU, where results "
        "then repeat bit for bit, and all runs of a level elsewhere.",
        **between(0, 100_000, zero="automatic"),
        identity=False,
        unit="runs",
    )
    workers: int = field(
        0,
        "How many groups train side by side; 0 is one for each core on CPU, and 1 elsewhere and on "
        "several devices.",
        **between(0, 1024, zero="automatic"),
        identity=False,
        unit="groups",
    )
    mesh: str = field(
        "auto",
        "The devices that runs are spread over, each run on one: all that there are, or "
        "`runs:N`, the first N.",
        accepted="auto, or runs:N with N from 1 to 9,999",
        check=lambda value: re.fullmatch(r"(auto|runs:[1-9][0-9]{0,3})", value) is not None,
        identity=False,
    )
    precision: str = choice(
        "highest",
        ("highest", "high", "default"),
        "How exactly products of float32 are computed on GPU and TPU, in JAX's words: `highest` as "
        "on CPU, which has no other; `high` and `default` are faster (TF32 on GPU).",
    )
    compilation_cache: bool = field(
        False, "Whether compiled programs are kept in `data.cache_dir`.", identity=False
    )


@dataclasses.dataclass(frozen=True)
class AnalysisSpec:
    """By what results are judged."""

    margin: float | None = field(
        None,
        "By how much a network may stay behind the dense one and still match it, in the test "
        "metric's own unit; None is 0.2 points of accuracy, or what the metric brings.",
        accepted="a number above 0, or None for the metric's own",
        check=lambda value: 0 < value <= LARGEST,
        unit="points of accuracy, or the metric's unit",
    )
    confidence: float = field(
        0.95,
        "How sure each statement about matching is.",
        accepted="0.5 to below 1",
        check=lambda value: 0.5 <= value < 1,
    )


@dataclasses.dataclass(frozen=True)
class PathsSpec:
    """Which paths between trained networks are measured (Frankle et al. 2020)."""

    pairs: tuple[str, ...] = field(
        (),
        "Between which networks: the `siblings` of one branch; `levels`, a level's ticket and the "
        "one before; `ticket_dense`; `ticket_branch`, a ticket and the kept networks of branches; "
        "`replicates`.",
        accepted=f"some of {', '.join(PAIRS)}",
        check=lambda values: set(values) <= set(PAIRS) and len(set(values)) == len(values),
    )
    points: int = field(
        30, "At how many places of a path, its ends included.", **between(2, 10_000), unit="places"
    )
    statistics: str = choice(
        "interpolated",
        ("interpolated", "recomputed", "repaired"),
        "Whether batch statistics on a path lie between those of its ends, or are computed anew, "
        "or every hidden unit is `repaired` to the mean and deviation between its ends' (REPAIR).",
    )
    align: str = choice(
        "none",
        ("none", "weights", "activations"),
        "Whether each path is measured once more after the second network's hidden units are put "
        "into the order that brings its weights near to the first's, or its activations.",
    )
    examples: int = field(
        0,
        "On how many training examples; 0 is all. The test split is used whole.",
        **between(0, MOST, zero="all"),
        unit="examples",
    )

    @property
    def alignments(self) -> tuple[str, ...]:
        """Returns by what the networks of a pair are aligned, one path after the other."""
        return ("none",) if self.align == "none" else ("none", self.align)


@dataclasses.dataclass(frozen=True)
class CurvatureSpec:
    """When the largest eigenvalue of the training loss's Hessian is measured.

    It is that of the weights that are left, by Lanczos' iteration.
    """

    steps: tuple[Duration, ...] = field(
        (),
        "At which steps of every run, counted from initialization, those before its start left "
        "out; () is none.",
        accepted=f"{_DURATIONS}, each once",
        check=lambda values: len(values) == len(set(values)) and all(map(is_duration, values)),
    )
    examples: int = field(
        1000,
        "Of how many training examples the loss is, in whole batches of training.",
        **between(1, MOST),
        unit="examples",
    )
    iterations: int = field(
        20,
        "How many products of the Hessian and a vector it takes.",
        **between(1, 1000),
        unit="products",
    )


@dataclasses.dataclass(frozen=True)
class ReportSpec:
    """How results are shown."""

    bars: str = choice(
        "interval",
        ("interval", "range"),
        "What bars show: the 95% interval of the mean over replicates, or minimum and maximum.",
    )
    methods: bool = field(
        False,
        "Whether the branches of a level are ranked against one another as methods, with what each "
        "costs.",
    )


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
        accepted=f"{_NAMES}, or None for that of pruning",
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
        accepted=f"at least one of {_DURATIONS}, each once",
        check=lambda values: 0 < len(values) == len(set(values)) and all(map(is_duration, values)),
    )
    rule: str | None = field(
        None,
        "By which rule its mask moves while it trains; None is what its kind says, for most that "
        "it stays.",
        accepted=f"{_NAMES}, or None for the kind's own",
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
        accepted=f"{_SOME_DURATION}, or None for the rule's own",
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
        "How long its networks train.",
        accepted=f"{_DURATIONS}, or None for those of train",
        check=is_duration,
        unset=_empty,
    )
    batch_size: int | None = field(
        None,
        "How many examples one step takes.",
        **between(1, MOST, none="that of train"),
        unit="examples",
        unset=_empty,
    )
    optimizer: str | None = field(
        None, "The optimizer.", accepted="an optimizer, or None for that of train", unset=_empty
    )
    learning_rate: float | None = field(
        None,
        "The learning rate after the warmup.",
        **between(LEAST, LARGEST, none="that of train"),
        unset=_empty,
    )
    weight_decay: float | None = field(
        None,
        "The factor of the weight decay.",
        **between(0.0, LARGEST, none="that of train"),
        unset=_negative,
    )
    momentum: float | None = field(
        None,
        "The momentum.",
        accepted="0 to below 1, or None for that of train",
        check=below_one,
        unset=_negative,
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


@dataclasses.dataclass(frozen=True)
class Spec:
    """One experiment: a trunk of `levels` prunings and its branches, over `replicates`."""

    seed: int = field(
        0,
        "What all random numbers are derived from.",
        **between(0, 2**32 - 1),
    )
    pretrain: bool = field(
        False,
        "Whether training starts from the source's trained dense network instead of a random "
        "initialization.",
    )
    replicates: int = field(
        3,
        "How many times everything is repeated with other random numbers.",
        **between(1, 1000),
        identity=False,
    )
    levels: int = field(
        12,
        "How many times the network is pruned.",
        **between(0, 1000),
        identity=False,
    )
    branches: tuple[str, ...] = field(
        ("reinit", "random_mask"),
        "The controls and transfers that start from the levels' tickets.",
        accepted="names of at most 80 letters, digits, '_', '-', '+' and '.'",
        check=each(lambda name: re.fullmatch(r"[A-Za-z0-9][\w.+-]{0,79}", name) is not None),
        identity=False,
    )
    task: str = field(
        "classification",
        "What networks are trained for: a loss and metrics.",
        accepted=_NAMES,
    )
    metric: str = field(
        "",
        "Which of the task's metrics networks are measured by; '' is the first.",
        accepted="the name of a metric of the task, or '' for its first",
    )
    model: ModelSpec = field(ModelSpec(), "The network.")
    data: DataSpec = field(DataSpec(), "The dataset, and what is done to it.")
    train: TrainSpec = field(TrainSpec(), "How one network is trained.")
    eval: EvalSpec = field(EvalSpec(), "When a network is evaluated.")
    pruning: PruningSpec = field(PruningSpec(), "What a level prunes.")
    rewind: RewindSpec = field(RewindSpec(), "Where the weights that survive go on from.")
    checkpoint: CheckpointSpec = field(
        CheckpointSpec(), "How often a running level is saved.", identity=False
    )
    execution: ExecutionSpec = field(ExecutionSpec(), "How runs are executed.")
    analysis: AnalysisSpec = field(AnalysisSpec(), "How results are judged.", identity=False)
    paths: PathsSpec = field(
        PathsSpec(), "Which paths between trained networks are measured.", identity=False
    )
    curvature: CurvatureSpec = field(
        CurvatureSpec(), "When the loss's curvature is measured.", identity=False
    )
    report: ReportSpec = field(ReportSpec(), "How results are shown.", identity=False)
    custom: Mapping[str, OwnValue] = field(
        {}, "Fields of your own, which your own rows take as parameters of these names."
    )
    branch: Mapping[str, BranchSpec] = field(
        {}, "Options of branches, by the branch's name.", identity=False
    )
    source: Mapping[str, Any] = field(
        {},
        "For transfers, what differs in the experiment that tickets come from, or `run`, its "
        "finished run directory.",
        identity=False,  # save with `pretrain`; see `identity.science`
    )
    reference: Mapping[str, Any] = field(
        {},
        "Published results to hold ours against: `title`, whose; `source`, where they stand; "
        "`steps` of their networks; for `<branch>.<column>`, points of density, value and perhaps "
        "its uncertainty; and `claims`.",
        identity=False,
    )

    def branch_spec(self, name: str) -> BranchSpec:
        """Returns the options of branch `name`, its kind filled in."""
        options = self.branch.get(name, BranchSpec())
        return dataclasses.replace(options, kind=options.kind or name)

    def under(self, name: str) -> Spec:
        """Returns this spec with the training options and the own fields of branch `name`."""
        branch = self.branch_spec(name)
        custom = {**self.custom, **branch.custom}
        return dataclasses.replace(self, train=branch.train_spec(self.train), custom=custom)

    def _levels_of(self, name: str) -> set[int]:
        """Returns the levels that a branch starts from."""
        return set(self.branch_spec(name).levels or range(1, self.levels + 1))

    def _levels_given(self, name: str) -> set[int]:
        """Returns the levels at which a branch has masks for others; none for no such branch."""
        there = name in self.branches and self.branch_spec(name).kind != "mask_of"
        return self._levels_of(name) if there else set()

    def rules(self) -> Iterator[Rule]:
        """Gives what must hold of several fields, and of what no field of a group declares."""
        names, densities = self.branches, self.pruning.densities
        yield len(set(names)) == len(names), "branches", names, "each name once"
        yield (
            "ticket" not in names,
            "branches",
            names,
            "any names but 'ticket', the trunk's own",
        )
        runs = self.replicates * (self.levels + 1)
        for name in names:
            branch = self.branch_spec(name)
            runs += self.replicates * branch.draws * len(branch.levels or range(self.levels))
        yield (
            runs <= MOST_RUNS,
            "replicates",
            self.replicates,
            f"replicates, levels, branches and draws that make at most {MOST_RUNS:,} runs, not "
            f"{runs:,}",
        )
        yield (
            not densities or self.levels <= len(densities),
            "levels",
            self.levels,
            f"0 to {len(densities)}, the number of pruning.densities",
        )
        users = [name for name in names if self.branch_spec(name).kind in TRANSFERS]
        users += ["pretrain"] if self.pretrain else []
        yield (
            not users or bool(self.source),
            "source",
            self.source,
            f"what differs in the source, such as source.data.name, for {', '.join(users)}",
        )
        kept = [name for name in names if self.branch_spec(name).is_kept]
        pairs = [name for name in names if self.branch_spec(name).kind == "sibling"]
        yield (
            "ticket_branch" not in self.paths.pairs or bool(kept),
            "paths.pairs",
            self.paths.pairs,
            "ticket_branch with a branch whose networks are kept: branch.NAME.keep=True",
        )
        yield (
            "siblings" not in self.paths.pairs
            or any(self.branch_spec(name).draws > 1 for name in pairs),
            "paths.pairs",
            self.paths.pairs,
            "siblings with branch.sibling.draws of 2 or more, and sibling among the branches",
        )
        donated = [name for name in names if self.branch_spec(name).takes_mask]
        yield (
            not donated or self.replicates > 1,
            "replicates",
            self.replicates,
            f"2 or more with {', '.join(donated)}, which takes the mask of another replicate",
        )
        for name in names:
            branch = self.branch_spec(name)
            yield (
                branch.kind != "mask_of" or self._levels_of(name) <= self._levels_given(branch.of),
                f"branch.{name}.of",
                branch.of,
                "another branch, no mask_of, that starts from all levels that this one starts from",
            )
        for name, options in self.branch.items():
            yield (
                options.align == "weights" or self.branch_spec(name).takes_mask,
                f"branch.{name}.align",
                options.align,
                "weights save in a branch of the kind permuted_mask",
            )
            yield (
                not options.of or self.branch_spec(name).kind == "mask_of",
                f"branch.{name}.of",
                options.of,
                "'' save in a branch of the kind mask_of",
            )
            yield (
                options.weights == "initial" or self.branch_spec(name).kind in SCORES_ALONE,
                f"branch.{name}.weights",
                options.weights,
                f"initial save in a branch of the kind {' or '.join(SCORES_ALONE)}",
            )
            yield (
                options.ablation == "none" or self.branch_spec(name).kind == "prune",
                f"branch.{name}.ablation",
                options.ablation,
                "none save in a branch of the kind prune",
            )
            yield (
                0 not in options.levels or self.branch_spec(name).kind == "sibling",
                f"branch.{name}.levels",
                options.levels,
                "levels from 1 on; the dense network has siblings alone",
            )
            yield (
                name not in names or all(level <= self.levels for level in options.levels),
                f"branch.{name}.levels",
                options.levels,
                f"levels of the trunk, which has 1 to {self.levels} (config.levels)",
            )
        places = {"custom": self.custom}
        places |= {f"branch.{name}.custom": branch.custom for name, branch in self.branch.items()}
        for place, fields in places.items():
            for name, value in fields.items():
                accepted = own_fields.wrong(name, value)
                yield not accepted, f"{place}.{name}", value, accepted
        run = self.source.get("run", "")
        yield isinstance(run, str) and run.isprintable(), "source.run", run, "a run directory"
        for name, value in self.reference.items():
            accepted = reference.wrong(name, value)
            yield not accepted, f"reference.{name}", value, accepted
