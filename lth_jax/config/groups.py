"""What is said of the fields of a config: one account of them, for the help and for the site."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from lth_jax.config.fields import Declaration, declared
from lth_jax.config.spec import BranchSpec, Spec

EXPERIMENT, BRANCH = "experiment", "branch"


class FieldGroup(NamedTuple):
    """A group of fields.

    Attributes:
      name: `pruning`, or `experiment` for the fields that are in no group.
      means: one sentence for people.
      fields: dotted name -> declaration; `branch.<name>.draws` for an option of each branch.
    """

    name: str
    means: str
    fields: dict[str, Declaration]


def field_groups() -> list[FieldGroup]:
    """Returns all fields of a config by group, in the order of the spec; branches' options last."""
    plain = FieldGroup(EXPERIMENT, _sentence(Spec), {})
    groups = {EXPERIMENT: plain}
    for one in dataclasses.fields(Spec):
        declaration = one.metadata["declaration"]
        if dataclasses.is_dataclass(declaration.default):
            groups[one.name] = FieldGroup(one.name, declaration.means, {})
    for name, declaration in declared(Spec).items():
        group = name.partition(".")[0] if "." in name else EXPERIMENT
        groups[group].fields[name] = declaration
    options = declared(BranchSpec, f"{BRANCH}.<name>.")
    return [*groups.values(), FieldGroup(BRANCH, _sentence(BranchSpec), options)]


def type_of(declaration: Declaration) -> str:
    """Returns the type of a field for people: `int`, `float or None`, `tuple of str`, with unit."""
    text = re.sub(r"tuple\[(\w+), \.\.\.\]", r"tuple of \1", declaration.kind)
    text = re.sub(r"tuple\[tuple\[(\w+), (\w+)\], \.\.\.\]", r"tuple of (\1, \2)", text)
    text = re.sub(r"Mapping\[.*\]", "group of fields", text).replace(" | ", " or ")
    text = text.replace("Duration", "duration")
    return f"{text}, in {declaration.unit}" if declaration.unit else text


def default_of(declaration: Declaration) -> str:
    """Returns the default of a field as it is written in a config; empty for a group of fields."""
    return "" if isinstance(declaration.default, Mapping) else repr(declaration.default)


def _sentence(group: type) -> str:
    doc: Any = inspect.getdoc(group)
    return " ".join(doc.partition("\n\n")[0].split())
