"""`spec.json`: whose directory it is, which branches it knows, and what it was made with."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lth_jax import config as specs
from lth_jax._version import __version__
from lth_jax.errors import SpecError, StoreError

FORMAT = 1
SPEC_FILE = "spec.json"
RECORD = {
    "name": str, "identity": str, "spec": dict, "branches": dict, "versions": dict, "command": list,
}  # fmt: skip
VERSIONED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint")


class OtherFormat(StoreError):
    """Is raised where a run directory has a newer or older format than this version reads."""


def read_record(path: Path) -> dict[str, Any]:
    """Returns the content of the `spec.json` in `path`.

    Raises:
      StoreError: it is missing, damaged, or (`OtherFormat`) of another format.
    """
    file = path / SPEC_FILE
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        found = record["format"]
    except FileNotFoundError:
        raise StoreError(f"{path} holds no run: it has no {SPEC_FILE}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{file} is damaged: {error}") from error
    if found != FORMAT:
        newer = isinstance(found, int) and found > FORMAT
        writer = "a newer" if newer else "another"
        raise OtherFormat(
            f"{path} has format {found}; this version reads {FORMAT} "
            f"(it was written by {writer} lth_jax than {__version__})"
        )
    wrong = [name for name, kind in RECORD.items() if not isinstance(record.get(name), kind)]
    if wrong or not all({"identity", "science"} <= {*b} for b in record["branches"].values()):
        raise StoreError(f"{file} is damaged: wrong {', '.join(wrong or ['branches'])}")
    return record


def new_record(
    spec: specs.Spec, name: str, branches: Mapping[str, Any], command: Sequence[str]
) -> dict[str, Any]:
    """Returns what `spec.json` says of a run; `branches` are all that the directory knows."""
    return {
        "format": FORMAT,
        "name": name,
        "identity": specs.identity(spec),
        "spec": specs.to_dict(spec),
        "branches": dict(branches),
        "versions": versions(),
        "command": list(command),
    }


def versions() -> dict[str, str]:
    """Returns the versions of this package and of those that the numbers depend on."""
    return {"lth_jax": __version__} | {name: importlib.metadata.version(name) for name in VERSIONED}


def branch_records(spec: specs.Spec) -> dict[str, Any]:
    """Returns the identity and the science of each branch that the spec names."""
    source = _source_identity(spec)
    records = {}
    for name in spec.branches:
        branch = spec.branch_spec(name)
        records[name] = {
            "identity": specs.branch_identity(branch, source),
            "science": specs.branch_science(branch, source),
        }
    return records


def _source_identity(spec: specs.Spec) -> str:
    """Returns the identity of the experiment that transfers start from, or an empty string."""
    if not spec.source:
        return ""
    finished = spec.source.get("run")
    if finished:
        return read_record(Path(finished))["identity"]
    return specs.identity(specs.source_spec(spec))


def spec_of(file: Path, record: Mapping[str, Any]) -> specs.Spec:
    """Returns the spec that a record holds.

    Raises:
      StoreError: this version does not know one of its fields.
    """
    try:
        return specs.from_config(record["spec"])
    except (SpecError, KeyError, TypeError) as error:
        raise StoreError(f"{file} is not of this version: {error}") from error


def check_same(path: Path, record: Mapping[str, Any], spec: specs.Spec) -> dict[str, Any]:
    """Returns the branches that the directory knows, if it belongs to the experiment of `spec`.

    Raises:
      StoreError: the trunk's science or a branch's kind and options differ; names them.
    """
    old = specs.science(spec_of(path / SPEC_FILE, record))
    if specs.identity(spec) != record["identity"]:
        different = "; ".join(specs.differences(old, specs.science(spec)))
        raise StoreError(
            f"{path} holds another experiment ({different or record['identity']}); "
            "choose another --workdir"
        )
    known = record["branches"]
    for name, new in branch_records(spec).items():
        if name in known and known[name]["identity"] != new["identity"]:
            raise StoreError(
                f"{path} holds a branch '{name}' with other options "
                f"({json.dumps(known[name]['science'])} there, {json.dumps(new['science'])} here); "
                "give the new one another name"
            )
    return dict(known)
