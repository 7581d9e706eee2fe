"""Own fields: `config.custom`, which a config's own rows take by the names of their parameters.

A row is a function that is given some arguments always, such as a model's number of classes. What
it has beside these, with a default, a config may set: `config.custom.depth = 4` reaches every row
with a parameter `depth`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

ACCEPTED = "a number, a string, True, False, or a tuple of these"
# What rows have such parameters for already.
_NAMED = {
    **{name: f"model.{name}" for name in ("hidden", "init", "width", "dropout", "stem", "dtype")},
    **{name: f"train.{name}" for name in ("learning_rate", "steps")},
    **{name: f"train.{name}" for name in ("weight_decay", "momentum", "nesterov")},
}
# Those of every Linen module.
_OTHERS = ("name", "parent")


def wrong(name: str, value: Any) -> str:
    """Returns what is accepted for the own field `name`, if its name or value is not; else ''."""
    if name in _NAMED:
        return f"another name; config.{_NAMED[name]} is what rows take as {name}"
    if not name.isidentifier() or name in _OTHERS:
        return "a name that a parameter can have, none of a group, and not name or parent"
    values = value if isinstance(value, tuple) else (value,)
    return "" if all(map(_is_plain, values)) else ACCEPTED


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return value.isprintable()
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return isinstance(value, float) and math.isfinite(value)


def parameters(row: Callable[..., Any], given: int = 0) -> dict[str, Any]:
    """Returns the own fields that a row takes: name -> default.

    Args:
      row: a function.
      given: how many arguments it is always given by position.
    """
    return {
        name: default
        for name, default in list(named_parameters(row).items())[given:]
        if name not in (*_NAMED, *_OTHERS)
    }


def named_parameters(row: Callable[..., Any]) -> dict[str, Any]:
    """Returns the parameters that a function may be given by name: name -> default."""
    try:
        all_of_it = inspect.signature(row).parameters
    except (TypeError, ValueError):  # some callables written in C do not say what they take
        return {}
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: one.default for name, one in all_of_it.items() if one.kind in kinds}


def taken(row: Callable[..., Any], fields: Mapping[str, Any], given: int = 0) -> dict[str, Any]:
    """Returns those of a spec's own `fields` that a row takes."""
    return {name: fields[name] for name in parameters(row, given) if name in fields}


def with_fields(
    row: Callable[..., Any], fields: Mapping[str, Any], given: int = 0
) -> Callable[..., Any]:
    """Returns a row with those of a spec's own `fields` filled in that it takes."""
    own = taken(row, fields, given)
    return partial(row, **own) if own else row
