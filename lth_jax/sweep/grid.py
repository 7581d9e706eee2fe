"""Which experiments a sweep asks for: a grid over fields of a config, or configs of a function."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from lth_jax import config as specs
from lth_jax.api.choice import Chosen
from lth_jax.config.files import config_name, override, read_config, read_configs
from lth_jax.errors import SpecError, shown
from lth_jax.lottery import checks
from lth_jax.lottery.branches import BRANCHES
from lth_jax.lottery.custom import fields_taken, in_use, register

MOST = 10_000  # experiments of one sweep
_OPENING, _CLOSING, _QUOTES = "([{", ")]}", "\"'"


class Axis(NamedTuple):
    """A field that a grid varies, and the texts of its values."""

    field: str
    values: tuple[str, ...]


class Cell(NamedTuple):
    """One experiment of a sweep.

    Attributes:
      chosen: the experiment.
      changes: what the grid sets of it, as `train.steps=100`; empty for configs of a function.
    """

    chosen: Chosen
    changes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What its run directory is called."""
        return f"{self.chosen.name}-{specs.identity(self.chosen.spec)}"


def axis_of(text: str) -> Axis:
    """Returns the axis that `--grid=FIELD=V1,V2` asks for; a comma within brackets is a value's.

    Raises:
      SpecError: it is not of that form, or has a value twice.
    """
    field, equals, values = text.removeprefix("config.").partition("=")
    found = tuple(_split(values))
    if not (re.fullmatch(r"\w+(\.\w+)*", field) and equals and all(found)):
        raise SpecError(f"--grid={shown(text)}: accepted: FIELD=VALUE,VALUE…")
    if len(set(found)) < len(found):
        raise SpecError(f"--grid={shown(text)}: a value stands there twice; accepted: each once")
    return Axis(field, found)


def _split(text: str) -> list[str]:
    """Returns the parts of a text between commas that are in no brackets and no quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if letter == "," and not depth and not quote:
            parts.append("")
            continue
        parts[-1] += letter
        if quote:
            quote = "" if letter == quote else quote
        elif letter in _QUOTES:
            quote = letter
        else:
            depth += (letter in _OPENING) - (letter in _CLOSING)
    return [part.strip() for part in parts]


def cells_of(config: str, overrides: Sequence[str], grid: Sequence[str]) -> list[Cell]:
    """Returns the experiments of a sweep, in order: the last axis of the grid varies fastest.

    Args:
      config: a config, by its name or path; without a grid, one whose `get_configs` yields configs.
      overrides: fields that are changed in all of them, as `train.steps=100`.
      grid: an axis each, as `axis_of` takes it.

    Raises:
      SpecError: a field, a value or a combination is wrong, or two experiments are the same.
    """
    cells = _of_grid(config, overrides, grid) if grid else _of_function(config, overrides)
    by_name: dict[str, Cell] = {}
    for cell in cells:
        if cell.name in by_name:
            twice = " ".join(cell.changes) or cell.name
            raise SpecError(
                f"--grid: {shown(twice)} is the experiment {cell.name} once more; accepted: "
                "values that make other experiments, whose identity differs"
            )
        by_name[cell.name] = cell
    return cells


def _of_grid(config: str, overrides: Sequence[str], grid: Sequence[str]) -> list[Cell]:
    axes = [axis_of(text) for text in grid]
    fields = [axis.field for axis in axes]
    if len(set(fields)) < len(fields):
        raise SpecError(f"--grid: {', '.join(fields)}: accepted: each field once")
    count = 1
    for axis in axes:
        count *= len(axis.values)
    if count > MOST:
        raise SpecError(f"--grid: {count:,} experiments; accepted: at most {MOST:,}")
    file = read_config(config)
    register(file)
    base = _overridden(file.config, overrides)
    # To parse an override takes ml_collections longer than all else: each value is parsed once.
    parsed: dict[str, Any] = {}
    for axis in axes:
        for value in axis.values:
            change = f"{axis.field}={value}"
            made = _overridden(copy.deepcopy(base), [change])
            parsed[change] = specs.flatten(made.to_dict())[axis.field]
    cells = []
    for values in itertools.product(*(axis.values for axis in axes)):
        changes = tuple(f"{name}={value}" for name, value in zip(fields, values, strict=True))
        fields_of_it = base.to_dict()
        for field, change in zip(fields, changes, strict=True):
            _set(fields_of_it, field, parsed[change])
        spec = specs.from_config(fields_of_it)
        cells.append(Cell(Chosen(spec, config_name(file.name), file, False), changes))
    return cells


def _of_function(config: str, overrides: Sequence[str]) -> list[Cell]:
    cells = []
    for file in read_configs(config, MOST):
        if not cells:
            register(file)
        spec = specs.from_config(_overridden(file.config, overrides))
        cells.append(Cell(Chosen(spec, config_name(file.name), file, False)))
    return cells


def _overridden(config: Any, changes: Sequence[str]) -> Any:
    return override(config, changes, list(BRANCHES), fields_taken())


def _set(values: dict[str, Any], field: str, value: Any) -> None:
    *groups, name = field.split(".")
    for part in groups:
        values = values.setdefault(part, {})
    values[name] = value


def check_cells(cells: Sequence[Cell]) -> None:
    """Checks what names mean, and networks' shapes: each value of a grid in one experiment.

    Raises:
      SpecError: as an experiment's own start would.
    """
    seen: set[str] = set()
    for cell in cells:
        if cell.changes and seen.issuperset(cell.changes):
            continue
        seen.update(cell.changes)
        with in_use(cell.chosen.file):
            checks.check(cell.chosen.spec)
