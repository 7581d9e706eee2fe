"""`lth-jax remove RUN…`: removes run directories, and nothing that is not theirs."""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from lth_jax.cli.command import Parser, exit_status
from lth_jax.cli.directory import LEFTOVERS, is_run
from lth_jax.cli.list import find_runs
from lth_jax.errors import SpecError, StoreError
from lth_jax.store.lock import Lock, held_by
from lth_jax.store.record import SPEC_FILE, read_record
from lth_jax.store.rundir import LOCK
from lth_jax.system.streams import say, show

DESCRIPTION = """Removes runs, having said what goes and asked. What a run directory holds that is
not the run's stays, links are never followed, and a run that is running, or that another one takes
its tickets from, is refused."""
# What a run writes into its directory. What tells that it is a run goes last, so that a removal
# that was cut off can be gone on with.
OWN = (
    "checkpoints", "metrics", "figures", "tensorboard", "config", "report.html", "claims.md",
    "results.csv", f"{LOCK}.holder", SPEC_FILE,
)  # fmt: skip
SOURCE = "source"  # the run within a run that its transfers take their tickets from
UNITS = ("kB", "MB", "GB", "TB")


class Removal(NamedTuple):
    """What of a run goes.

    Attributes:
      run: the run directory.
      parts: what is the run's of it, its source's run directory too, in the order in which it goes.
      others: what else lies there, and stays.
      size: of what goes, in bytes.
    """

    run: Path
    parts: list[Path]
    others: list[Path]
    size: int


def main(arguments: Sequence[str]) -> int:
    """Removes the runs that `arguments` name; returns the exit status."""
    return exit_status(lambda: _remove(arguments))


def _remove(arguments: Sequence[str]) -> None:
    parser = Parser("remove", description=DESCRIPTION)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run directory")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    options = parser.parse(arguments)
    runs = list(dict.fromkeys(options.runs))
    for run in runs:
        _check(run, runs)
    removals = [removal_of(run) for run in runs]
    for one in removals:
        show(f"{one.run}  {size_text(one.size)}{_said_of(one.run)}")
        for other in one.others:
            show(f"  stays, as it is none of the run's: {other.name}")
    if not options.yes and not _agreed(len(runs)):
        say("nothing was removed")
        return
    for one in removals:
        remove(one)


def _check(run: Path, together: Iterable[Path]) -> None:
    """Raises a StoreError unless a run may be removed, `together` with others."""
    if run.is_symlink():
        raise StoreError(f"{run}: it is a link; accepted: the run directory itself")
    if not is_run(run):
        raise StoreError(f"{run}: it holds no run; accepted: run directories, as `list` shows them")
    within = [run, *([run / SOURCE] if _has_source(run) else [])]
    for one in within:
        if holder := held_by(one / LOCK):
            raise StoreError(f"{one} is in use by {holder}; stop it first")
    going = {one.resolve() for one in together}
    for user in _users(run.resolve()):
        if user.resolve() not in going:
            raise StoreError(
                f"{run}: {user} takes its tickets from it; remove that one first, or both together"
            )


def _users(run: Path) -> Iterator[Path]:
    """Yields the runs that take their tickets from `run`: those around it and beside it."""
    if run.name == SOURCE and is_run(run.parent):
        yield run.parent
    for other in find_runs(run.parent, []):
        if other == run:
            continue
        try:
            source = read_record(other)["spec"].get("source", {}).get("run")
        except (StoreError, KeyError, AttributeError):
            continue  # whatever that is, it takes nothing from here
        # A path is as the user typed it, from wherever that was.
        named = isinstance(source, str) and Path(source).name == run.name
        if named and (Path(source).resolve() == run or not Path(source).exists()):
            yield other


def removal_of(run: Path) -> Removal:
    """Returns what of a run directory is the run's, and what is not."""
    parts = [run / name for name in OWN]
    parts[:0] = [left for pattern in LEFTOVERS for left in run.glob(pattern) if left.parent == run]
    if _has_source(run):
        parts.insert(0, run / SOURCE)
    parts = [part for part in parts if os.path.lexists(part)]
    known = {*parts, run / LOCK}
    others = [path for path in sorted(run.iterdir()) if path not in known]
    return Removal(run, parts, others, sum(map(size_of, parts)))


def remove(removal: Removal) -> None:
    """Removes a run under its lock, and its folder if nothing else is in it.

    Raises:
      StoreError: another process has just begun to use it; OSError: a file cannot be removed.
    """
    with ExitStack() as locks:
        for place in (removal.run, removal.run / SOURCE):
            if is_run(place):
                locks.callback(Lock(place / LOCK).release)
        for part in removal.parts:
            if part.is_dir() and not part.is_symlink():
                shutil.rmtree(part)  # of a link within, the link alone
            else:
                part.unlink(missing_ok=True)
    (removal.run / LOCK).unlink(missing_ok=True)
    if not any(removal.run.iterdir()):
        removal.run.rmdir()


def _has_source(run: Path) -> bool:
    source = run / SOURCE
    return not source.is_symlink() and is_run(source)


def size_of(path: Path) -> int:
    """Returns the bytes of a file, or of all files in a folder; a link has none."""
    if path.is_symlink():
        return 0
    if not path.is_dir():
        return path.lstat().st_size
    return sum(
        os.lstat(os.path.join(place, name)).st_size
        for place, _, names in os.walk(path)
        for name in names
        if not os.path.islink(os.path.join(place, name))
    )


def size_text(size: float) -> str:
    """Writes a number of bytes for people: `1.2 MB`."""
    if size < 1000:
        return f"{size:.0f} B"
    power = min(int(math.log10(size) // 3), len(UNITS))
    return f"{size / 1000**power:.1f} {UNITS[power - 1]}"


def _said_of(run: Path) -> str:
    try:
        record = read_record(run)
        return f"  {record['name']}, identity {record['identity']}"
    except (StoreError, KeyError):
        return "  (its spec.json is missing, damaged, or of another version)"


def _agreed(count: int) -> bool:
    """Asks whether to go on; where nobody can answer, the flag has to."""
    what = "this run" if count == 1 else f"these {count} runs"
    sys.stderr.write(f"remove {what} for good? [y/N] ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if not answer:
        sys.stderr.write("\n")
        raise SpecError("remove: nobody answered, and nothing was removed; accepted: --yes")
    return answer.strip().lower() in ("y", "yes")
