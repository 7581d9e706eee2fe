"""Identities: equal where every existing number would be equal."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from lth_jax.config.conversion import to_dict
from lth_jax.config.fields import declared, flatten
from lth_jax.config.spec import TRANSFERS, BranchSpec, Spec
from lth_jax.config.spec.pruning import GRADIENTS

_GRADIENTS = {f"pruning.{name}": value for name, value in GRADIENTS.items()}


def science(spec: Spec) -> dict[str, Any]:
    """Returns the fields that the identity covers, dotted, those at their defaults left out.

    Defaults are left out so that a new option with a neutral default keeps old identities; which
    also means that an existing default never changes (golden hashes in the tests guard it).
    """
    source = {f"source.{name}": value for name, value in spec.source.items()}
    changed = (source if spec.pretrain else {}) | _changed(spec)
    # Not as they are set but as they come out: None is what a criterion does by itself, which may
    # differ between versions. What all did before there was a choice is left out, like a default.
    for name, value in spec.pruning.gradients().items():
        changed.pop(f"pruning.{name}", None)
        if value != GRADIENTS[name]:
            changed[f"pruning.{name}"] = value
    return changed


def _changed(spec: Spec | BranchSpec) -> dict[str, Any]:
    """Returns the fields of the identity that are not at their defaults."""
    covered = {n: one.default for n, one in declared(type(spec)).items() if one.identity}
    return {
        name: value
        for name, value in flatten(to_dict(spec)).items()
        if name.startswith("custom.") or (name in covered and value != covered[name])
    }


def meant_before(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns flags that go on in `old`, if `new` differs by what a criterion does by itself."""
    different = [n for n in {*old, *new} if old.get(n) != new.get(n)]
    if not all(name in _GRADIENTS for name in different):
        return []
    return [f"--config.{n}={old.get(n, _GRADIENTS[n])}" for n in sorted(different)]


def _hash(fields: Mapping[str, Any]) -> str:
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def identity(spec: Spec) -> str:
    """Returns 8 hex digits of the trunk's science: equal where every row would be equal."""
    return _hash(science(spec))


def branch_science(branch: BranchSpec, source: str = "", code: str = "") -> dict[str, Any]:
    """Returns what makes the rows of a branch: its kind, what is no default, a transfer's source.

    Args:
      branch: its options, the kind filled in (`Spec.branch_spec`).
      source: the identity of the source experiment.
      code: a digest of the function of a kind of the user's own.
    """
    more = {"source": source} if branch.kind in TRANSFERS else {}
    more |= {"code": code} if code else {}
    return more | {"kind": branch.kind} | _changed(branch)


def branch_identity(branch: BranchSpec, source: str = "", code: str = "") -> str:
    """Returns 8 hex digits of what makes a branch's rows; `draws` and `levels` may grow."""
    return _hash(branch_science(branch, source, code))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns the differing fields of two `science` dicts, as `field: old there, new here`."""
    defaults = {name: declaration.default for name, declaration in declared(Spec).items()}
    defaults |= _GRADIENTS

    def show(fields: Mapping[str, Any], name: str) -> str:
        return json.dumps(fields.get(name, defaults.get(name)))

    return [
        f"{name}: {show(old, name)} there, {show(new, name)} here"
        for name in sorted({*old, *new})
        if show(old, name) != show(new, name)
    ]
