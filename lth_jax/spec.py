"""The experiment's spec: what a config file and the command line say, validated and frozen.

Everything below this module takes plain arguments; `ConfigDict` ends here. Whether a *name* exists
(a model, a dataset, a criterion, ...) is checked by `build`, which knows the registries.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import re
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lth_jax.errors import SpecError, nearest

if TYPE_CHECKING:
    from ml_collections import ConfigDict


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """The network."""

    name: str = "mlp"
    hidden: tuple[int, ...] = (300, 100)


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """The dataset, its splits, and where it lies (the directories are not part of the science)."""

    name: str = "digits"
    validation_size: int = 200
    train_size: int = 0
    test_size: int = 0
    data_dir: str = ""
    manual_dir: str = ""
    cache_dir: str = ""


@dataclasses.dataclass(frozen=True)
class TrainSpec:
    """How one network is trained. `steps` is a duration: `5000`, `40ep`."""

    steps: str = "1000"
    batch_size: int = 60
    optimizer: str = "adam"
    learning_rate: float = 1.2e-3
    weight_decay: float = 0.0
    momentum: float = 0.9


@dataclasses.dataclass(frozen=True)
class EvalSpec:
    """When a network is evaluated (a duration), and in which batches."""

    every: str = "100"
    batch_size: int = 1000


@dataclasses.dataclass(frozen=True)
class PruningSpec:
    """What a level prunes. `layer_rates`: (path pattern, multiple of `fraction`) pairs."""

    criterion: str = "magnitude"
    scope: str = "layerwise"
    fraction: float = 0.2
    layer_rates: tuple[tuple[str, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class RewindSpec:
    """The step (a duration) whose state the survivors return to."""

    step: str = "0"


@dataclasses.dataclass(frozen=True)
class CheckpointSpec:
    """How often a running level is saved, at most, in seconds."""

    every_seconds: float = 20.0


@dataclasses.dataclass(frozen=True)
class ExecutionSpec:
    """How runs are executed. `group_size`: runs trained at once in one `vmap`.

    0 chooses: 1 on CPU (in sequence, and bit for bit repeatable), all runs of a level elsewhere.
    """

    group_size: int = 0
    compilation_cache: bool = False


@dataclasses.dataclass(frozen=True)
class BranchSpec:
    """One branch. An empty `kind` means the branch's name; empty `levels` means all from 1 on."""

    kind: str = ""
    draws: int = 1
    levels: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Spec:
    """One experiment: a trunk of `levels` prunings and its branches, over `replicates`."""

    seed: int = 0
    replicates: int = 3
    levels: int = 12
    branches: tuple[str, ...] = ("reinit", "random_mask")
    model: ModelSpec = ModelSpec()
    data: DataSpec = DataSpec()
    train: TrainSpec = TrainSpec()
    eval: EvalSpec = EvalSpec()
    pruning: PruningSpec = PruningSpec()
    rewind: RewindSpec = RewindSpec()
    checkpoint: CheckpointSpec = CheckpointSpec()
    execution: ExecutionSpec = ExecutionSpec()
    branch: Mapping[str, BranchSpec] = dataclasses.field(default_factory=dict)

    def branch_spec(self, name: str) -> BranchSpec:
        """The options of branch `name`, its kind filled in."""
        options = self.branch.get(name, BranchSpec())
        return dataclasses.replace(options, kind=options.kind or name)


# Outside the identity: what may grow, and where and how a run is executed.
NOT_IDENTITY = (
    "branches", "branch", "levels", "replicates", "checkpoint", "execution",
    "data.data_dir", "data.manual_dir", "data.cache_dir",
)  # fmt: skip
# The same for a branch.
NOT_BRANCH_IDENTITY = ("draws", "levels")

DURATION = re.compile(r"([0-9]+)(ep)?")
DURATIONS = ("train.steps", "eval.every", "rewind.step")
SCOPES = ("layerwise", "global")


def duration_steps(duration: str, steps_per_epoch: int) -> int:
    """A duration in steps: `5000` is 5000, `40ep` is 40 × `steps_per_epoch`."""
    match = DURATION.fullmatch(duration)
    assert match, f"unvalidated duration {duration!r}"
    return int(match[1]) * (steps_per_epoch if match[2] else 1)


def default_config() -> ConfigDict:
    """The neutral experiment as a `ConfigDict`, for config files to change.

    Durations are strings and sequences tuples, so that the command line can override them.
    """
    from ml_collections import ConfigDict

    return ConfigDict(to_dict(Spec()), convert_dict=True)


def to_dict(spec: Any) -> dict[str, Any]:
    """A spec as nested plain dicts; tuples stay tuples."""
    return dataclasses.asdict(spec)


def from_config(config: Mapping[str, Any]) -> Spec:
    """The validated spec of a `ConfigDict` (or nested mapping).

    Raises:
      SpecError: a field, type, value or combination is wrong; one line names the field, the value
        and what is accepted.
    """
    spec = _build(Spec, config, "")
    _check(spec)
    return spec


def _build(cls: type, values: Mapping[str, Any], prefix: str) -> Any:
    """An instance of dataclass `cls` from `values`, every field's type checked."""
    types = typing.get_type_hints(cls)
    for name in values:
        if name not in types:
            shown = name if str(name).isidentifier() else repr(name)
            raise SpecError(f"config.{prefix}{shown}: no such field; {nearest(str(name), types)}")
    built = {}
    for name, value in values.items():
        kind = types[name]
        if dataclasses.is_dataclass(kind):
            built[name] = _build(
                typing.cast(type, kind), _mapping(value, prefix + name), f"{prefix}{name}."
            )
        elif name == "branch":
            entries = _mapping(value, prefix + name)
            built[name] = {
                branch: _build(
                    BranchSpec, _mapping(entries[branch], f"branch.{branch}"), f"branch.{branch}."
                )
                for branch in entries
            }
        else:
            built[name] = _typed(kind, value, prefix + name)
    return cls(**built)


def _mapping(value: Any, field: str) -> Mapping[str, Any]:
    if not hasattr(value, "keys"):
        raise SpecError(f"config.{field}={value!r}: accepted: a group of fields")
    return value


def _typed(kind: Any, value: Any, field: str) -> Any:
    """`value` as `kind`, or an error: ints pass as floats and as durations, nothing else does."""
    if field in DURATIONS and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return float(value)
    if kind in (int, float, str, bool):
        if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
            return value.strip() if isinstance(value, str) else value
        names = {int: "an integer", float: "a number", str: "a string", bool: "True or False"}
        raise SpecError(f"config.{field}={value!r}: accepted: {names[kind]}")
    if field == "pruning.layer_rates":
        return _layer_rates(value, field)
    return _sequence(typing.get_args(kind)[0], value, field)


def _sequence(element: type, value: Any, field: str) -> tuple:
    """A tuple of `element`; strings within are split at commas (`reinit,random_mask`)."""
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, tuple | list):
        raise SpecError(f"config.{field}={value!r}: accepted: a tuple, such as () or (1, 2)")
    if element is str and all(isinstance(part, str) for part in value):
        return tuple(name for part in value for name in re.split(r"[,\s]+", part) if name)
    return tuple(_typed(element, part, field) for part in value)


def _layer_rates(value: Any, field: str) -> tuple[tuple[str, float], ...]:
    accepted = "accepted: (pattern, multiple) pairs, such as (('output', 0.5),)"
    if not isinstance(value, tuple | list):
        raise SpecError(f"config.{field}={value!r}: {accepted}")
    pairs = []
    for pair in value:
        if not (isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], str)):
            raise SpecError(f"config.{field}: {pair!r} is no pair; {accepted}")
        pairs.append((pair[0], _typed(float, pair[1], field)))
    return tuple(pairs)


def _check(spec: Spec) -> None:
    """Values and combinations that need no registry and no data."""

    def need(holds: bool, field: str, accepted: str) -> None:
        if not holds:
            value: Any = spec
            for part in field.split("."):
                value = value[part] if isinstance(value, Mapping) else getattr(value, part)
            raise SpecError(f"config.{field}={value!r}: accepted: {accepted}")

    for field in DURATIONS:
        group, name = field.split(".")
        need(
            DURATION.fullmatch(getattr(getattr(spec, group), name)) is not None,
            field,
            "steps or epochs, such as 5000 or 40ep",
        )
    need(not re.fullmatch(r"0+(ep)?", spec.train.steps), "train.steps", "at least one step")
    need(not re.fullmatch(r"0+(ep)?", spec.eval.every), "eval.every", "at least one step")
    need(0 <= spec.seed < 2**32, "seed", "0 to 4294967295")
    need(1 <= spec.replicates <= 1000, "replicates", "1 to 1000")
    need(0 <= spec.levels <= 1000, "levels", "0 to 1000")
    need(all(width >= 1 for width in spec.model.hidden), "model.hidden", "widths of at least 1")
    need(spec.data.validation_size >= 1, "data.validation_size", "at least 1")
    need(spec.data.train_size >= 0, "data.train_size", "0 (all) or more")
    need(spec.data.test_size >= 0, "data.test_size", "0 (all) or more")
    need(spec.train.batch_size >= 1, "train.batch_size", "at least 1")
    need(
        math.isfinite(spec.train.learning_rate) and spec.train.learning_rate > 0,
        "train.learning_rate",
        "a number above 0",
    )
    need(
        math.isfinite(spec.train.weight_decay) and spec.train.weight_decay >= 0,
        "train.weight_decay",
        "0 or more",
    )
    need(0 <= spec.train.momentum < 1, "train.momentum", "0 to below 1")
    need(spec.eval.batch_size >= 1, "eval.batch_size", "at least 1")
    need(spec.pruning.scope in SCOPES, "pruning.scope", " or ".join(SCOPES))
    need(0 < spec.pruning.fraction < 1, "pruning.fraction", "a number above 0 and below 1")
    need(
        all(0 <= rate * spec.pruning.fraction < 1 for _, rate in spec.pruning.layer_rates),
        "pruning.layer_rates",
        "multiples of 0 or more that times pruning.fraction stay below 1",
    )
    need(
        math.isfinite(spec.checkpoint.every_seconds) and spec.checkpoint.every_seconds >= 0,
        "checkpoint.every_seconds",
        "0 or more seconds",
    )
    need(spec.execution.group_size >= 0, "execution.group_size", "0 (automatic) or more")
    _check_branches(spec, need)


def _check_branches(spec: Spec, need: Any) -> None:
    need(len(set(spec.branches)) == len(spec.branches), "branches", "each name once")
    need("ticket" not in spec.branches, "branches", "any names but 'ticket', the trunk's own")
    need(
        all(re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name) for name in spec.branches),
        "branches",
        "names of letters, digits, '_', '-', '+' and '.'",
    )
    for name, options in spec.branch.items():
        need(options.draws >= 1, f"branch.{name}.draws", "at least 1")
        need(all(level >= 1 for level in options.levels), f"branch.{name}.levels", "levels from 1")


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one dict with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def science(spec: Spec) -> dict[str, Any]:
    """The fields that the identity covers, dotted, those at their defaults left out.

    Defaults are left out so that a new option with a neutral default keeps old identities; which
    also means that an existing default never changes (golden hashes in the tests guard it).
    """
    defaults = flatten(to_dict(Spec()))
    return {
        name: value
        for name, value in flatten(to_dict(spec)).items()
        if not any(name == out or name.startswith(out + ".") for out in NOT_IDENTITY)
        and (name not in defaults or value != defaults[name])
    }


def _hash(fields: Mapping[str, Any]) -> str:
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def identity(spec: Spec) -> str:
    """8 hex digits of the trunk's science: equal where every existing row would be equal."""
    return _hash(science(spec))


def branch_science(branch: BranchSpec) -> dict[str, Any]:
    """What makes the rows of a branch: its kind and its non-default options."""
    defaults = to_dict(BranchSpec())
    return {
        name: value
        for name, value in to_dict(branch).items()
        if name not in NOT_BRANCH_IDENTITY and (name == "kind" or value != defaults[name])
    }


def branch_identity(branch: BranchSpec) -> str:
    """8 hex digits of a branch's kind and options; `draws` and `levels` may grow."""
    return _hash(branch_science(branch))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Differing fields of two `science` dicts, as `field: old there, new here`."""
    defaults = flatten(to_dict(Spec()))

    def show(fields: Mapping[str, Any], name: str) -> str:
        return json.dumps(fields.get(name, defaults.get(name)))

    return [
        f"{name}: {show(old, name)} there, {show(new, name)} here"
        for name in sorted({*old, *new})
        if show(old, name) != show(new, name)
    ]
