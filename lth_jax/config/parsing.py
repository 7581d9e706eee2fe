"""From a config's values to the fields of a spec, each of its type, with errors of one line."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import typing
from collections.abc import Mapping
from typing import Any

from lth_jax.config.fields import DURATIONS, BranchSpec, flatten
from lth_jax.errors import SpecError, nearest


def build(cls: type, values: Mapping[str, Any], prefix: str) -> Any:
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
            built[name] = build(
                typing.cast(type, kind), _mapping(value, prefix + name), f"{prefix}{name}."
            )
        elif name in ("source", "reference"):
            built[name] = flatten(_mapping(value, name))
        elif name == "branch":
            entries = _mapping(value, prefix + name)
            built[name] = {
                branch: build(
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
        return _pairs(value, field, "(pattern, multiple) pairs, such as (('output', 0.5),)")
    if field == "train.drops":
        return _pairs(value, field, "(duration, factor) pairs, such as (('20000', 0.1),)")
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


def _pairs(value: Any, field: str, accepted: str) -> tuple[tuple[str, float], ...]:
    """(string, number) pairs; as a duration an integer passes too."""
    if not isinstance(value, tuple | list):
        raise SpecError(f"config.{field}={value!r}: accepted: {accepted}")
    pairs = []
    for pair in value:
        whole = isinstance(pair, tuple | list) and len(pair) == 2
        first = pair[0] if whole else None
        if type(first) is int and field == "train.drops":
            first = str(first)
        if not isinstance(first, str):
            raise SpecError(f"config.{field}: {pair!r} is no pair; accepted: {accepted}")
        pairs.append((first, _typed(float, pair[1], field)))
    return tuple(pairs)
