"""Facts as one JSON object for programs."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from lth_jax.analysis.summary import lowest_matching_density
from lth_jax.cli.inspection.facts import Facts
from lth_jax.cli.inspection.select import (
    Detail,
    Selection,
    arrays_of,
    checkpoints_of,
    rows_of,
)


def run_object(facts: Facts, asked: Selection, detail: Detail | None) -> dict[str, Any]:
    """What `inspect --json` prints.

    What `spec.json` no longer tells is null. `checkpoints` lists arrays, each by its checkpoint's
    name and its own; the bytes are those in memory.
    """
    record = facts.record
    found: dict[str, Any] = {
        "path": str(facts.path),
        "name": record.get("name"),
        "identity": record.get("identity"),
        "status": facts.status,
        "progress": _progress(facts, asked.branch),
        "problems": facts.problems,
        "leftovers": facts.leftovers,
        "spec": record.get("spec"),
        "branches": record.get("branches"),
        "versions": record.get("versions"),
        "command": record.get("command"),
        "source": str(facts.source()) if facts.source() else None,
        "lowest_matching_density": lowest_matching_density(facts.rows),
        "results": [dataclasses.asdict(row) for row in rows_of(facts, asked)],
        "checkpoints": [
            {
                "path": f"{kept.name}/{name}",
                "shape": kept.arrays[name][0],
                "dtype": kept.arrays[name][1],
                "bytes": kept.sizes()[name],
                "damaged": bool(kept.damage),
            }
            for kept in checkpoints_of(facts, asked)
            for name in arrays_of(kept, asked.layer)
        ],
    }
    if detail:
        found["layers_of"] = {
            "branch": "ticket",
            "level": detail.level,
            "replicate": detail.replicate,
            "signs_since": detail.start or None,
        }
        found["layers"] = [dataclasses.asdict(layer) for layer in detail.layers]
    return found


def _progress(facts: Facts, branch: str | None) -> dict[str, Any]:
    planned, pending = facts.planned(branch), facts.pending(branch)
    return {
        "done": len(planned) - len(pending) if planned else len(facts.rows),
        "planned": len(planned) if facts.spec else None,
        "level": min((run_id.level for run_id in pending), default=None),
        "under_way": [
            {**run_id._asdict(), "step": step}
            for run_id, step in facts.under_way()
            if branch in (None, run_id.branch)
        ],
        "holder": facts.holder or None,
    }


def dumps(value: Any) -> str:
    """`value` as JSON that every parser reads: what is not a finite number is null."""
    return json.dumps(_finite(value), indent=1, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
