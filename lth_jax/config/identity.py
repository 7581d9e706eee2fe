"""Identities: equal where every existing number would be equal."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from lth_jax.config.fields import TRANSFERS, BranchSpec, Spec, flatten, to_dict

# Outside the identity: what may grow, and where and how a run is executed.
NOT_IDENTITY = (
    "branches", "source", "branch", "reference", "levels", "replicates", "checkpoint", "execution",
    "train.kernel",
    "data.data_dir", "data.manual_dir", "data.cache_dir",
)  # fmt: skip
# The same for a branch.
NOT_BRANCH_IDENTITY = ("draws", "levels")


def science(spec: Spec) -> dict[str, Any]:
    """The fields that the identity covers, dotted, those at their defaults left out.

    Defaults are left out so that a new option with a neutral default keeps old identities; which
    also means that an existing default never changes (golden hashes in the tests guard it).
    """
    defaults = flatten(to_dict(Spec()))
    source = {f"source.{name}": value for name, value in spec.source.items()}
    return (source if spec.pretrain else {}) | {
        name: value
        for name, value in flatten(to_dict(spec)).items()
        if not any(name == out or name.startswith(out + ".") for out in NOT_IDENTITY)
        and (name not in defaults or value != defaults[name])
    }


def _hash(fields: Mapping[str, Any]) -> str:
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def identity(spec: Spec) -> str:
    """8 hex digits of the trunk's science: equal where every existing row would be equal."""
    return _hash(science(spec))


def branch_science(branch: BranchSpec, source: str = "") -> dict[str, Any]:
    """What makes the rows of a branch: its kind, its non-default options, and a transfer's source.

    Args:
      branch: its options.
      source: the identity of the source experiment.
    """
    defaults = to_dict(BranchSpec())
    of_source = {"source": source} if branch.kind in TRANSFERS else {}
    return of_source | {
        name: value
        for name, value in to_dict(branch).items()
        if name not in NOT_BRANCH_IDENTITY and (name == "kind" or value != defaults[name])
    }


def branch_identity(branch: BranchSpec, source: str = "") -> str:
    """8 hex digits of what makes a branch's rows; `draws` and `levels` may grow."""
    return _hash(branch_science(branch, source))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Differing fields of two `science` dicts, as `field: old there, new here`."""
    defaults = flatten(to_dict(Spec()))

    def show(fields: Mapping[str, Any], name: str) -> str:
        return json.dumps(fields.get(name, defaults.get(name)))

    return [
        f"{name}: {show(old, name)} there, {show(new, name)} here"
        for name in sorted({*old, *new})
        if show(old, name) != show(new, name)
    ]
