"""An experiment at the terminal: trained, shown while it runs, and summed up at its end."""

from __future__ import annotations

import dataclasses
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import jax

from lth_jax import config as specs
from lth_jax.data import directories
from lth_jax.errors import Interrupted, SpecError, UserError
from lth_jax.lottery import experiment as experiments
from lth_jax.lottery.network import Network
from lth_jax.lottery.observer import Observer, Observers
from lth_jax.lottery.plan import pending_runs, planned_runs
from lth_jax.lottery.runner import Runner, run_steps
from lth_jax.report.live import LiveReport
from lth_jax.report.page import FIGURES, PAGE, write_report
from lth_jax.report.terminal import Terminal, make_console, print_results
from lth_jax.store import RunDirectory, level_name


def run_experiment(spec: specs.Spec, *, name: str, path: Path, command: Sequence[str]) -> int:
    """Runs `spec` in the directory `path` to its end, and shows what was found.

    Raises:
      UserError: as `main` prints it.
    """
    _show_log()
    network = experiments.check(spec)
    try:
        source = _train_source(spec, name=name, path=path, command=command)
        store = _train(spec, network, name=name, path=path, command=command, source=source)
    except Interrupted as stop:
        again = shlex.join(["python", *command])
        print(f"stopped at {stop.where}, and saved; to go on: {again}", file=sys.stderr)
        return 128 + stop.signum
    show_results(store, spec)
    return 0


def _train_source(
    spec: specs.Spec, *, name: str, path: Path, command: Sequence[str]
) -> Path | None:
    """The run directory that transfers start from, trained if need be; None without transfers.

    Raises:
      SpecError: a finished source lacks a ticket that a transfer needs.
    """
    transfers = {n for n in spec.branches if spec.branch_spec(n).kind in specs.TRANSFERS}
    if not transfers and not spec.pretrain:
        return None
    finished = spec.source.get("run")
    if not finished:
        source = specs.source_spec(spec)
        if not transfers:
            source = dataclasses.replace(source, levels=0)  # pre-training: its dense network alone
        network = experiments.check(source)
        experiments.check_transfers(spec, source)
        if not (path / "source" / "results.csv").exists():
            experiments.load(spec)  # or the source would be trained for data that cannot be had
        _train(source, network, name=f"{name} (source)", path=path / "source", command=command)
        return path / "source"
    store = RunDirectory.read(Path(finished))
    experiments.check_transfers(spec, store.spec())
    for run_id in planned_runs(spec):
        needed = run_id.branch in transfers or (spec.pretrain and run_id.level == 0)
        if needed and not store.intact(run_id.replicate, level_name(run_id.level)):
            raise SpecError(
                f"config.source.run={finished!r}: it has no whole ticket of level {run_id.level}, "
                f"replicate {run_id.replicate}; accepted: a run that has those of {run_id.branch}"
            )
    return Path(finished)


def _train(
    spec: specs.Spec,
    network: Network | None,
    *,
    name: str,
    path: Path,
    command: Sequence[str],
    source: Path | None = None,
) -> RunDirectory:
    """Trains what `spec` asks for and `path` does not have yet, and writes the report of it all.

    Gives the closed directory.
    """
    store = RunDirectory.open(path, spec, name, command)
    terminal = Terminal()
    watchers = Observers(terminal, LiveReport(store, terminal.note))
    try:
        runner = _runner(spec, network, store, watchers, name, source)
        if runner:
            # Only now: until training begins, a signal may end the process at once.
            with _signals() as runner.stop_signal:
                runner.run()
            watchers.experiment_finished()
        _write_report(store)
        return store
    finally:
        watchers.close()
        store.close()
        for problem in store.problems:
            print(f"warning: {problem}; it was not used", file=sys.stderr)


def _show_log() -> None:
    """Our own notes, such as that a dataset is being prepared, go to standard error as lines."""
    # Orbax logs every array that it writes, and what it raises, which we report ourselves.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    log = logging.getLogger("lth_jax")
    if not log.handlers:
        log.addHandler(logging.StreamHandler())
        log.setLevel(logging.INFO)


def _runner(
    spec: specs.Spec,
    network: Network | None,
    store: RunDirectory,
    observer: Observer,
    name: str,
    source: Path | None,
) -> Runner | None:
    """The experiment, announced and ready to go; None where nothing is left to train."""
    if all(run_id in store.rows for run_id in planned_runs(spec)):
        return None
    if spec.execution.compilation_cache:
        folder = Path(directories.resolve("", "", spec.data.cache_dir).cache_dir) / "xla"
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    experiment = experiments.build(spec, network)
    planned = planned_runs(spec)
    pending = set(pending_runs(spec, store, experiment.rewind_step))
    device = jax.devices()[0]
    observer.experiment_started(
        name=name,
        identity=specs.identity(spec),
        workdir=str(store.path),
        device=f"{jax.device_count()} × {device.device_kind}, jax {jax.__version__}",
        data=experiment.data,
        parameters=experiment.parameters,
        total_steps=sum(run_steps(experiment, run_id) for run_id in planned),
        done_steps=sum(
            run_steps(experiment, run_id) for run_id in planned if run_id not in pending
        ),
    )
    return Runner(experiment, store, observer, source)


def _write_report(store: RunDirectory) -> None:
    """The report of what the directory holds now; what is wrong with it is a warning."""
    try:
        notes = write_report([store], events=True)
    except Exception as error:  # the results are safe, and worth more than their report
        line = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        print(f"warning: the report was not written: {line}", file=sys.stderr)
        return
    for note in notes:
        if not any(note.startswith(problem) for problem in store.problems):
            print(f"warning: {note}", file=sys.stderr)


def show_results(store: RunDirectory, spec: specs.Spec) -> None:
    """Prints the table, what was found, and where the files are."""
    planned = set(planned_runs(spec))
    rows = [row for row in store.sorted_rows() if row.run_id in planned]
    places = {"results": "results.csv", "report": PAGE, "figures": FIGURES}
    files = [(kind, store.path / name) for kind, name in places.items()]
    files = [(kind, path) for kind, path in files if path.exists()]
    print_results(make_console(), rows, files)


@contextmanager
def _signals() -> Iterator[Callable[[], int]]:
    """A function that gives the number of a signal that came (Ctrl-C, SIGTERM), or 0.

    A second one ends the process at once, as if nobody listened.
    """
    came = [0]

    def handle(signum: int, _frame: object) -> None:
        if came[0]:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        came[0] = signum

    listened = (signal.SIGINT, signal.SIGTERM)
    before = {signum: signal.signal(signum, handle) for signum in listened}
    try:
        yield lambda: came[0]
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
