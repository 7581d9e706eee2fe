"""Identities: equal where every existing number would be equal."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from lth_jax.config.fields import declared, flatten
from lth_jax.config.spec import TRANSFERS, BranchSpec, Spec, to_dict


def science(spec: Spec) -> dict[str, Any]:
    """Returns the fields that the identity covers, dotted, those at their defaults left out.

    Defaults are left out so that a new option with a neutral default keeps old identities; which
    also means that an existing default never changes (golden hashes in the tests guard it).
    """
    source = {f"source.{name}": value for name, value in spec.source.items()}
    return (source if spec.pretrain else {}) | _changed(spec)


def _changed(spec: Spec | BranchSpec) -> dict[str, Any]:
    """Returns the fields of the identity that are not at their defaults."""
    values = flatten(to_dict(spec))
    return {
        name: values[name]
        for name, declaration in declared(type(spec)).items()
        if declaration.identity and values[name] != declaration.default
    }


def _hash(fields: Mapping[str, Any]) -> str:
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def identity(spec: Spec) -> str:
    """Returns 8 hex digits of the trunk's science: equal where every row would be equal."""
    return _hash(science(spec))


def branch_science(branch: BranchSpec, source: str = "") -> dict[str, Any]:
    """Returns what makes the rows of a branch: its kind, what is no default, a transfer's source.

    Args:
      branch: its options, the kind filled in (`Spec.branch_spec`).
      source: the identity of the source experiment.
    """
    of_source = {"source": source} if branch.kind in TRANSFERS else {}
    return of_source | {"kind": branch.kind} | _changed(branch)


def branch_identity(branch: BranchSpec, source: str = "") -> str:
    """Returns 8 hex digits of what makes a branch's rows; `draws` and `levels` may grow."""
    return _hash(branch_science(branch, source))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns the differing fields of two `science` dicts, as `field: old there, new here`."""
    defaults = {name: declaration.default for name, declaration in declared(Spec).items()}

    def show(fields: Mapping[str, Any], name: str) -> str:
        return json.dumps(fields.get(name, defaults.get(name)))

    return [
        f"{name}: {show(old, name)} there, {show(new, name)} here"
        for name in sorted({*old, *new})
        if show(old, name) != show(new, name)
    ]
