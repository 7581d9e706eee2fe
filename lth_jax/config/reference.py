"""Published results that an experiment is held against: points of curves, and claims about them.

`config.reference` holds, each of them optional: `title`, whose they are; `source`, where they
stand; `steps`, how long their networks trained; `<branch>.<column>`, points of a curve as `POINTS`
says; and `claims`, mappings with the fields of `Published`, where `at` is the density or the range.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

LARGEST = 1e30
KINDS = ("gain", "sooner", "times", "falls")
_TEXTS = {
    "says": "",
    "kind": "",
    "branch": "ticket",
    "against": "dense",
    "relation": "about",
    "where": "",
}
_NUMBERS = ("value", "uncertainty")

POINTS = "(density, value) or (density, value, uncertainty), in a tuple"
CLAIMS = "mappings of says, kind (gain, sooner, times or falls), at (a density, or two) and value"


class Published(NamedTuple):
    """One published number.

    Attributes:
      says: the claim in words; empty for a point of a curve.
      kind: a column of `results.csv`, for its mean; or, against another branch, `gain`, the
        difference in test accuracy at early stop; `sooner`, the share of its steps that the early
        stop comes earlier; `times`, how many times as many steps the other takes; `falls`, the
        density from which on the branch is below the other, whose own value is a density.
      branch: whose it is.
      against: the other branch, at the same level; `dense` is the dense network.
      densities: where: one, or the first and last of a range, falling.
      value: a fraction, a number of steps, a factor or a density.
      uncertainty: its own, in the same unit: it lies within value ± uncertainty.
      relation: whether it is `about` the value, or `over` it at each level of the range.
      where: where it stands.
    """

    says: str
    kind: str
    branch: str
    against: str
    densities: tuple[float, ...]
    value: float
    uncertainty: float = 0.0
    relation: str = "about"
    where: str = ""


def published(reference: Mapping[str, Any]) -> list[Published]:
    """Returns what a checked `config.reference` holds: its claims, then its points.

    Args:
      reference: flat, by dotted name.
    """
    found = [_claim(one) for one in reference.get("claims", ())]
    for (branch, column), points in curves(reference).items():
        for density, value, *uncertainty in points:
            error = uncertainty[0] if uncertainty else 0.0
            found.append(Published("", column, branch, "", (density,), value, error))
    return found


def curves(reference: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
    """Returns the published points of each (branch, column)."""
    names = (name for name in reference if "." in name)
    return {(name.rpartition(".")[0], name.rpartition(".")[2]): reference[name] for name in names}


def _claim(values: Mapping[str, Any]) -> Published:
    at = values["at"]
    densities = tuple(at) if isinstance(at, list | tuple) else (at,)
    texts = {name: values.get(name, default) for name, default in _TEXTS.items()}
    error = values.get("uncertainty", 0.0)
    return Published(**texts, densities=densities, value=values["value"], uncertainty=error)


def wrong(name: str, value: Any) -> str:
    """Returns what is accepted for the entry `name` of a reference, if `value` is not; else ''."""
    if name in ("title", "source"):
        return "" if isinstance(value, str) and value.isprintable() else "a string"
    if name == "steps":
        return "" if isinstance(value, int) and 0 < value < LARGEST else "a number of steps"
    many = isinstance(value, tuple | list)
    if name == "claims":
        return "" if many and all(map(_is_claim, value)) else CLAIMS
    return "" if many and all(map(_is_point, value)) else POINTS


def _is_point(point: Any) -> bool:
    return isinstance(point, tuple | list) and len(point) in (2, 3) and all(map(_is_number, point))


def _is_claim(values: Any) -> bool:
    if not isinstance(values, Mapping) or not {"says", "kind", "at", "value"} <= values.keys():
        return False
    if not values.keys() <= {*_TEXTS, *_NUMBERS, "at"}:
        return False
    at = values["at"] if isinstance(values["at"], tuple | list) else (values["at"],)
    texts = [values[name] for name in _TEXTS if name in values]
    return (
        all(isinstance(text, str) and text.isprintable() for text in texts)
        and all(_is_number(values[name]) for name in _NUMBERS if name in values)
        and values["kind"] in KINDS
        and values.get("relation", "about") in ("about", "over")
        and len(at) in (1, 2)
        and all(_is_number(density) and 0 < density <= 1 for density in at)
        and all(first > last for first, last in itertools.pairwise(at))
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST
