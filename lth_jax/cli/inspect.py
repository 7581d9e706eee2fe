"""`lth-jax inspect RUN`: what a run directory holds, finished, running or damaged."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from lth_jax import config as specs
from lth_jax.analysis.layers import short_name
from lth_jax.analysis.summary import INTERVAL
from lth_jax.analysis.verdicts import lowest_matching_density
from lth_jax.cli.command import Parser, exit_status
from lth_jax.cli.directory import Checkpoint, Directory, read_directory, refuse_damaged_tables
from lth_jax.cli.layers import Layer, layers_of
from lth_jax.cli.text import ago, as_json, fits, layer_tables, new_table
from lth_jax.errors import StoreError, nearest, spans
from lth_jax.pruning.trees import name_matches
from lth_jax.report.table import print_results_tables
from lth_jax.report.terminal import make_console
from lth_jax.report.verdict import verdict
from lth_jax.store.record import command_of
from lth_jax.store.table import named
from lth_jax.store.tables import TRUNK, RunId

DESCRIPTION = """Shows what a run directory holds: what it is, its problems, its spec, results over
levels, layers and checkpoints. A damaged run is looked at all the same; the exit status is 1 where
a table is damaged, so that numbers are missing. What cannot be had at all is one line and exit
status 2."""
UNITS = (
    "dead in: input units that no surviving weight leaves (rows of the kernel); dead out: output "
    "units that no surviving weight reaches (columns); of convolutions, channels."
)
STARTS = {"initial": "initial", "rewind": "rewound"}
NOTHING_YET = "nothing yet, no level is finished"


class Selection(NamedTuple):
    """What of a run is asked for; None for all there is."""

    branch: str | None = None
    level: int | None = None
    replicate: int | None = None
    layer: str | None = None


class LevelLayers(NamedTuple):
    """The layers of the level that is asked for; always the trunk's, controls keep metrics only.

    Attributes:
      layers: the prunable ones.
      start: the checkpoint with which signs are compared, `initial` or `rewind`; None where it is
        lost.
    """

    layers: list[Layer]
    start: str | None


def main(arguments: Sequence[str]) -> int:
    """Prints what the run directory holds; returns the exit status."""
    return exit_status(lambda: _inspect(arguments))


def _inspect(arguments: Sequence[str]) -> None:
    options = _parser().parse(arguments)
    run = read_directory(options.run)
    asked = Selection(options.branch, options.level, options.replicate, options.layer)
    check(run, asked)
    layers = read_layers(run, asked)
    if options.json:
        print(as_json(as_object(run, asked, layers)))
    else:
        print_run(make_console(), run, asked, layers)
    refuse_damaged_tables([run])


def _parser() -> Parser:
    parser = Parser("inspect", description=DESCRIPTION)
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="the run directory")
    add("--level", type=int, metavar="N", help="the layers of level N, and its checkpoints")
    add(
        "--replicate",
        type=int,
        metavar="R",
        help="whose layers and checkpoints (layers of 0, checkpoints of all)",
    )
    add(
        "--branch",
        metavar="B",
        help="the results and the progress of branch B; the table keeps the ticket beside it. "
        "Layers are always the ticket's: controls keep no weights",
    )
    add(
        "--layer",
        metavar="PATTERN",
        help="only layers of this name or module, such as 'fc1', 'conv*' or '*/kernel'",
    )
    add("--json", action="store_true", help="one JSON object instead of tables")
    return parser


# What is asked for


def check(run: Directory, asked: Selection) -> None:
    """Raises a StoreError, with what there is, unless all that is asked for exists."""
    if asked.branch not in (None, *run.branches):
        hint = nearest(asked.branch, run.branches)
        raise StoreError(f"{run.path} has no branch '{asked.branch}'; {hint}")
    levels = run.levels()
    if asked.level is not None:
        replicate = asked.replicate or 0
        if asked.level not in levels.get(replicate, {}):
            raise StoreError(
                f"{run.path} has no level {asked.level} of replicate {replicate}; "
                f"accepted: {_which_levels(levels)}"
            )
    elif asked.replicate is not None:
        kept = [re.match(r"replicate_(\d+)/", name) for name in run.checkpoints]
        known = {row.replicate for row in run.rows} | {int(match[1]) for match in kept if match}
        if asked.replicate not in known:
            there_is = spans(known) or "nothing yet, nothing is trained"
            raise StoreError(f"{run.path} has no replicate {asked.replicate}; accepted: {there_is}")
    if asked.layer is not None and not _matching(_layer_names(run), asked.layer):
        names = ", ".join(_layer_names(run))
        accepted = f"a pattern for {names}" if names else NOTHING_YET
        raise StoreError(
            f"{run.path}: --layer='{asked.layer}' matches no prunable layer; accepted: {accepted}"
        )


def _which_levels(levels: Mapping[int, Mapping[int, Checkpoint]]) -> str:
    """Writes `levels 0 to 16 of replicates 0 to 2`, or each replicate's where they differ."""
    by_levels: dict[str, list[int]] = {}
    for replicate, found in levels.items():
        by_levels.setdefault(spans(found), []).append(replicate)
    return (
        NOTHING_YET
        if not levels
        else "; ".join(
            f"{'level' if found.isdigit() else 'levels'} {found} of "
            f"{'replicates' if len(replicates) > 1 else 'replicate'} {spans(replicates)}"
            for found, replicates in by_levels.items()
        )
    )


def _layer_names(run: Directory) -> list[str]:
    """Returns the prunable layers, of any level that is kept."""
    kept = [checkpoint for levels in run.levels().values() for checkpoint in levels.values()]
    return list(dict.fromkeys(name for one in kept for name in one.meta.get("layers", ())))


def _matching(names: Iterable[str], pattern: str | None) -> list[str]:
    """Returns the layers that a pattern names, as `pruning.layer_rates` does; all for None."""
    return [name for name in names if pattern is None or name_matches(name, pattern)]


def _arrays(checkpoint: Checkpoint, pattern: str | None) -> list[str]:
    """Returns the arrays of the layers that a pattern names: of `fc1`, `params/fc1/kernel` too."""

    def belongs(parts: Sequence[str]) -> bool:
        tails = ("/".join(parts[start:]) for start in range(len(parts)))
        return pattern is None or any(name_matches(tail, pattern) for tail in tails)

    return [name for name in checkpoint.arrays if belongs(name.split("/"))]


def _checkpoints(run: Directory, asked: Selection) -> list[Checkpoint]:
    """Returns the checkpoints asked for: of one level, its own and those it started from."""
    if asked.level is None and asked.replicate is None:
        return list(run.checkpoints.values())
    folder = f"replicate_{asked.replicate or 0}/"
    found = [one for name, one in run.checkpoints.items() if name.startswith(folder)]
    if asked.level is None:
        return found
    level = run.levels()[asked.replicate or 0][asked.level]
    return [one for one in found if one is level or not one.name.startswith(f"{folder}level_")]


def read_layers(run: Directory, asked: Selection) -> LevelLayers | None:
    """Reads the layers of the level that is asked for from its arrays; None for no level.

    Raises:
      StoreError: the level's checkpoint is damaged.
    """
    if asked.level is None:
        return None
    replicate = asked.replicate or 0
    trained = run.levels()[replicate][asked.level]
    if trained.damage:
        raise StoreError(f"checkpoint {trained.path} cannot be used: {trained.damage}")
    # The weights that training started from: rewound, or initial.
    rewind = run.checkpoints.get(f"replicate_{replicate}/rewind") if asked.level else None
    start = rewind or run.checkpoints.get(f"replicate_{replicate}/initial")
    start = start if start and not start.damage else None
    names = _matching(trained.meta.get("layers", ()), asked.layer)
    layers = layers_of(trained.path, start and start.path, names)
    return LevelLayers(layers, start and start.name.rpartition("/")[2])


# As one object for programs


def as_object(run: Directory, asked: Selection, layers: LevelLayers | None) -> dict[str, Any]:
    """Returns what `inspect --json` prints.

    What `spec.json` no longer tells is None. `checkpoints` lists arrays, each by its checkpoint's
    name and its own; the bytes are those in memory.
    """
    record = run.record
    planned, pending = run.planned(asked.branch), run.pending(asked.branch)
    source = run.source()
    found: dict[str, Any] = {
        "path": str(run.path),
        "name": record.get("name"),
        "identity": record.get("identity"),
        "status": run.status,
        "progress": {
            "done": len(planned) - len(pending) if planned else len(run.rows),
            "planned": len(planned) if run.spec else None,
            "level": min((run_id.level for run_id in pending), default=None),
            "under_way": [
                {**run_id._asdict(), "step": step} for run_id, step in run.under_way(asked.branch)
            ],
            "holder": run.holder or None,
        },
        "problems": run.problems,
        "leftovers": run.leftovers,
        "spec": record.get("spec"),
        "branches": record.get("branches"),
        "versions": record.get("versions"),
        "command": record.get("command"),
        "source": str(source) if source else None,
        "metric": run.metric.record(),
        "lowest_matching_density": lowest_matching_density(run.rows, run.standard),
        "results": [
            named(row, run.metric.column) for row in run.rows if asked.branch in (None, row.branch)
        ],
        "checkpoints": [
            {
                "path": f"{checkpoint.name}/{name}",
                "shape": checkpoint.arrays[name][0],
                "dtype": checkpoint.arrays[name][1],
                "bytes": checkpoint.sizes()[name],
                "damaged": bool(checkpoint.damage),
            }
            for checkpoint in _checkpoints(run, asked)
            for name in _arrays(checkpoint, asked.layer)
        ],
    }
    if layers:
        found["layers_of"] = {
            "branch": TRUNK,
            "level": asked.level,
            "replicate": asked.replicate or 0,
            "signs_since": layers.start,
        }
        found["layers"] = [dataclasses.asdict(layer) for layer in layers.layers]
    return found


# For people, at whatever width the terminal has


def print_run(
    console: Console, run: Directory, asked: Selection, layers: LevelLayers | None
) -> None:
    """Prints a run directory, from what it is to its checkpoints."""
    for line in _head(run, asked):
        console.print(Text(line), soft_wrap=line.startswith("command: "))
    _print_problems(console, run)
    console.print()
    if run.record:
        _print_spec(console, run.record["spec"])
    if run.rows:
        shown = (TRUNK, asked.branch)
        rows = [row for row in run.rows if asked.branch is None or row.branch in shown]
        bars = run.spec.report.bars if run.spec else INTERVAL
        print_results_tables(console, rows, run.standard, bars)
        console.print()
        if asked.branch is None:
            console.print(Text(verdict(run.rows, run.standard), style="bold"))
            console.print()
    if layers:
        if asked.branch not in (None, TRUNK):
            console.print(Text(f"{asked.branch} has kept metrics, no weights; the ticket's are:"))
        _print_layers(console, asked, layers)
    else:
        _print_kept(console, run, asked)
    _print_checkpoints(console, run, asked)


def _head(run: Directory, asked: Selection) -> Iterator[str]:
    record = run.record
    yield f"{record.get('name', run.path)}, identity {record.get('identity', 'unknown')}"
    holder = f" ({run.holder})" if run.holder else ""
    planned, pending = run.planned(asked.branch), run.pending(asked.branch)
    runs = f"{len(run.rows)} runs"
    if run.spec:
        runs = f"{len(planned) - len(pending)} of {len(planned)} runs"
    of = f" of {asked.branch}" if asked.branch else ""
    yield f"status: {run.status}{holder}, {runs}{of}"
    if pending:
        yield _under_way(run, pending, asked.branch)
    if record:
        versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        yield f"versions: {versions}"
        yield f"command: {command_of(record)}"
    if source := run.source():
        yield f"source: {source}"


def _under_way(run: Directory, pending: Sequence[RunId], branch: str | None) -> str:
    level = min(run_id.level for run_id in pending)
    saved = run.under_way(branch)
    if not saved:
        return f"level {level} is under way" if run.holder else f"next: level {level}"
    steps = sorted({step for _, step in saved})
    at = f"step {steps[0]:,}" if len(steps) == 1 else f"steps {steps[0]:,} to {steps[-1]:,}"
    runs = "1 run" if len(saved) == 1 else f"{len(saved)} runs"
    verb = "is" if run.holder else "was"
    newest = max(one.saved_at for name, one in run.checkpoints.items() if "progress_" in name)
    when = ago(time.time() - newest)
    of = _total_steps(run, [run_id for run_id, _ in saved])
    return f"level {saved[0][0].level} {verb} under way: {runs} saved at {at}{of}, {when} ago"


def _total_steps(run: Directory, saved: Sequence[RunId]) -> str:
    """Writes ` of 5,000` where the spec says so in steps, and for all of these runs."""
    spec = run.spec
    if spec is None or spec.rewind.kind != "weights":
        return ""
    steps = {spec.branch_spec(run_id.branch).train_spec(spec.train).steps for run_id in saved}
    return f" of {int(*steps):,}" if len(steps) == 1 and "".join(steps).isdigit() else ""


def _print_problems(console: Console, run: Directory) -> None:
    """Prints what is damaged, and what a start would do about it."""
    if run.problems:
        console.print(Text(f"problems ({len(run.problems)}):", style="bold red"))
        for problem in run.problems:
            console.print(Padding(Text(problem, overflow="fold"), (0, 0, 0, 2), expand=False))
    hints = {
        "Damaged checkpoints are never used: a start trains again what it needs of them, and with "
        "--repair all of them.": any(checkpoint.damage for checkpoint in run.checkpoints.values()),
        "Damaged tables are refused by a start; with --repair it trains again, bit for bit, what "
        "they lost.": bool(run.tables),
    }
    for hint, applies in hints.items():
        if applies:
            console.print(Text(hint, style="dim"))
    if run.leftovers:
        files = "1 leftover" if len(run.leftovers) == 1 else f"{len(run.leftovers)} leftovers"
        console.print(
            Text(f"{files} of a killed save, which the next start removes: {run.leftovers[0]}")
        )


def _print_spec(console: Console, recorded: Mapping[str, Any]) -> None:
    """Prints the fields of a spec, as `spec.json` holds it, that are not at their default.

    Fields that this version does not know are among them: what they mean is for another to say.
    """
    console.print("spec, where it differs from the defaults")
    grid = Table.grid(padding=(0, 2))
    for field, value in specs.flatten(recorded).items():
        if not specs.is_default(field, value):
            text = value if isinstance(value, str) else json.dumps(value)
            if field.startswith("reference.") and isinstance(value, list):
                text = f"{len(value)} {'claims' if field.endswith('.claims') else 'points'}"
            grid.add_row(Text(f"  {field}"), Text(text, overflow="fold"))
    console.print(grid)
    console.print()


def _print_layers(console: Console, asked: Selection, layers: LevelLayers) -> None:
    replicate = asked.replicate or 0
    console.print(f"layers of the ticket at level {asked.level}, replicate {replicate}")
    for table in layer_tables(console, layers.layers):
        console.print(table)
        console.print()
    signs = "same sign is unknown: the checkpoint that training started from is lost."
    if layers.start:
        start = STARTS[layers.start]
        signs = f"same sign: the share of them whose sign is that of the {start} weights."
    console.print(Text(f"{UNITS} |w|: of the surviving weights, trained; {signs}", style="dim"))
    console.print()


def _print_kept(console: Console, run: Directory, asked: Selection) -> None:
    """Prints the weights kept in each layer, a level a line, where that fits."""
    replicate = asked.replicate or 0
    levels = {
        level: checkpoint.meta["layers"]
        for level, checkpoint in run.levels().get(replicate, {}).items()
        if "layers" in checkpoint.meta
    }
    if not levels:
        return
    names = _matching(_layer_names(run), asked.layer)
    several = len(names) > 1
    table = new_table("level", *map(short_name, names), *(["all"] if several else []))
    for level, layers in levels.items():
        kept = [layers[name][0] if name in layers else 0 for name in names]
        kept += [sum(kept)] if several else []
        table.add_row(str(level), *(f"{count:,}" for count in kept))
    console.print(f"weights kept in each layer, replicate {replicate}")
    if fits(console, table):
        console.print(table)
    else:
        console.print(f"  {len(names)} layers are too many for a table: see --level, --layer")
    console.print()


def _print_checkpoints(console: Console, run: Directory, asked: Selection) -> None:
    """Prints the checkpoints with their arrays' shapes, dtypes and bytes; names damaged ones."""
    found = _checkpoints(run, asked)
    if not found:
        console.print("no checkpoints yet")
        return
    damaged = sum(bool(checkpoint.damage) for checkpoint in found)
    said = f"{damaged} of {len(found)} damaged" if damaged else "checksums verified"
    size = sum(map(_total_bytes, found))
    tree = Tree(Text(f"checkpoints: {len(found)}, {size:,} bytes, {said}"))
    shown: set[tuple[str, ...]] = set()
    # Neighbours that are alike in folder, damage and arrays are one line.
    alike = itertools.groupby(
        found,
        key=lambda one: (one.name.rpartition("/")[0], one.damage, _array_lines(one, asked.layer)),
    )
    for (_, damage, lines), group in alike:
        first, *others = group
        if damage:
            for one in (first, *others):
                tree.add(Text(f"{one.name}  DAMAGED: {damage}"))
            continue
        label, times = first.name, ""
        if others:
            label += f" to {others[-1].name.rpartition('/')[2]}"
            times = f"{1 + len(others)} times "
        size = f"{len(first.arrays)} arrays, {_total_bytes(first):,} bytes"
        node = tree.add(Text(f"{label}  {times}{size}"))
        if lines not in shown:  # those of further folders are not repeated
            shown.add(lines)
            for line in lines:
                node.add(Text(line))
    console.print(tree)


def _array_lines(checkpoint: Checkpoint, pattern: str | None) -> tuple[str, ...]:
    """Writes a line for each array; one for the alike arrays of runs that are saved together."""
    sizes = checkpoint.sizes()
    lines: dict[str, None] = {}
    for name in _arrays(checkpoint, pattern):
        shape, dtype = checkpoint.arrays[name]
        label, runs = re.subn(r"^run_\d+/", "run_*/", name)
        each = " each" if runs else ""
        lines[f"{label}  {dtype}{list(shape)}  {sizes[name]:,} bytes{each}"] = None
    return tuple(lines)


def _total_bytes(checkpoint: Checkpoint) -> int:
    return sum(checkpoint.sizes().values())
