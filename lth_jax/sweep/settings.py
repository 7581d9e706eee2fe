"""What the experiments of a sweep found by the values of their fields, as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lth_jax.analysis.summary import Stat
from lth_jax.store.tables import TRUNK
from lth_jax.sweep.directory import Member

SEED = "seed"
COLUMN = "early_stop_test_accuracy"


class Setting(NamedTuple):
    """The values of the fields that a sweep varies, but for the seed: experiments of one question.

    Attributes:
      fields: field -> value.
      dense: the test metric at early stop of its dense networks.
      ticket: that of its tickets at `Sweep.level`.
      runs: dense networks that enter it, over all seeds and replicates.
    """

    fields: Mapping[str, Any]
    dense: Stat
    ticket: Stat
    runs: int


class Sweep(NamedTuple):
    """The settings of a sweep.

    Attributes:
      settings: those that have results, in the order in which they were asked for.
      fields: that differ between them, each with its values in order.
      level: the last that every finished experiment has; 0 where there is none.
    """

    settings: Sequence[Setting]
    fields: Mapping[str, Sequence[Any]]
    level: int


def settings_of(members: Sequence[Member]) -> Sweep:
    """Returns what experiments found, those that differ in the seed alone taken together.

    Each replicate of each seed is drawn by itself: a setting's interval is the 95% t-interval of
    the mean over all of them.
    """
    members = [member for member in members if member.rows]
    names = list(members[0].fields) if members else []
    names = [name for name in names if name != SEED] or names
    last = [max(row.level for row in m.rows if row.branch == TRUNK) for m in members]
    level = min(last, default=0)
    groups: dict[tuple[str, ...], list[Member]] = {}
    for member in members:
        groups.setdefault(tuple(repr(member.fields[name]) for name in names), []).append(member)
    settings = []
    for group in groups.values():
        fields = {name: group[0].fields[name] for name in names}
        dense, ticket = (_stat(group, at) for at in (0, level))
        settings.append(Setting(fields, dense[0], ticket[0], dense[1]))
    values = {name: ordered(setting.fields[name] for setting in settings) for name in names}
    return Sweep(settings, {name: v for name, v in values.items() if len(v) > 1}, level)


def _stat(group: Sequence[Member], level: int) -> tuple[Stat, int]:
    """Returns the statistics of a level's tickets that did not diverge, and their number."""
    values = [
        getattr(row, COLUMN)
        for member in group
        for row in member.rows
        if row.branch == TRUNK and row.level == level and row.diverged < 0
    ]
    return Stat.of(values), len(values)


def ordered(values: Iterable[Any]) -> list[Any]:
    """Returns the different values, numbers by size and others as they come."""
    different = list({repr(value): value for value in values}.values())
    return sorted(different) if all(map(is_number, different)) else different


def is_number(value: Any) -> bool:
    """Tells whether a value has a place on an axis."""
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return numeric and math.isfinite(value)


def shown(fields: Mapping[str, Any]) -> str:
    """Writes the values of fields for people: `train.learning_rate=0.001, model.name=mlp`."""
    return ", ".join(f"{name}={value}" for name, value in fields.items())
