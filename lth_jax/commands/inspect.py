"""`python -m lth_jax inspect RUN`: what a run directory holds, without loading an array."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from lth_jax.errors import SpecError, StoreError, UserError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from lth_jax.store import RunDirectory


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are one line, as everywhere here."""

    def error(self, message: str) -> NoReturn:
        raise SpecError(f"{self.prog}: {message}")


def main(arguments: Sequence[str]) -> int:
    """Prints what the run directory holds; gives the exit status."""
    parser = _Parser(prog="python -m lth_jax inspect", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="the run directory")
    parser.add_argument("--level", type=int, help="the layers of one level")
    parser.add_argument("--replicate", type=int, default=0, help="of which replicate (0)")
    try:
        options = parser.parse_args(list(arguments))
        _inspect(options.run, options.level, options.replicate)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def _inspect(path: Path, level: int | None, replicate: int) -> None:
    from lth_jax.report.table import ResultsTable
    from lth_jax.report.terminal import make_console
    from lth_jax.store import RunDirectory

    store = RunDirectory.read(path)
    layers = None if level is None else _layers(store, level, replicate)
    record = store.record_of_spec()
    console = make_console()
    for line in _progress(store, record):
        console.print(line)
    if store.rows:
        console.print(ResultsTable(store.sorted_rows()))
    if layers is None:
        _print_kept(console, store, replicate)
    else:
        console.print(f"layers of level {level}, replicate {replicate}")
        console.print(layers)
    _print_checkpoints(console, store)


def _progress(store: RunDirectory, record: Mapping[str, Any]) -> Iterator[str]:
    from lth_jax.plan import planned_runs

    planned = planned_runs(store.spec())
    done = sum(id in store.rows for id in planned)
    holder = store.holder()
    status = f"running ({holder})" if holder else "stopped"
    if done == len(planned):
        status = "finished"
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    yield f"{record['name']}, identity {record['identity']}"
    yield f"status: {status}, {done} of {len(planned)} runs"
    yield f"versions: {versions}"
    yield f"command: {' '.join(record['command'])}"


def _print_kept(console: Console, store: RunDirectory, replicate: int) -> None:
    """The weights kept in each layer, a level a line, where that fits."""
    from rich.measure import Measurement
    from rich.table import Table

    from lth_jax.store.checkpoints import Damaged, read_manifest

    counts = {}
    folder = store.checkpoint(replicate, "initial").parent
    for path in folder.glob("level_*"):
        try:
            counts[int(path.name.removeprefix("level_"))] = read_manifest(path).meta["layers"]
        except Damaged:
            continue  # named among the checkpoints
    if not counts:
        return
    table = Table(box=None, pad_edge=False)
    for name in ("level", *next(iter(counts.values())), "all"):
        table.add_column(name.removesuffix("/kernel"), justify="right", no_wrap=True)
    for level, layers in sorted(counts.items()):
        kept = [pair[0] for pair in layers.values()]
        table.add_row(str(level), *(f"{number:,}" for number in (*kept, sum(kept))))
    console.print(f"weights kept in each layer, replicate {replicate}")
    unbounded = console.options.update(width=10_000)
    if Measurement.get(console, unbounded, table).maximum <= console.width:
        console.print(table)
    else:
        console.print(f"  {len(table.columns) - 2} layers are too many for a table: see --level")
    console.print()


def _layers(store: RunDirectory, level: int, replicate: int) -> RenderableType:
    """Shape, kept, total and density of each prunable layer, from the checkpoint's manifest."""
    from rich.table import Table

    from lth_jax.store import level_name
    from lth_jax.store.checkpoints import read_manifest

    path = store.checkpoint(replicate, level_name(level))
    if not path.exists():
        found = sorted(f"{p.parent.name} {p.name}" for p in path.parent.parent.glob("*/level_*"))
        raise StoreError(
            f"{store.path} has no level {level} of replicate {replicate}; "
            f"accepted: {', '.join(found) or 'nothing yet, no level is finished'}"
        )
    manifest = read_manifest(path)
    table = Table(box=None, pad_edge=False)
    for name in ("layer", "shape", "kept", "total", "density"):
        table.add_column(name, justify="left" if name == "layer" else "right")
    counts = manifest.meta["layers"]
    for name, (kept, total) in counts.items():
        shape = "×".join(map(str, manifest.arrays[f"params/{name}"][0]))
        table.add_row(name, shape, f"{kept:,}", f"{total:,}", f"{kept / total:.4f}")
    kept, total = (sum(pair[i] for pair in counts.values()) for i in (0, 1))
    table.add_row("all", "", f"{kept:,}", f"{total:,}", f"{kept / total:.4f}")
    return table


def _print_checkpoints(console: Console, store: RunDirectory) -> None:
    """The checkpoints with their arrays' shapes, dtypes and bytes; damaged ones named."""
    from rich.tree import Tree

    from lth_jax.store.checkpoints import Damaged, array_bytes, verify

    tree = Tree("checkpoints")
    shown: set[tuple[str, ...]] = set()
    for path in sorted((store.path / "checkpoints").glob("**/manifest.json")):
        name = path.parent.relative_to(store.path / "checkpoints").as_posix()
        try:
            arrays = verify(path.parent).arrays
        except Damaged as error:
            tree.add(f"{name}  DAMAGED: {error}")
            continue
        sizes = {name: array_bytes(*kind) for name, kind in arrays.items()}
        node = tree.add(f"{name}  {len(arrays)} arrays, {sum(sizes.values()):,} bytes")
        lines = tuple(
            f"{name}  {dtype}{list(shape)}  {sizes[name]:,} bytes"
            for name, (shape, dtype) in arrays.items()
        )
        if lines not in shown:  # alike ones are spelled out once
            shown.add(lines)
            for line in lines:
                node.add(line)
    console.print(tree)
