"""Runs an experiment in its directory: its source first, then what is not done, then the report.

Nothing here prints, listens to signals or ends the process: a caller passes in what it wants of
these, and what goes wrong is raised. `run` is the caller at a terminal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import jax

from lth_jax import config as specs
from lth_jax.data import directories
from lth_jax.errors import SpecError, UserError
from lth_jax.lottery import experiment as experiments
from lth_jax.lottery.network import Network
from lth_jax.lottery.observer import ExperimentHeader, Observer, Observers
from lth_jax.lottery.plan import pending_runs, planned_runs
from lth_jax.lottery.runner import Runner, run_steps
from lth_jax.report.live import LiveReport
from lth_jax.report.page import write_report
from lth_jax.store import RunDirectory, level_name


def run_experiment(
    spec: specs.Spec,
    *,
    name: str,
    path: Path,
    command: Sequence[str],
    observe: Callable[[], Observer],
    warn: Callable[[str], None],
    listen: Callable[[], AbstractContextManager[Callable[[], int]]],
) -> RunDirectory:
    """Trains what `spec` asks for and `path` does not have yet, and writes the report of it all.

    Args:
      spec: the experiment.
      name: what it is called.
      path: its run directory.
      command: the command line that its record keeps, without `python`.
      observe: makes the observer of one run directory; a source has a directory of its own.
      warn: takes a line on what went wrong and harms no result.
      listen: makes a context for the time of training. Its value returns the number of a signal
        that asks for a stop, or 0. Before and after, a signal may end the process at once.

    Returns:
      The run directory, closed.

    Raises:
      UserError: a wrong spec, data that cannot be had, a directory of another experiment, or
        training that failed.
      Interrupted: a signal asked for a stop; everything done so far is on disk.
    """
    network = experiments.check(spec)
    train = partial(_train, command=command, observe=observe, warn=warn, listen=listen)
    source = _source(spec, name, path, train)
    return train(spec, network, name=name, path=path, source=source)


def _source(
    spec: specs.Spec, name: str, path: Path, train: Callable[..., RunDirectory]
) -> Path | None:
    """Returns the run directory that transfers start from, trained if need be; None without them.

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
        train(source, network, name=f"{name} (source)", path=path / "source")
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
    observe: Callable[[], Observer],
    warn: Callable[[str], None],
    listen: Callable[[], AbstractContextManager[Callable[[], int]]],
    source: Path | None = None,
) -> RunDirectory:
    store = RunDirectory.open(path, spec, name, command)
    shown = observe()
    observer = Observers(shown, LiveReport(store, shown.note))
    try:
        runner = _runner(spec, network, store, observer, name, source)
        if runner:
            with listen() as runner.stop_signal:
                runner.run()
            observer.experiment_finished()
        _write_report(store, warn)
        return store
    finally:
        observer.close()
        store.close()
        for problem in store.problems:
            warn(f"{problem}; it was not used")


def _runner(
    spec: specs.Spec,
    network: Network | None,
    store: RunDirectory,
    observer: Observer,
    name: str,
    source: Path | None,
) -> Runner | None:
    """Announces the experiment and returns what trains it; None where nothing is left to train."""
    planned = planned_runs(spec)
    if all(run_id in store.rows for run_id in planned):
        return None
    if spec.execution.compilation_cache:
        folder = Path(directories.resolve("", "", spec.data.cache_dir).cache_dir) / "xla"
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    experiment = experiments.build(spec, network)
    pending = set(pending_runs(spec, store, experiment.rewind_step))
    device = jax.devices()[0]
    header = ExperimentHeader(
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
    observer.experiment_started(header)
    return Runner(experiment, store, observer, source)


def _write_report(store: RunDirectory, warn: Callable[[str], None]) -> None:
    """Writes the report of what the directory holds now; what is wrong with it is a warning."""
    try:
        notes = write_report([store], events=True)
    except Exception as error:  # the results are safe, and worth more than their report
        line = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        warn(f"the report was not written: {line}")
        return
    for note in notes:
        if not any(note.startswith(problem) for problem in store.problems):
            warn(note)
