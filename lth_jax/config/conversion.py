"""Specs from configs and from records, and defaults and specs as plain values."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping
from typing import Any

from lth_jax.config.fields import declared, plain_kind, read
from lth_jax.config.spec import BranchSpec, Spec
from lth_jax.config.spec.pruning import GRADIENTS, OWN_GRADIENTS
from lth_jax.errors import SpecError, nearest


def from_config(config: Mapping[str, Any]) -> Spec:
    """Returns the checked spec of a `ConfigDict` (or nested mapping).

    Raises:
      SpecError: a field, type, value or combination is wrong; one line names the field, the value
        and what is accepted.
    """
    spec = read(Spec, config)
    if spec.source:
        source_spec(spec)
    return spec


def source_spec(spec: Spec) -> Spec:
    """Returns the experiment that transfers take their tickets from: `spec` with its `source`.

    Raises:
      SpecError: a field of `source` is wrong.
    """
    values: dict[str, Any] = to_dict(spec) | {
        "branches": (), "branch": {}, "source": {}, "reference": {},
        "pretrain": False,
    }  # fmt: skip
    if "pruning.criterion" in spec.source:  # another criterion has choices of its own
        values["pruning"] |= dict.fromkeys(GRADIENTS)
    for field_name, value in spec.source.items():
        if field_name != "run":
            _set(values, field_name, value)
    try:
        return from_config(values)
    except SpecError as error:
        raise SpecError(str(error).replace("config.", "config.source.", 1)) from None


def _set(values: dict[str, Any], field_name: str, value: Any) -> None:
    *groups, name = field_name.split(".")
    for group in groups:
        if not isinstance(values.get(group), dict):
            raise SpecError(f"config.source.{field_name}: no such field; {nearest(group, values)}")
        values = values[group]
    values[name] = value


def default_config() -> Any:  # a ConfigDict, whose type knows no nested fields
    """Returns the neutral experiment as a `ConfigDict`, for config files to change."""
    from ml_collections import ConfigDict

    return ConfigDict(default_values(Spec), convert_dict=True)


def default_values(group: type) -> dict[str, Any]:
    """Returns the defaults of `group` as nested dicts of what a `ConfigDict` holds.

    A field that is None is a placeholder of its type: ml_collections lets the command line override
    no plain None.
    """
    from ml_collections.config_dict import placeholder

    values = {}
    for name, kind in typing.get_type_hints(group, include_extras=True).items():
        default = group.__dataclass_fields__[name].metadata["declaration"].default
        if dataclasses.is_dataclass(default):
            values[name] = default_values(type(default))
        elif default is None:
            values[name] = placeholder(plain_kind(kind))
        else:
            values[name] = dict(default) if isinstance(default, dict) else default
    return values


def declaration_of(name: str) -> Any:
    """Returns the `Declaration` of a dotted field, also of a branch's or the source's, or None."""
    name = name.removeprefix("source.")
    if name.startswith("branch."):
        own = ".custom." in name
        return None if own else declared(BranchSpec).get(name.rpartition(".")[2])
    return declared(Spec).get(name)


def is_default(name: str, value: Any) -> bool:
    """Whether `value`, as `spec.json` holds it, is the default of the dotted field `name`.

    So is a value that an older version wrote where None stands now, such as -1.0.
    """
    declaration = declaration_of(name)
    if declaration is None:
        return False
    if declaration.unset and value is not None and declaration.unset(value):
        value = None
    return json.loads(json.dumps(declaration.default)) == value


def settled(spec: Spec) -> Spec:
    """Returns `spec` with what its criterion chooses by itself written out, to be recorded."""
    own = OWN_GRADIENTS.get(spec.pruning.criterion, {})
    chosen = {name: value for name, value in spec.pruning.gradients().items() if name in own}
    return dataclasses.replace(spec, pruning=dataclasses.replace(spec.pruning, **chosen))


def from_record(record: Mapping[str, Any]) -> Spec:
    """Returns the spec that an older or this version recorded in a run directory.

    Raises:
      SpecError: as `from_config` does.
    """
    pruning = record.get("pruning", {})
    own = OWN_GRADIENTS.get(pruning.get("criterion"), {})
    before = {name: GRADIENTS[name] for name in own if pruning.get(name) is None}
    return from_config({**record, "pruning": {**pruning, **before}} if before else record)


def to_dict(spec: Any) -> dict[str, Any]:
    """Returns a spec, or a group of it, as nested plain dicts; tuples stay tuples."""
    return dataclasses.asdict(spec)
