"""How `inspect` and `list` lay out what they found: tables as wide as fits, JSON, and times."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from lth_jax.cli.layers import Layer

COUNTS = ("shape", "kept", "total", "density", "dead in", "dead out")
WEIGHTS = ("|w| min", "mean", "max", "same sign")


def new_table(*titles: str, folded: str = "", left: Sequence[str] = ()) -> Table:
    """Returns a plain table, its columns of numbers on the right.

    Args:
      titles: of the columns.
      folded: the column of names that are broken where room is short; the others never are.
      left: columns of texts, which stand on the left.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in titles:
        if title == folded:
            table.add_column(title, overflow="fold")
        else:
            table.add_column(title, justify="left" if title in left else "right", no_wrap=True)
    return table


def fits(console: Console, table: Table) -> bool:
    """Tells whether no cell of `table` has to be cut or folded."""
    unbounded = console.options.update(width=10_000)
    return Measurement.get(console, unbounded, table).maximum <= console.width


def layer_tables(console: Console, layers: Sequence[Layer]) -> list[Table]:
    """Returns the layers as one table, if need be with shorter names, or as two if it is too wide.

    The last line is about all layers together, where there are several.
    """
    counts, weights = list(map(_counts, layers)), list(map(_weights, layers))
    last = []
    if len(layers) > 1:
        last = ["all"]
        counts.append(_all_counts(layers))
        weights.append(["", "", "", _same_sign(layers)])
    both = [[*left, *right] for left, right in zip(counts, weights, strict=True)]
    tables: list[Table] = []
    for parts, ending in itertools.product(
        ([(COUNTS + WEIGHTS, both)], [(COUNTS, counts), (WEIGHTS, weights)]), ("", "/kernel")
    ):
        names = [*(layer.path.removesuffix(ending) for layer in layers), *last]
        tables = []
        for titles, lines in parts:
            tables.append(new_table("layer", *titles, folded="layer"))
            for name, line in zip(names, lines, strict=True):
                tables[-1].add_row(name, *line)
        if all(fits(console, table) for table in tables):
            break
    return tables


def _counts(layer: Layer) -> list[str]:
    return [
        "×".join(map(str, layer.shape)),
        f"{layer.kept:,}",
        f"{layer.total:,}",
        f"{layer.density:.4f}",
        f"{layer.dead_in:,}/{layer.inputs:,}",
        f"{layer.dead_out:,}/{layer.outputs:,}",
    ]


def _all_counts(layers: Sequence[Layer]) -> list[str]:
    kept, total = sum(layer.kept for layer in layers), sum(layer.total for layer in layers)
    return ["", f"{kept:,}", f"{total:,}", f"{kept / total:.4f}", "", ""]


def _weights(layer: Layer) -> list[str]:
    sizes = (layer.abs_min, layer.abs_mean, layer.abs_max)
    return [*("–" if size is None else f"{size:.3g}" for size in sizes), _same_sign([layer])]


def _same_sign(layers: Sequence[Layer]) -> str:
    """Writes the share of the surviving weights of all `layers` that kept their sign."""
    known = [(layer.same_sign, layer.kept) for layer in layers if layer.same_sign is not None]
    if not known:
        return "–"
    share = sum(share * kept for share, kept in known) / sum(kept for _, kept in known)
    return f"{100 * share:.1f}%"


def ago(seconds: float) -> str:
    """Writes a time since for people: `12 s`, `5 min`, `3 h`, `12 d`."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def as_json(value: Any) -> str:
    """Writes `value` as JSON that every parser reads: what is not a finite number is null."""
    return json.dumps(_finite(value), indent=1, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
