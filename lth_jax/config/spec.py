"""The spec of an experiment: every field with its default, its meaning, and what is accepted.

A field that is None leaves the choice to what its meaning names. Where a number counts things,
0 may mean "all" or "automatic", and says so.
"""

# ruff: noqa: RUF009 (`field` is a `dataclasses.field`, which ruff cannot see)

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from lth_jax.config.fields import (
    Duration,
    Rule,
    at_least,
    below_one,
    choice,
    declared,
    each,
    field,
    is_duration,
    is_some_duration,
    plain_kind,
    positive,
    read,
    within,
)
from lth_jax.errors import SpecError, nearest

# The kinds of branches that start from the source's tickets. They stand here rather than beside the
# functions (`lottery.branches`), as the identity of a branch depends on it.
TRANSFERS = ("transfer", "transfer_reinit")

_DURATIONS = "steps or epochs, such as 5000 or 40ep"
_SOME_DURATION = f"at least one step, in {_DURATIONS}"
_NAMES = "a name of the package, or of a custom row"


def _negative(value: float) -> bool:
    """Whether a number means None, as it did before None could be given (-1)."""
    return -math.inf < value < 0


def _empty(value: Any) -> bool:
    """Whether 0 or '' means None, as it did before None could be given."""
    return not value


def _is_part(value: str) -> bool:
    match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", value)
    return not value or (match is not None and int(match[1]) <= int(match[2]))


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """The network."""

    name: str = field("mlp", "The network.", accepted=_NAMES)
    hidden: tuple[int, ...] = field(
        (300, 100),
        "The sizes of the hidden layers, of `mlp`.",
        accepted="widths of at least 1",
        check=each(at_least(1)),
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
        accepted="a number above 0",
        check=positive,
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
        accepted="at least 1",
        check=at_least(1),
        unit="examples",
    )
    train_size: int = field(
        0,
        "How many of the other examples are trained on; 0 is all.",
        accepted="0 (all) or more",
        check=at_least(0),
        unit="examples",
    )
    test_size: int = field(
        0,
        "How many examples of the test set are used; 0 is all.",
        accepted="0 (all) or more",
        check=at_least(0),
        unit="examples",
    )
    classes: tuple[int, ...] = field(
        (), "The classes that are kept; () is all.", accepted="classes, such as (0, 1), or ()"
    )
    labels: str = choice(
        "remapped",
        ("remapped", "original"),
        "Whether the labels of the kept classes are remapped to count from 0.",
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
        accepted="0 (as they are) or pixels",
        check=at_least(0),
        unit="pixels",
    )
    channels: int = field(
        0,
        "How many channels images are repeated to; 0 leaves them as they are.",
        accepted="0 (as they are) or a number of channels",
        check=at_least(0),
        unit="channels",
    )
    standardize: bool = field(
        False, "Whether each channel of the training set gets mean 0 and standard deviation 1."
    )
    crop: int = field(
        0,
        "By how many pixels an image is moved at most, at random, in training.",
        accepted="0 (none) or pixels",
        check=at_least(0),
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
        accepted="at least 1",
        check=at_least(1),
        unit="examples",
    )
    optimizer: str = field("adam", "The optimizer.", accepted=_NAMES)
    learning_rate: float = field(
        1.2e-3, "The learning rate after the warmup.", accepted="a number above 0", check=positive
    )
    weight_decay: float = field(
        0.0,
        "The factor of the weight decay, decoupled in `adamw`, an L2 penalty elsewhere.",
        accepted="0 or more",
        check=at_least(0),
    )
    momentum: float = field(
        0.9, "The momentum, of the optimizer `momentum`.", accepted="0 to below 1", check=below_one
    )
    nesterov: bool = field(False, "Whether the momentum is Nesterov's.")
    schedule: str = choice(
        "constant",
        ("constant", "cosine"),
        "How the learning rate goes on after the warmup; `cosine` ends at 0 with the last step.",
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
        accepted="(duration, factor) pairs with factors above 0, such as "
        "(('20000', 0.1), ('120ep', 0.1))",
        check=each(lambda drop: is_duration(drop[0]) and drop[1] > 0),
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
            not self.nesterov or self.optimizer == "momentum",
            "nesterov",
            self.nesterov,
            "True with train.optimizer momentum alone",
        )
        yield (
            not self.drops or self.schedule == "constant",
            "drops",
            self.drops,
            "none with train.schedule cosine",
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
        accepted="at least 1",
        check=at_least(1),
        unit="examples",
    )


@dataclasses.dataclass(frozen=True)
class PruningSpec:
    """What a level prunes."""

    criterion: str = field("magnitude", "What the scores of weights are.", accepted=_NAMES)
    scope: str = choice(
        "layerwise",
        ("layerwise", "global", "erdos_renyi"),
        "Whether weights are ranked within their layer or among all, or each layer keeps its "
        "Erdős–Rényi share.",
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
        accepted="at least 1, or None for the criterion's own",
        check=at_least(1),
        unit="rounds",
        unset=_empty,
    )
    examples: int = field(
        1000,
        "How many training examples a criterion's gradients are taken of.",
        accepted="at least 1",
        check=at_least(1),
        unit="examples",
    )
    alpha: float = field(
        1.0, "A parameter of some criteria.", accepted="a number above 0", check=positive
    )
    temperature: float = field(
        200.0,
        "What logits are divided by, in the gradients of some criteria.",
        accepted="a number above 0",
        check=positive,
    )

    def rules(self) -> Iterator[Rule]:
        """Gives what must hold of several fields."""
        yield (
            all(0 <= rate * self.fraction < 1 for _, rate in self.layer_rates),
            "layer_rates",
            self.layer_rates,
            "multiples of 0 or more that times pruning.fraction stay below 1",
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
        accepted="0 or more seconds",
        check=at_least(0),
        unit="seconds",
    )


@dataclasses.dataclass(frozen=True)
class ExecutionSpec:
    """How runs are executed."""

    group_size: int = field(
        0,
        "How many runs train at once in one `vmap`; 0 is 1 on CPU, where results then repeat bit "
        "for bit, and all runs of a level elsewhere.",
        accepted="0 (automatic) or more",
        check=at_least(0),
        unit="runs",
    )
    workers: int = field(
        0,
        "How many groups train side by side; 0 is one for each core on CPU, and 1 elsewhere.",
        accepted="0 (automatic) or more",
        check=at_least(0),
        unit="groups",
    )
    compilation_cache: bool = field(
        False, "Whether compiled programs are kept in `data.cache_dir`."
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
        accepted="at least 1",
        check=at_least(1),
        identity=False,
        unit="draws",
    )
    levels: tuple[int, ...] = field(
        (),
        "The levels that it starts from; () is all from 1 on.",
        accepted="levels from 1 on",
        check=each(at_least(1)),
        identity=False,
    )
    sigma: float = field(
        0.5,
        "How strong the noise of `noise` is.",
        accepted="0 or more",
        check=at_least(0),
        unit="standard deviations of the layer's initialization",
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
        accepted="at least 1, or None for that of train",
        check=at_least(1),
        unit="examples",
        unset=_empty,
    )
    optimizer: str | None = field(
        None, "The optimizer.", accepted="an optimizer, or None for that of train", unset=_empty
    )
    learning_rate: float | None = field(
        None,
        "The learning rate after the warmup.",
        accepted="a number above 0, or None for that of train",
        check=positive,
        unset=_empty,
    )
    weight_decay: float | None = field(
        None,
        "The factor of the weight decay.",
        accepted="0 or more, or None for that of train",
        check=at_least(0),
        unset=_negative,
    )
    momentum: float | None = field(
        None,
        "The momentum.",
        accepted="0 to below 1, or None for that of train",
        check=below_one,
        unset=_negative,
    )
    new_head: bool = field(
        False,
        "Whether a transfer gets an output layer of its own, with a full mask, instead of the "
        "source's.",
    )

    def train_spec(self, train: TrainSpec) -> TrainSpec:
        """Returns `train` with this branch's overrides."""
        own = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        shared = {one.name for one in dataclasses.fields(train)}
        overrides = {name: own[name] for name in shared & own.keys() if own[name] is not None}
        return dataclasses.replace(train, **overrides)


@dataclasses.dataclass(frozen=True)
class Spec:
    """One experiment: a trunk of `levels` prunings and its branches, over `replicates`."""

    seed: int = field(
        0,
        "What all random numbers are derived from.",
        accepted="0 to 4294967295",
        check=within(0, 2**32 - 1),
    )
    pretrain: bool = field(
        False,
        "Whether training starts from the source's trained dense network instead of a random "
        "initialization.",
    )
    replicates: int = field(
        3,
        "How many times everything is repeated with other random numbers.",
        accepted="1 to 1000",
        check=within(1, 1000),
        identity=False,
    )
    levels: int = field(
        12,
        "How many times the network is pruned.",
        accepted="0 to 1000",
        check=within(0, 1000),
        identity=False,
    )
    branches: tuple[str, ...] = field(
        ("reinit", "random_mask"),
        "The controls and transfers that start from the levels' tickets.",
        accepted="names of letters, digits, '_', '-', '+' and '.'",
        check=each(lambda name: re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name) is not None),
        identity=False,
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
    execution: ExecutionSpec = field(ExecutionSpec(), "How runs are executed.", identity=False)
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
        "Published points to draw beside ours: a `title`, and for `<branch>.<column>` pairs of "
        "density and value.",
        identity=False,
    )

    def branch_spec(self, name: str) -> BranchSpec:
        """Returns the options of branch `name`, its kind filled in."""
        options = self.branch.get(name, BranchSpec())
        return dataclasses.replace(options, kind=options.kind or name)

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
        for name, options in self.branch.items():
            yield (
                name not in names or all(level <= self.levels for level in options.levels),
                f"branch.{name}.levels",
                options.levels,
                f"levels of the trunk, which has 1 to {self.levels} (config.levels)",
            )
        for name, value in self.reference.items():
            if name == "title":
                yield isinstance(value, str), "reference.title", value, "a string"
            else:
                points = isinstance(value, tuple | list) and all(map(_is_point, value))
                yield points, f"reference.{name}", value, "(density, value) pairs"


def _is_point(point: Any) -> bool:
    return (
        isinstance(point, tuple | list)
        and len(point) == 2
        and all(isinstance(value, int | float) for value in point)
    )


def from_config(config: Mapping[str, Any]) -> Spec:
    """Returns the checked spec of a `ConfigDict` (or nested mapping).

    Raises:
      SpecError: a field, type, value or combination is wrong; one line names the field, the value
        and what is accepted.
    """
    spec = read(Spec, config)
    if spec.source:
        source_spec(spec)
    return spec


def source_spec(spec: Spec) -> Spec:
    """Returns the experiment that transfers take their tickets from: `spec` with its `source`.

    Raises:
      SpecError: a field of `source` is wrong.
    """
    values: dict[str, Any] = to_dict(spec) | {
        "branches": (), "branch": {}, "source": {}, "reference": {},
        "pretrain": False,
    }  # fmt: skip
    for field_name, value in spec.source.items():
        if field_name != "run":
            _set(values, field_name, value)
    try:
        return from_config(values)
    except SpecError as error:
        raise SpecError(str(error).replace("config.", "config.source.", 1)) from None


def _set(values: dict[str, Any], field_name: str, value: Any) -> None:
    *groups, name = field_name.split(".")
    for group in groups:
        if not isinstance(values.get(group), dict):
            raise SpecError(f"config.source.{field_name}: no such field; {nearest(group, values)}")
        values = values[group]
    values[name] = value


def default_config() -> Any:  # a ConfigDict, whose type knows no nested fields
    """Returns the neutral experiment as a `ConfigDict`, for config files to change."""
    from ml_collections import ConfigDict

    return ConfigDict(default_values(Spec), convert_dict=True)


def default_values(group: type) -> dict[str, Any]:
    """Returns the defaults of `group` as nested dicts of what a `ConfigDict` holds.

    A field that is None is a placeholder of its type: ml_collections lets the command line override
    no plain None.
    """
    from ml_collections.config_dict import placeholder

    values = {}
    for name, kind in typing.get_type_hints(group, include_extras=True).items():
        default = group.__dataclass_fields__[name].metadata["declaration"].default
        if dataclasses.is_dataclass(default):
            values[name] = default_values(type(default))
        elif default is None:
            values[name] = placeholder(plain_kind(kind))
        else:
            values[name] = dict(default) if isinstance(default, dict) else default
    return values


def declaration_of(name: str) -> Any:
    """Returns the `Declaration` of a dotted field, also of a branch's or the source's, or None."""
    name = name.removeprefix("source.")
    if name.startswith("branch."):
        return declared(BranchSpec).get(name.rpartition(".")[2])
    return declared(Spec).get(name)


def is_default(name: str, value: Any) -> bool:
    """Whether `value`, as `spec.json` holds it, is the default of the dotted field `name`.

    So is a value that an older version wrote where None stands now, such as -1.0.
    """
    declaration = declaration_of(name)
    if declaration is None:
        return False
    if declaration.unset and value is not None and declaration.unset(value):
        value = None
    return json.loads(json.dumps(declaration.default)) == value


def to_dict(spec: Any) -> dict[str, Any]:
    """Returns a spec, or a group of it, as nested plain dicts; tuples stay tuples."""
    return dataclasses.asdict(spec)
