"""The fields of a recorded spec that are not at their defaults."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lth_jax import config as specs


def fields(recorded: Mapping[str, Any]) -> dict[str, str]:
    """Dotted field -> its value for people, of a spec as `spec.json` holds it.

    Fields that this version does not know are among them: what they mean is for another to say.
    """
    defaults = _plain(specs.flatten(specs.to_dict(specs.Spec())))
    branch_defaults = _plain(specs.to_dict(specs.BranchSpec()))
    shown = {}
    for name, value in specs.flatten(recorded).items():
        group, _, rest = name.partition(".")
        default = defaults.get(name, ...)
        if group == "branch":
            default = branch_defaults.get(rest.rpartition(".")[2], ...)
        if value != default:
            shown[name] = _text(group, value)
    return shown


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives them back: tuples are lists."""
    return json.loads(json.dumps(values))


def _text(group: str, value: Any) -> str:
    if group == "reference" and isinstance(value, list):
        return f"{len(value)} points"
    return value if isinstance(value, str) else json.dumps(value)
