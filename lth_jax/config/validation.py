"""From a config to a validated spec, with errors of one line."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from typing import Any

from lth_jax.config.fields import (
    DURATION,
    DURATIONS,
    KERNELS,
    LABELS,
    PART,
    REWINDS,
    SCHEDULES,
    SCOPES,
    SHAPES,
    TRANSFERS,
    Spec,
    to_dict,
)
from lth_jax.config.parsing import build
from lth_jax.errors import SpecError, nearest


def from_config(config: Mapping[str, Any]) -> Spec:
    """The validated spec of a `ConfigDict` (or nested mapping).

    Raises:
      SpecError: a field, type, value or combination is wrong; one line names the field, the value
        and what is accepted.
    """
    spec = build(Spec, config, "")
    _check(spec)
    if spec.source:
        source_spec(spec)
    return spec


def source_spec(spec: Spec) -> Spec:
    """The experiment that transfers take their tickets from: `spec` with what `source` says.

    Raises:
      SpecError: a field of `source` is wrong.
    """
    values: dict[str, Any] = to_dict(spec) | {
        "branches": (), "branch": {}, "source": {}, "reference": {},
        "pretrain": False,
    }  # fmt: skip
    for field, value in spec.source.items():
        if field != "run":
            _set(values, field, value)
    try:
        return from_config(values)
    except SpecError as error:
        raise SpecError(str(error).replace("config.", "config.source.", 1)) from None


def _set(values: dict[str, Any], field: str, value: Any) -> None:
    *groups, name = field.split(".")
    for group in groups:
        if not isinstance(values.get(group), dict):
            raise SpecError(f"config.source.{field}: no such field; {nearest(group, values)}")
        values = values[group]
    values[name] = value


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
    need(0 < spec.model.width < math.inf, "model.width", "a number above 0")
    need(spec.model.dropout < 1, "model.dropout", "below 1; negative: the network's own")
    need(spec.data.validation_size >= 1, "data.validation_size", "at least 1")
    need(spec.data.train_size >= 0, "data.train_size", "0 (all) or more")
    need(spec.data.test_size >= 0, "data.test_size", "0 (all) or more")
    need(spec.data.labels in LABELS, "data.labels", " or ".join(LABELS))
    part = PART.fullmatch(spec.data.part)
    need(
        not spec.data.part or (part is not None and int(part[1]) <= int(part[2])),
        "data.part",
        "'' or a part such as 1/2 or 2/2",
    )
    need(spec.data.side >= 0, "data.side", "0 (as they are) or pixels")
    need(spec.data.channels >= 0, "data.channels", "0 (as they are) or a number of channels")
    need(spec.data.crop >= 0, "data.crop", "0 (none) or pixels")
    _check_reference(spec)
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
    _check_training(spec, need)
    need(spec.pruning.scope in SCOPES, "pruning.scope", " or ".join(SCOPES))
    need(spec.pruning.schedule in SCHEDULES, "pruning.schedule", " or ".join(SCHEDULES))
    need(spec.pruning.at in ("", "trained", "rewind"), "pruning.at", "'', trained or rewind")
    need(spec.pruning.rounds >= 0, "pruning.rounds", "0 (the criterion's own) or more")
    need(spec.pruning.examples >= 1, "pruning.examples", "at least 1")
    need(0 < spec.pruning.alpha < math.inf, "pruning.alpha", "a number above 0")
    need(0 < spec.pruning.temperature < math.inf, "pruning.temperature", "a number above 0")
    need(spec.rewind.kind in REWINDS, "rewind.kind", " or ".join(REWINDS))
    _check_densities(spec, need)
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
    need(spec.execution.workers >= 0, "execution.workers", "0 (automatic) or more")
    _check_branches(spec, need)


def _check_training(spec: Spec, need: Any) -> None:
    train = spec.train
    need(
        not train.nesterov or train.optimizer == "momentum",
        "train.nesterov",
        "True with train.optimizer momentum alone",
    )
    need(train.schedule in SHAPES, "train.schedule", " or ".join(SHAPES))
    need(
        all(DURATION.fullmatch(when) and factor > 0 for when, factor in train.drops),
        "train.drops",
        "(duration, factor) pairs with factors above 0, such as (('20000', 0.1), ('120ep', 0.1))",
    )
    need(
        not train.drops or train.schedule == "constant",
        "train.drops",
        "none with train.schedule cosine",
    )
    need(0 <= train.label_smoothing < 1, "train.label_smoothing", "0 to below 1")
    need(train.kernel in KERNELS, "train.kernel", " or ".join(KERNELS))


def _check_reference(spec: Spec) -> None:
    if not isinstance(spec.reference.get("title", ""), str):
        raise SpecError(f"config.reference.title={spec.reference['title']!r}: accepted: a string")
    for field, points in spec.reference.items():
        pairs = isinstance(points, tuple | list) and all(map(_is_pair, points))
        if not (field == "title" or pairs):
            raise SpecError(
                f"config.reference.{field}={points!r}: accepted: (density, value) pairs"
            )


def _is_pair(point: Any) -> bool:
    return (
        isinstance(point, tuple | list)
        and len(point) == 2
        and all(isinstance(value, int | float) for value in point)
    )


def _check_densities(spec: Spec, need: Any) -> None:
    densities = spec.pruning.densities
    falling = all(a > b for a, b in itertools.pairwise((1.0, *densities)))
    need(
        falling and all(density > 0 for density in densities),
        "pruning.densities",
        "falling densities, each below the one before it (1 at level 0) and above 0",
    )
    need(
        not densities or spec.levels <= len(densities),
        "levels",
        f"0 to {len(densities)}, the number of pruning.densities",
    )


def _check_branches(spec: Spec, need: Any) -> None:
    transfers = [name for name in spec.branches if spec.branch_spec(name).kind in TRANSFERS]
    users = [*transfers, *(["pretrain"] if spec.pretrain else [])]
    need(
        not users or bool(spec.source),
        "source",
        f"what differs in the source, such as source.data.name, for {', '.join(users)}",
    )
    need(len(set(spec.branches)) == len(spec.branches), "branches", "each name once")
    need("ticket" not in spec.branches, "branches", "any names but 'ticket', the trunk's own")
    need(
        all(re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name) for name in spec.branches),
        "branches",
        "names of letters, digits, '_', '-', '+' and '.'",
    )
    for name, options in spec.branch.items():
        field = f"branch.{name}."
        need(options.draws >= 1, field + "draws", "at least 1")
        need(0 <= options.sigma < math.inf, field + "sigma", "0 or more")
        need(
            not options.steps or DURATION.fullmatch(options.steps) is not None,
            field + "steps",
            "steps or epochs, such as 5000 or 40ep, or '' for those of train",
        )
        need(options.batch_size >= 0, field + "batch_size", "0 (that of train) or more")
        need(
            0 <= options.learning_rate < math.inf,
            field + "learning_rate",
            "0 (that of train) or more",
        )
        need(
            math.isfinite(options.weight_decay),
            field + "weight_decay",
            "0 or more; negative: that of train",
        )
        need(options.momentum < 1, field + "momentum", "below 1; negative: that of train")
        need(all(level >= 1 for level in options.levels), field + "levels", "levels from 1 on")
        need(
            name not in spec.branches or all(level <= spec.levels for level in options.levels),
            field + "levels",
            f"levels of the trunk, which has 1 to {spec.levels} (config.levels)",
        )
