"""The experiments that faults are injected into, each undamaged at every stage of its life."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from lth_jax.api import choice
from lth_jax.cli import inspect, run
from lth_jax.disk.files import read_bytes
from lth_jax.errors import StoreError
from lth_jax.lottery import building, runner
from lth_jax.lottery.level import LevelTrainer
from lth_jax.report import figures
from lth_jax.store import RunDirectory, checkpoints
from lth_jax.store.table import Table
from lth_jax.store.tables import METRICS, RunId

from ..tiny import arguments, experiment

NORM = str(Path(__file__).with_name("norm.py"))
SMALL: dict[str, Any] = {"levels": 1, "replicates": 1, "branches": "reinit"}
# Layers are packed anew at steps 3 and 6; networks are kept, and the curvature is measured.
MOVING: dict[str, Any] = {
    "train__kernel": "sparse", "branch__rigl__every": "3", "branch__rigl__keep": True,
    "branch__edge_popup__keep": True, "curvature__steps": "('0', '7')", "curvature__iterations": 2,
}  # fmt: skip
LARGE: dict[str, Any] = {"levels": 2, "replicates": 2, "branches": "reinit"}


@dataclasses.dataclass(frozen=True)
class Scenario:
    """An experiment, and a smaller one that it grows from.

    Attributes:
      name: of it.
      small, whole: arguments of the command line.
      pause: between two chunks, at which it is stopped in the middle of a level.
    """

    name: str
    small: list[str]
    whole: list[str]
    pause: int = 8


def without_widths(given: Sequence[str]) -> list[str]:
    """Returns the arguments for the network of `norm.py`."""
    return [f"--config={NORM}", *(one for one in given if ".hidden=" not in one)]


SCENARIOS = [
    Scenario("growing", arguments(**SMALL), arguments(**LARGE), pause=14),
    Scenario(
        "late rewinding",
        arguments(**SMALL, rewind__step="5"),
        arguments(**{**LARGE, "replicates": 1}, rewind__step="5"),
    ),
    Scenario(
        "batch norm",
        without_widths(arguments(**SMALL)),
        without_widths(arguments(**{**SMALL, "levels": 2})),
    ),
    Scenario(
        "sparse",
        arguments(**SMALL, train__kernel="sparse"),
        arguments(**{**LARGE, "replicates": 1}, train__kernel="sparse"),
    ),
    Scenario(
        "masks that move and are learned",
        arguments(**{**SMALL, "branches": "rigl"}, **MOVING),
        arguments(**{**SMALL, "branches": "rigl,edge_popup"}, **MOVING),
        pause=14,
    ),
    Scenario(
        "transfer",
        [*arguments(**SMALL, data__part="2/2"), "--config.source.data.part=1/2"],
        [
            *arguments(**{**SMALL, "branches": "reinit,transfer"}, data__part="2/2"),
            "--config.source.data.part=1/2",
        ],
        pause=14,
    ),
]


@dataclasses.dataclass
class Answer:
    """What a command did.

    Attributes:
      status: its exit status; None where an exception came out.
      out, err: what it printed.
      trained: the runs that it trained.
    """

    status: int | None
    out: str
    err: str
    trained: set[Any]

    @property
    def errors(self) -> list[str]:
        """Returns the lines that say what went wrong."""
        return [line for line in self.err.splitlines() if line.startswith("error:")]


class NotedRuns(LevelTrainer):
    """Notes every run that is trained, with its run directory."""

    noted: ClassVar[set[tuple[Path, RunId]]] = set()

    def train(self, level, runs):
        """Trains them."""
        self.noted.update((self.store.path, run.run_id) for run in runs)
        return super().train(level, runs)


@contextlib.contextmanager
def in_process() -> Iterator[None]:
    """Lets commands run in this process: what is compiled is shared, and nothing is drawn."""
    made = {
        (choice, "choose"): _choose,
        (building, "build"): experiment,
        (runner, "LevelTrainer"): NotedRuns,
        (figures, "FIGURES"): {},
    }
    before = {(module, name): getattr(module, name) for module, name in made}
    for (module, name), value in made.items():
        setattr(module, name, value)
    logging.getLogger("lth_jax").handlers = [logging.NullHandler()]
    try:
        yield
    finally:
        for (module, name), value in before.items():
            setattr(module, name, value)


_parse = choice.choose


def _choose(config_file: str, overrides: Sequence[str]) -> Any:
    """Parses a command line once: that takes as long as training does here."""
    return _parsed(config_file, tuple(overrides))


@functools.cache
def _parsed(config_file: str, overrides: tuple[str, ...]) -> Any:
    return _parse(config_file, overrides)


@contextlib.contextmanager
def listening(came: Callable[[], int]) -> Iterator[None]:
    """Lets `run` see the signals whose number a function returns, which it calls at each pause."""
    before = run.listening
    run.listening = lambda: contextlib.nullcontext(came)
    try:
        yield
    finally:
        run.listening = before


def command(main: Any, *given: str) -> Answer:
    """Calls a command."""
    out, err = io.StringIO(), io.StringIO()
    NotedRuns.noted.clear()
    status = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(list(given))
        except Exception:
            import traceback

            traceback.print_exc()
        except SystemExit as end:
            status = int(end.code or 0)
    return Answer(status, out.getvalue(), err.getvalue(), set(NotedRuns.noted))


def train(path: Path, given: Sequence[str]) -> Answer:
    """Runs an experiment in `path`."""
    return command(run.main, *given, f"--workdir={path}")


def shown(path: Path) -> Answer:
    """Inspects a run directory."""
    return command(inspect.main, str(path), "--json")


# What may differ between two runs of one experiment, and says nothing of its results.
VOLATILE = {"path", "command", "holder", "source", "versions", "leftovers"}


def said(answer: Answer) -> dict[str, Any]:
    """Returns what `inspect --json` printed, without what may differ; without seconds too."""
    found = json.loads(answer.out)
    for row in found["results"]:
        del row["train_seconds"]
    return {name: value for name, value in found.items() if name not in VOLATILE}


def table_of(file: Path) -> Table[Any]:
    """Returns what reads a table under `metrics/`."""
    return next(table for table in METRICS if file.name.startswith(f"{table.stem}_"))


def facts(path: Path) -> dict[str, Any]:
    """Returns every number of a run directory and of its source; None for what is damaged."""
    found: dict[str, Any] = {}
    for folder in (path, path / "source"):
        if not (folder / "spec.json").exists():
            continue
        try:
            rows = [dataclasses.asdict(row) for row in RunDirectory.read(folder).sorted_rows()]
            found[f"{folder.name}: results"] = [
                {name: repr(row[name]) for name in row if name != "train_seconds"} for row in rows
            ]
        except StoreError:
            found[f"{folder.name}: results"] = None
        for file in sorted((folder / "metrics").rglob("*.csv")):
            name = f"{folder.name}: {file.relative_to(folder)}"
            try:
                points = table_of(file).from_csv(read_bytes(file).decode())
                found[name] = [repr(point) for point in points]
            except (ValueError, FileNotFoundError):
                found[name] = None
        for one in sorted((folder / "checkpoints").glob("replicate_*/[!.]*")):
            name = f"{folder.name}: {one.parent.name}/{one.name}"
            try:
                arrays = checkpoints.load(one)[0]
                found[name] = {key: (a.dtype.name, a.tobytes()) for key, a in arrays.items()}
            except StoreError:
                found[name] = None
    return {name.replace(f"{path.name}: ", ""): value for name, value in found.items()}


def files(path: Path) -> dict[str, bytes]:
    """Returns the regular files of a run directory that hold what was computed."""
    return {
        name: file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and not file.is_symlink() and counts(name := str(file.relative_to(path)))
    }


def counts(name: str) -> bool:
    """Whether a file of a run directory holds something that was computed, or says what."""
    leaf = name.rpartition("/")[2]
    return not (leaf.startswith((".", "lock", "events.")) or "report" in leaf or "figures" in name)


def copy(source: Path, target: Path) -> Path:
    """Replaces `target` by a copy of `source`."""
    shutil.rmtree(target, ignore_errors=True)
    if source.exists():
        shutil.copytree(source, target, symlinks=True)
    return target
