"""What of a run is asked for; where there is no such thing, what there is."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

from lth_jax.cli.inspection.facts import Facts
from lth_jax.cli.inspection.kept import Kept
from lth_jax.cli.inspection.layers import Layer, layers_of
from lth_jax.errors import StoreError, nearest, spans
from lth_jax.pruning.trees import name_matches
from lth_jax.store.tables import ResultRow


@dataclasses.dataclass(frozen=True)
class Selection:
    """What is asked for; None for all of it."""

    branch: str | None = None
    level: int | None = None
    replicate: int | None = None
    layer: str | None = None


@dataclasses.dataclass(frozen=True)
class Detail:
    """The layers of one level of one replicate.

    Attributes:
      level, replicate: whose; the branch is always the trunk, controls keep metrics only.
      layers: the prunable ones.
      start: the checkpoint with which signs are compared, `initial` or `rewind`, or an empty string
        where it is lost.
    """

    level: int
    replicate: int
    layers: list[Layer]
    start: str


def check(facts: Facts, asked: Selection) -> None:
    """Raises a StoreError, with what there is, unless all that is asked for exists."""
    if asked.branch is not None and asked.branch not in facts.branches:
        hint = nearest(asked.branch, facts.branches)
        raise StoreError(f"{facts.path} has no branch '{asked.branch}'; {hint}")
    levels = facts.levels()
    if asked.level is not None:
        replicate = asked.replicate or 0
        if asked.level not in levels.get(replicate, {}):
            raise StoreError(
                f"{facts.path} has no level {asked.level} of replicate {replicate}; "
                f"accepted: {_there_is(levels)}"
            )
    elif asked.replicate is not None and asked.replicate not in _replicates(facts):
        there_is = spans(_replicates(facts)) or "nothing yet, nothing is trained"
        raise StoreError(f"{facts.path} has no replicate {asked.replicate}; accepted: {there_is}")
    if asked.layer is not None and not matching(layer_names(facts), asked.layer):
        names = ", ".join(layer_names(facts))
        accepted = f"a pattern for {names}" if names else "nothing yet, no level is finished"
        raise StoreError(
            f"{facts.path}: --layer='{asked.layer}' matches no prunable layer; accepted: {accepted}"
        )


def _replicates(facts: Facts) -> set[int]:
    kept = [re.match(r"replicate_(\d+)/", name) for name in facts.checkpoints]
    return {row.replicate for row in facts.rows} | {int(match[1]) for match in kept if match}


def _there_is(levels: Mapping[int, Mapping[int, Kept]]) -> str:
    """`levels 0 to 16 of replicates 0 to 2`, or each replicate's levels where they differ."""
    if not levels:
        return "nothing yet, no level is finished"
    by_levels: dict[str, list[int]] = {}
    for replicate, found in levels.items():
        by_levels.setdefault(spans(found), []).append(replicate)
    return "; ".join(
        f"level{'s' * (not found.isdigit())} {found} of replicate{'s' * (len(of) > 1)} {spans(of)}"
        for found, of in by_levels.items()
    )


def layer_names(facts: Facts) -> list[str]:
    """The prunable layers, of any level that is kept."""
    kept = (kept for levels in facts.levels().values() for kept in levels.values())
    return list(dict.fromkeys(name for k in kept for name in k.meta.get("layers", ())))


def matching(names: Iterable[str], pattern: str | None) -> list[str]:
    """The layers that a pattern names, as `pruning.layer_rates` does; all for None."""
    return [name for name in names if pattern is None or name_matches(name, pattern)]


def rows_of(facts: Facts, asked: Selection) -> list[ResultRow]:
    """The rows of the branch that is asked for."""
    return [row for row in facts.rows if asked.branch in (None, row.branch)]


def checkpoints_of(facts: Facts, asked: Selection) -> list[Kept]:
    """The checkpoints asked for: of one level, its own and those it started from."""
    if asked.level is None and asked.replicate is None:
        return list(facts.checkpoints.values())
    folder = f"replicate_{asked.replicate or 0}/"
    own = [kept for name, kept in facts.checkpoints.items() if name.startswith(folder)]
    if asked.level is None:
        return own
    level = facts.levels()[asked.replicate or 0][asked.level]
    return [kept for kept in own if kept is level or not kept.name.startswith(f"{folder}level_")]


def arrays_of(kept: Kept, pattern: str | None) -> list[str]:
    """The arrays of a checkpoint that belong to a layer: `params/fc1/kernel` to `fc1`."""

    def belongs(parts: Sequence[str]) -> bool:
        tails = ("/".join(parts[start:]) for start in range(len(parts)))
        return pattern is None or any(name_matches(tail, pattern) for tail in tails)

    return [name for name in kept.arrays if belongs(name.split("/"))]


def detail_of(facts: Facts, asked: Selection) -> Detail | None:
    """The layers of the level that is asked for, read from its arrays; None for no level.

    Raises:
      Damaged: the level's checkpoint is damaged.
    """
    if asked.level is None:
        return None
    replicate = asked.replicate or 0
    trained = facts.levels()[replicate][asked.level]
    if trained.damage:
        raise StoreError(f"checkpoint {trained.path} cannot be used: {trained.damage}")
    start = _start(facts, replicate, asked.level)
    names = matching(trained.meta.get("layers", ()), asked.layer)
    layers = layers_of(trained, start, names)
    return Detail(asked.level, replicate, layers, start.name.rpartition("/")[2] if start else "")


def _start(facts: Facts, replicate: int, level: int) -> Kept | None:
    """The checkpoint of the weights that training started from: rewound, or initial."""
    rewind = facts.checkpoints.get(f"replicate_{replicate}/rewind") if level else None
    start = rewind or facts.checkpoints.get(f"replicate_{replicate}/initial")
    return start if start and not start.damage else None
