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
    return {
        name: _text(name.partition(".")[0], value)
        for name, value in specs.flatten(recorded).items()
        if not specs.is_default(name, value)
    }


def _text(group: str, value: Any) -> str:
    if group == "reference" and isinstance(value, list):
        return f"{len(value)} points"
    return value if isinstance(value, str) else json.dumps(value)
