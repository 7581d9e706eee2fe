"""`spec.json`: whose directory it is, which branches it knows, and what it was made with."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lth_jax import config as specs
from lth_jax._version import __version__
from lth_jax.config.sources import Digests, Sources, differences
from lth_jax.disk.files import read_bytes
from lth_jax.errors import SpecError, StoreError, shown
from lth_jax.training.metrics import ACCURACY, Metric, recorded_metric

FORMAT = 1
SPEC_FILE = "spec.json"
RECORD = {
    "name": str, "identity": str, "spec": dict, "branches": dict, "versions": dict, "command": list,
}  # fmt: skip
# Older versions wrote none of these.
LATER = {"config": str, "own": dict, "data": dict, "metric": dict}
SEAL = "seal"  # of all the other entries, in SHA-256
VERSIONED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint")


class OtherFormat(StoreError):
    """Is raised where a run directory has a newer or older format than this version reads."""


def read_record(path: Path) -> dict[str, Any]:
    """Returns the content of the `spec.json` in `path`.

    Raises:
      StoreError: it is missing, damaged, or (`OtherFormat`) of another format; Unreadable: this
        machine cannot read it now.
    """
    file = path / SPEC_FILE
    try:
        record = json.loads(read_bytes(file))
        found = record["format"]
    except FileNotFoundError:
        raise StoreError(f"{path} holds no run: it has no {SPEC_FILE}") from None
    except StoreError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(f"{file} is damaged: {error}") from error
    if found != FORMAT:
        newer = isinstance(found, int) and found > FORMAT
        writer = "a newer" if newer else "another"
        raise OtherFormat(
            f"{path} has format {shown(found)}; this version reads {FORMAT} "
            f"(it was written by {writer} lth_jax than {__version__})"
        )
    wrong = [name for name, kind in RECORD.items() if not isinstance(record.get(name), kind)]
    wrong += [n for n, kind in LATER.items() if not isinstance(record.get(n, kind()), kind)]
    if "own" not in wrong and not is_own(record.get("own")):
        wrong.append("own")
    if "metric" not in wrong and not _is_metric(record):
        wrong.append("metric")
    parts = {"identity": str, "science": dict}
    if wrong or not all(
        isinstance(branch, dict) and all(isinstance(branch.get(n), parts[n]) for n in parts)
        for branch in record["branches"].values()
    ):
        raise StoreError(f"{file} is damaged: wrong {', '.join(wrong or ['branches'])}")
    return record


def command_of(record: Mapping[str, Any]) -> str:
    """Returns what was typed to run an experiment, or that it was run from Python."""
    command = [str(word) for word in record["command"]]
    return shlex.join(["python", *command]) if command else "lth_jax.run(config), from Python"


def is_own(own: Any) -> bool:
    """Returns whether a record's entry on rows that are not the package's can be read."""
    if not own:
        return True
    if not isinstance(own, dict):
        return False
    parts = [own.get("rows"), own.get("sources")]
    nested = parts[1].values() if isinstance(parts[1], dict) else [None]
    return all(isinstance(part, dict) for part in (*parts, *nested))


def _is_metric(record: Mapping[str, Any]) -> bool:
    try:
        recorded_metric(record)
    except (ValueError, TypeError):
        return False
    return True


class Config(NamedTuple):
    """The config file that an experiment comes from.

    Attributes:
      sources: the file and the modules beside it that it imports.
      rows: field -> name of the rows that the spec uses and that are not the package's.
      digests: of the source that makes these rows; empty without them.
      branches: the name of each branch of a kind of the user's own -> a digest of its source.
    """

    sources: Sources
    rows: Mapping[str, str]
    digests: Digests
    branches: Mapping[str, str]


def new_record(
    spec: specs.Spec,
    name: str,
    branches: Mapping[str, Any],
    command: Sequence[str],
    config: Config | None = None,
    metric: Metric = ACCURACY,
) -> dict[str, Any]:
    """Returns what `spec.json` says of a run; `branches` are all that the directory knows."""
    of_config = {}
    if config:
        own = {"main": config.sources.main, "rows": config.rows, "sources": config.digests}
        of_config = {"config": config.sources.main, "own": own if config.rows else {}}
    return {
        "format": FORMAT,
        "name": name,
        "identity": specs.identity(spec),
        "spec": specs.to_dict(specs.settled(spec)),
        "branches": dict(branches),
        "versions": versions(),
        "command": list(command),
        **of_config,
        **({} if metric == ACCURACY else {"metric": metric.record()}),
    }


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a record with the checksum of all else in it."""
    content = {name: value for name, value in record.items() if name != SEAL}
    text = json.dumps(content, sort_keys=True)
    return {**content, SEAL: hashlib.sha256(text.encode()).hexdigest()}


def is_changed(record: Mapping[str, Any]) -> bool:
    """Returns whether a record is not as it was written; of older versions nothing is known."""
    return SEAL in record and sealed(record) != record


def versions() -> dict[str, str]:
    """Returns the versions of this package and of those that the numbers depend on."""
    return {"lth_jax": __version__} | {name: importlib.metadata.version(name) for name in VERSIONED}


def branch_records(spec: specs.Spec, config: Config | None = None) -> dict[str, Any]:
    """Returns the identity and the science of each branch that the spec names."""
    source, code = _source_identity(spec), config.branches if config else {}
    records = {}
    for name in spec.branches:
        made_of = spec.branch_spec(name), source, code.get(name, "")
        records[name] = {
            "identity": specs.branch_identity(*made_of),
            "science": specs.branch_science(*made_of),
        }
    return records


def _source_identity(spec: specs.Spec) -> str:
    """Returns the identity of the experiment that transfers start from, or an empty string.

    Where its rows are a user's own, the source of these is part of it.
    """
    if not spec.source:
        return ""
    finished = spec.source.get("run")
    if not finished:
        # Its directory is beside this one, and sees to its source and data itself.
        return specs.identity(specs.source_spec(spec))
    record = read_record(Path(finished))
    return "+".join([record["identity"], *_fingerprint(record)])


def _fingerprint(record: Mapping[str, Any]) -> list[str]:
    """Returns a digest of the source and the data of a run with rows of its own; else nothing."""
    own = record.get("own")
    if not own:
        return []
    main = own.get("main", "")
    sources = {"" if file == main else file: parts for file, parts in own["sources"].items()}
    data = record.get("data", {}).get("digest") if "data.name" in own["rows"] else None
    text = json.dumps([sources, data], sort_keys=True)
    return [hashlib.sha256(text.encode()).hexdigest()[:8]]


def spec_of(file: Path, record: Mapping[str, Any]) -> specs.Spec:
    """Returns the spec that a record holds.

    Raises:
      StoreError: this version does not know one of its fields.
    """
    try:
        return specs.from_record(record["spec"])
    except (SpecError, KeyError, TypeError) as error:
        raise StoreError(f"{file} is not of this version: {error}") from error


def check_same(
    path: Path, record: Mapping[str, Any], spec: specs.Spec, config: Config | None = None
) -> dict[str, Any]:
    """Returns the branches that the directory knows, if it belongs to the experiment of `spec`.

    Raises:
      StoreError: the trunk's science, a branch's kind and options, or the source of rows that are
        not the package's differ; names what.
    """
    old = specs.science(spec_of(path / SPEC_FILE, record))
    if specs.identity(spec) != record["identity"]:
        new = specs.science(spec)
        different = "; ".join(specs.differences(old, new))
        before = " ".join(specs.meant_before(old, new))
        raise StoreError(
            f"{path} holds another experiment ({different or record['identity']}); "
            f"choose another --workdir{f', or go on with {before}' if before else ''}"
        )
    own = record.get("own")
    if own and config and config.rows:
        different = differences(
            own["sources"], config.digests, own.get("main", ""), config.sources.main
        )
        if different:
            rows = ", ".join(f"{field} '{name}'" for field, name in config.rows.items())
            raise StoreError(
                f"{path} holds another experiment (the source of {rows} differs: "
                f"{'; '.join(different)}); choose another --workdir"
            )
    known = record["branches"]
    for name, new in branch_records(spec, config).items():
        if name not in known or known[name]["identity"] == new["identity"]:
            continue
        # Older versions wrote a source's identity without the fingerprint of its rows.
        source = new["science"].get("source", "").partition("+")[0]
        if known[name]["identity"] != specs.branch_identity(spec.branch_spec(name), source):
            raise StoreError(
                f"{path} holds a branch '{name}' with other options "
                f"({json.dumps(known[name]['science'])} there, {json.dumps(new['science'])} here); "
                "give the new one another name"
            )
    return dict(known)


def check_data(path: Path, record: Mapping[str, Any], content: Mapping[str, str]) -> None:
    """Checks that a run goes on with the data that it was begun with.

    Two versions of a source with the same examples are the same data.

    Raises:
      StoreError: they are others; names both.
    """
    before = record.get("data", {})
    if before.get("digest", content["digest"]) == content["digest"]:
        return

    def show(data: Mapping[str, str]) -> str:
        return " ".join(filter(None, (data.get("version"), data["digest"])))

    raise StoreError(
        f"{path} holds another experiment (the examples of data.name '{content['name']}' differ: "
        f"{show(before)} there, {show(content)} here); choose another --workdir"
    )
