"""The layers of a level as tables that fit the terminal."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from lth_jax.cli.inspection.layers import Layer

COUNTS = ("shape", "kept", "total", "density", "dead in", "dead out")
WEIGHTS = ("|w| min", "mean", "max", "same sign")


def layer_tables(console: Console, layers: Sequence[Layer]) -> list[Table]:
    """One table, if need be with shorter names, or two where one is too wide."""
    tables: list[Table] = []
    for split, shorten in itertools.product((False, True), (False, True)):
        names = [layer.path.removesuffix("/kernel" if shorten else "") for layer in layers]
        counts, weights = (
            [_counts(layer) for layer in layers],
            [_weights(layer) for layer in layers],
        )
        if len(layers) > 1:
            names.append("all")
            counts.append(_all_counts(layers))
            weights.append(_all_weights(layers))
        both = [[*left, *right] for left, right in zip(counts, weights, strict=True)]
        parts = [(COUNTS, counts), (WEIGHTS, weights)] if split else [(COUNTS + WEIGHTS, both)]
        tables = [_table(names, titles, lines) for titles, lines in parts]
        if all(fits(console, table) for table in tables):
            break
    return tables


def columns(*titles: str) -> Table:
    """A plain table of numbers; where room is short, layers' names give way, never numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in titles:
        if title == "layer":
            table.add_column(title, overflow="fold")
        else:
            table.add_column(title, justify="right", no_wrap=True)
    return table


def fits(console: Console, table: Table) -> bool:
    """Whether no cell of `table` has to be cut or folded."""
    unbounded = console.options.update(width=10_000)
    return Measurement.get(console, unbounded, table).maximum <= console.width


def _table(names: Sequence[str], titles: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    table = columns("layer", *titles)
    for name, line in zip(names, lines, strict=True):
        table.add_row(name, *line)
    return table


def _counts(layer: Layer) -> list[str]:
    return [
        "×".join(map(str, layer.shape)),
        f"{layer.kept:,}",
        f"{layer.total:,}",
        f"{layer.density:.4f}",
        f"{layer.dead_in:,}/{layer.inputs:,}",
        f"{layer.dead_out:,}/{layer.outputs:,}",
    ]


def _weights(layer: Layer) -> list[str]:
    sizes = (layer.abs_min, layer.abs_mean, layer.abs_max)
    return [*("–" if size is None else f"{size:.3g}" for size in sizes), _share(layer.same_sign)]


def _all_counts(layers: Sequence[Layer]) -> list[str]:
    kept, total = sum(layer.kept for layer in layers), sum(layer.total for layer in layers)
    return ["", f"{kept:,}", f"{total:,}", f"{kept / total:.4f}", "", ""]


def _all_weights(layers: Sequence[Layer]) -> list[str]:
    known = [(layer.same_sign, layer.kept) for layer in layers if layer.same_sign is not None]
    kept = sum(count for _, count in known)
    return [
        "",
        "",
        "",
        _share(sum(share * count for share, count in known) / kept if kept else None),
    ]


def _share(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.1f}%"
