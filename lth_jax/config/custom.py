"""Custom rows, which a user's config file brings: `MODELS`, `DATASETS` and `CRITERIA` in it.

They stand beside the package's in its registries, for this process. A name that the package has
itself is refused: the identity of a run holds names alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lth_jax import data, models
from lth_jax.config.files import ConfigFile, read_config, split_arguments
from lth_jax.errors import SpecError
from lth_jax.pruning.criteria import CRITERIA, Criterion


class _Registry(NamedTuple):
    """A registry that a config may add to: its rows, the package's names, and what makes a row."""

    rows: dict[str, Any]
    names: frozenset[str]
    make: Callable[[str, Any], Any]


def _dataset(name: str, row: Any) -> data.Loader:
    return row if isinstance(row, data.Loader) else data.custom_dataset(name, row)


def _criterion(name: str, row: Any) -> Criterion:
    if isinstance(row, Criterion):
        return row
    if not callable(row):
        raise SpecError(f"CRITERIA['{name}']={row!r}: accepted: a function of a Scoring")
    return Criterion(row)


_REGISTRIES = {
    "MODELS": _Registry(models.MODELS, models.ZOO, models.custom_model),
    "DATASETS": _Registry(data.DATASETS, frozenset(data.DATASETS), _dataset),
    "CRITERIA": _Registry(CRITERIA, frozenset(CRITERIA), _criterion),
}


def register(file: ConfigFile) -> None:
    """Adds the rows that a config file defines; those of an earlier file may change.

    Raises:
      UserError: a name of the package's own, or a row that is none.
    """
    for title, registry in _REGISTRIES.items():
        rows = file.namespace.get(title, {})
        if rows is registry.rows:  # imported from the package
            continue
        place = f"--config={file.name}: {title}"
        if not isinstance(rows, Mapping):
            raise SpecError(f"{place}={rows!r}: accepted: a dict of names and rows")
        for name, row in rows.items():
            if name in registry.names:
                raise SpecError(
                    f"{place}['{name}']: the package has one of that name; accepted: another"
                )
            registry.rows[name] = registry.make(name, row)


def recall(record: Mapping[str, Any]) -> None:
    """Adds the rows of the config that a run was started with, where the run needs them.

    Args:
      record: of the run, the content of `spec.json`. Its config file is looked for as its command
        named it, from the present folder.

    Raises:
      SpecError: a name that is nobody's, and the config file is gone.
    """
    spec = record["spec"]
    used = {
        "MODELS": spec.get("model", {}).get("name"),
        "CRITERIA": spec.get("pruning", {}).get("criterion"),
    }
    named = any(name not in _REGISTRIES[title].rows for title, name in used.items() if name)
    dataset = spec.get("data", {}).get("name", "digits")
    file = split_arguments(record["command"][1:])[0]
    if named or (dataset not in data.DATASETS and Path(file.partition(":")[0]).is_file()):
        register(read_config(file))
