"""Facts for people, at whatever width the terminal has."""

from __future__ import annotations

import itertools
import re
import shlex
import time
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from lth_jax.cli.inspection import differing
from lth_jax.cli.inspection.facts import Facts
from lth_jax.cli.inspection.kept import Kept
from lth_jax.cli.inspection.layer_table import columns, fits, layer_tables
from lth_jax.cli.inspection.select import (
    Detail,
    Selection,
    arrays_of,
    checkpoints_of,
    layer_names,
    matching,
)
from lth_jax.report.table import print_results_tables
from lth_jax.report.verdict import verdict
from lth_jax.store.tables import TRUNK, RunId

UNITS = (
    "dead in: input units that no surviving weight leaves (rows of the kernel); dead out: output "
    "units that no surviving weight reaches (columns); of convolutions, channels."
)
STARTS = {"initial": "initial", "rewind": "rewound"}


def print_run(console: Console, facts: Facts, asked: Selection, detail: Detail | None) -> None:
    """Prints a run directory, from what it is to its checkpoints."""
    for line in _head(facts, asked):
        console.print(Text(line), soft_wrap=line.startswith("command: "))
    _print_problems(console, facts)
    console.print()
    _print_spec(console, facts)
    if facts.rows:
        shown = (TRUNK, asked.branch)
        rows = [row for row in facts.rows if asked.branch is None or row.branch in shown]
        print_results_tables(console, rows)
        console.print()
        if asked.branch is None:
            console.print(Text(verdict(facts.rows), style="bold"))
            console.print()
    if detail:
        if asked.branch not in (None, TRUNK):
            console.print(Text(f"{asked.branch} has kept metrics, no weights; the ticket's are:"))
        _print_layers(console, detail)
    else:
        _print_kept(console, facts, asked)
    _print_checkpoints(console, facts, asked)


def _head(facts: Facts, asked: Selection) -> Iterator[str]:
    record = facts.record
    yield f"{record.get('name', facts.path)}, identity {record.get('identity', 'unknown')}"
    holder = f" ({facts.holder})" if facts.holder else ""
    planned, pending = facts.planned(asked.branch), facts.pending(asked.branch)
    runs = f"{len(facts.rows)} runs"
    if facts.spec:
        runs = f"{len(planned) - len(pending)} of {len(planned)} runs"
    of = f" of {asked.branch}" if asked.branch else ""
    yield f"status: {facts.status}{holder}, {runs}{of}"
    if pending:
        yield _under_way(facts, pending, asked.branch)
    if record:
        versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        yield f"versions: {versions}"
        yield f"command: {shlex.join(['python', *map(str, record['command'])])}"
    if source := facts.source():
        yield f"source: {source}"


def _under_way(facts: Facts, pending: Sequence[RunId], branch: str | None) -> str:
    level = min(run_id.level for run_id in pending)
    saved = [
        (run_id, step) for run_id, step in facts.under_way() if branch in (None, run_id.branch)
    ]
    if not saved:
        return f"level {level} is under way" if facts.holder else f"next: level {level}"
    steps = sorted({step for _, step in saved})
    at = f"step {steps[0]:,}" if len(steps) == 1 else f"steps {steps[0]:,} to {steps[-1]:,}"
    runs = "1 run" if len(saved) == 1 else f"{len(saved)} runs"
    is_was = "is" if facts.holder else "was"
    newest = max(k.saved_at for name, k in facts.checkpoints.items() if "progress_" in name)
    when = ago(time.time() - newest)
    of = _total_steps(facts, [run_id for run_id, _ in saved])
    return f"level {saved[0][0].level} {is_was} under way: {runs} saved at {at}{of}, {when} ago"


def _total_steps(facts: Facts, ids: Sequence[RunId]) -> str:
    """` of 5,000` where the spec says so in steps, and for all of these runs."""
    spec = facts.spec
    if spec is None or spec.rewind.kind != "weights":
        return ""
    trains = [spec.branch_spec(run_id.branch).train_spec(spec.train) for run_id in ids]
    steps = {train.steps for train in trains}
    return f" of {int(*steps):,}" if len(steps) == 1 and "".join(steps).isdigit() else ""


def _print_problems(console: Console, facts: Facts) -> None:
    """What is damaged, and what a start would do about it."""
    if facts.problems:
        console.print(Text(f"problems ({len(facts.problems)}):", style="bold red"))
        for problem in facts.problems:
            console.print(Padding(Text(problem, overflow="fold"), (0, 0, 0, 2), expand=False))
        for hint in _hints(facts):
            console.print(Text(hint, style="dim"))
    if facts.leftovers:
        files = "1 leftover" if len(facts.leftovers) == 1 else f"{len(facts.leftovers)} leftovers"
        console.print(
            Text(f"{files} of a killed save, which the next start removes: {facts.leftovers[0]}")
        )


def _hints(facts: Facts) -> Iterator[str]:
    if any(kept.damage for kept in facts.checkpoints.values()):
        yield "Damaged checkpoints are never used: a start trains again what it needs of them."
    if any(problem.startswith("results.csv line") for problem in facts.problems):
        yield "A start refuses results.csv until those lines are taken out, and trains them again."


def _print_spec(console: Console, facts: Facts) -> None:
    """The fields of the spec that are not at their default."""
    if not facts.record:
        return
    console.print("spec, where it differs from the defaults")
    grid = Table.grid(padding=(0, 2))
    for field, value in differing.fields(facts.record["spec"]).items():
        grid.add_row(Text(f"  {field}"), Text(value, overflow="fold"))
    console.print(grid)
    console.print()


def _print_layers(console: Console, detail: Detail) -> None:
    console.print(f"layers of the ticket at level {detail.level}, replicate {detail.replicate}")
    for table in layer_tables(console, detail.layers):
        console.print(table)
        console.print()
    signs = "same sign is unknown: the checkpoint that training started from is lost."
    if detail.start:
        start = STARTS[detail.start]
        signs = f"same sign: the share of them whose sign is that of the {start} weights."
    console.print(Text(f"{UNITS} |w|: of the surviving weights, trained; {signs}", style="dim"))
    console.print()


def _print_kept(console: Console, facts: Facts, asked: Selection) -> None:
    """The weights kept in each layer, a level a line, where that fits."""
    replicate = asked.replicate or 0
    levels = {
        level: kept.meta["layers"]
        for level, kept in facts.levels().get(replicate, {}).items()
        if "layers" in kept.meta
    }
    if not levels:
        return
    names = matching(layer_names(facts), asked.layer)
    short = [name.removesuffix("/kernel") for name in names]
    table = columns("level", *short, *(["all"] if len(names) > 1 else []))
    for level, layers in levels.items():
        kept = [layers[name][0] for name in names]
        total = [sum(kept)] if len(names) > 1 else []
        table.add_row(str(level), *(f"{count:,}" for count in (*kept, *total)))
    console.print(f"weights kept in each layer, replicate {replicate}")
    if fits(console, table):
        console.print(table)
    else:
        console.print(f"  {len(names)} layers are too many for a table: see --level, --layer")
    console.print()


def _print_checkpoints(console: Console, facts: Facts, asked: Selection) -> None:
    """The checkpoints with their arrays' shapes, dtypes and bytes; damaged ones named."""
    found = checkpoints_of(facts, asked)
    damaged = sum(bool(kept.damage) for kept in found)
    said = f"{damaged} of {len(found)} damaged" if damaged else "checksums verified"
    if not found:
        console.print("no checkpoints yet")
        return
    tree = Tree(Text(f"checkpoints: {len(found)}, {_total_bytes(found):,} bytes, {said}"))
    shown: set[tuple[str, ...]] = set()
    for _, alike in itertools.groupby(found, key=lambda kept: _kind(kept, asked)):
        first, *others = alike
        lines = _lines(first, asked.layer)
        if first.damage:
            for kept in (first, *others):
                tree.add(Text(f"{kept.name}  DAMAGED: {kept.damage}"))
            continue
        size = f"{len(first.arrays)} arrays, {_total_bytes([first]):,} bytes"
        label = f"{first.name}  {size}"
        if others:
            last = others[-1].name.rpartition("/")[2]
            label = f"{first.name} to {last}  {1 + len(others)} times {size}"
        node = tree.add(Text(label))
        if lines not in shown:  # alike ones are spelled out once
            shown.add(lines)
            for line in lines:
                node.add(Text(line))
    console.print(tree)


def _kind(kept: Kept, asked: Selection) -> tuple[object, ...]:
    """What makes neighbours in the tree alike: folder, damage and arrays."""
    return kept.name.rpartition("/")[0], kept.damage, _lines(kept, asked.layer)


def _lines(kept: Kept, pattern: str | None) -> tuple[str, ...]:
    """One line for each array; for each of alike ones where several runs are saved together."""
    sizes = kept.sizes()
    lines: dict[str, None] = {}
    for name in arrays_of(kept, pattern):
        shape, dtype = kept.arrays[name]
        label, runs = re.subn(r"^run_\d+/", "run_*/", name)
        each = " each" if runs else ""
        lines[f"{label}  {dtype}{list(shape)}  {sizes[name]:,} bytes{each}"] = None
    return tuple(lines)


def _total_bytes(found: Sequence[Kept]) -> int:
    return sum(sum(kept.sizes().values()) for kept in found)


def ago(seconds: float) -> str:
    """A time since for people: `12 s`, `5 min`, `3 h`, `12 d`."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
