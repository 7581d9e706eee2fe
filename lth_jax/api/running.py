"""Runs an experiment in its directory: its source first, then what is not done, then the report.

Nothing here prints, listens to signals or ends the process: a caller passes in what it wants of
these, and what goes wrong is raised. `cli.run` is the caller at a terminal, `api.run` in Python.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import jax

from lth_jax import config as specs
from lth_jax import data
from lth_jax.config.files import ConfigFile
from lth_jax.data import directories
from lth_jax.disk.files import private_folder
from lth_jax.errors import RunError, SpecError, StoreError, UserError
from lth_jax.lottery import building, checks
from lth_jax.lottery.custom import NO_ROWS, OwnRows, in_use, observers, own_rows
from lth_jax.lottery.examples import load
from lth_jax.lottery.network import Network, task_metric
from lth_jax.lottery.observer import ExperimentHeader, Observer, Observers
from lth_jax.lottery.paths import missing_pairs
from lth_jax.lottery.pending import planned_levels
from lth_jax.lottery.plan import ended_tickets, is_done, reachable_runs, source_path
from lth_jax.lottery.runner import Runner
from lth_jax.lottery.sharing import Follower, Shares
from lth_jax.lottery.trial import try_rows
from lth_jax.report.live import LiveReport
from lth_jax.report.page import write_report
from lth_jax.store import RunDirectory, level_name
from lth_jax.store.checkpoints import read_manifest, subtree
from lth_jax.store.record import Config
from lth_jax.store.share import Share, wait_to_see
from lth_jax.store.tables import RunId
from lth_jax.training import backend
from lth_jax.training.devices import run_devices

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Running:
    """How one start of an experiment is run: what its caller brings.

    Attributes:
      command: the command line that its record keeps, without `python`; empty where it was called
        from Python.
      config: the file that the spec comes from; None for a config that was made in Python.
      observe: makes the observer of one run directory; a source has a directory of its own.
      warn: takes a line on what went wrong and harms no result.
      listen: makes a context for the time of training. Its value returns the number of a signal
        that asks for a stop, or 0. Before and after, a signal may end the process at once.
      repair: whether finished runs are trained again whose row, curve or checkpoint is damaged.
        They come out bit for bit as they were; one that does not is told.
      shares: where runs are trained; all here by default.
      follower: takes its share of them, where it is another one: it tells nobody anything, and
        leaves tables, report and errors to the first.
    """

    command: Sequence[str]
    config: ConfigFile | None
    observe: Callable[[], Observer]
    warn: Callable[[str], None]
    listen: Callable[[], AbstractContextManager[Callable[[], int]]]
    repair: bool = False
    shares: Shares = dataclasses.field(default_factory=Shares)
    follower: Follower | None = None

    def run(self, spec: specs.Spec, *, name: str, path: Path) -> RunDirectory:
        """Trains what `spec` asks for and `path` does not have yet, and writes its report.

        Args:
          spec: the experiment.
          name: what it is called.
          path: its run directory.

        Returns:
          The run directory, closed.

        Raises:
          UserError: a wrong spec, data that cannot be had, a directory of another experiment, or
            training that failed.
          Interrupted: a signal asked for a stop; everything done so far is on disk.
          Ended, Lost: this process is a follower, and the first one ended or is gone.
        """
        with (
            in_use(self.config),
            backend.prepared(self.warn),
            backend.precise(spec.execution.precision),
        ):
            network = checks.check(spec)
            run_devices(spec.execution.mesh)  # before anything is loaded
            source = self._source(spec, name, path)
            store = self._train(spec, network, name=name, path=path, source=source)
        if not self.follower:
            _check_ended(spec, store)
        return store

    def _source(self, spec: specs.Spec, name: str, path: Path) -> Path | None:
        """Returns the run directory that transfers start from, trained first if need be.

        None where nothing starts from another experiment.

        Raises:
          SpecError: a finished source lacks a ticket that a transfer needs.
        """
        transfers = {n for n in spec.branches if spec.branch_spec(n).kind in specs.TRANSFERS}
        if not transfers and not spec.pretrain:
            return None
        if finished := spec.source.get("run"):
            _check_source(spec, Path(finished), transfers)
            return Path(finished)
        source = specs.source_spec(spec)
        if not transfers:  # pre-training: its dense network alone
            source = dataclasses.replace(source, levels=0)
        network = checks.check(source)
        checks.check_transfers(spec, source)
        if not (path / "source" / "results.csv").exists():
            load(spec)  # or the source would be trained for data that cannot be had
        self._train(source, network, name=f"{name} (source)", path=path / "source")
        return path / "source"

    def _train(
        self,
        spec: specs.Spec,
        network: Network | None,
        *,
        name: str,
        path: Path,
        source: Path | None = None,
    ) -> RunDirectory:
        if self.follower:
            return self._follow(self.follower, spec, network, path=path, source=source)
        own = own_rows(self.config, spec) if self.config else NO_ROWS
        code = Config(self.config.sources, *own) if self.config else None
        metric = task_metric(spec).described()
        store = RunDirectory.open(
            path, spec, name, self.command, code, repair=self.repair, metric=metric
        )
        shown = self.observe()
        observer = Observers(shown, LiveReport(store, shown.note))
        try:
            for note in store.notes:
                self.warn(note)
            if self.config:
                observer.observers += tuple(observers(self.config, spec, shown.note))
            runner = _runner(spec, network, store, observer, name, source, own, self.shares)
            if runner:
                with self.listen() as runner.stop_signal:
                    runner.run()
                observer.experiment_finished()
                _log.info("drawing the figures")
            self.shares.close()
            _write_report(store, self.warn)
            return store
        except UserError:
            store.discard()
            raise
        finally:
            observer.close()
            store.close()
            for problem in store.problems:
                hint = "" if self.repair else ": run.py --repair trains it again"
                self.warn(f"{problem}; it was not used{hint}")

    def _follow(
        self,
        follower: Follower,
        spec: specs.Spec,
        network: Network | None,
        *,
        path: Path,
        source: Path | None,
    ) -> RunDirectory:
        """Trains what the first process says of an experiment that it has opened in `path`."""
        store = Share(path, follower.channel.index)
        try:
            with self.listen() as came:
                if follower.next()["do"] == "build":
                    wait_to_see(path, follower.check)
                    _keep_programs(spec, Observer())
                    experiment = building.build(spec, network)
                    follower.built(experiment.devices.count, experiment.content.digest)
                    runner = Runner(experiment, store, Observer(), source)
                    follower.follow(runner.train_share, store, came)
        finally:
            for problem in store.problems:
                self.warn(f"{problem}; it was not used")
        return store

    def train_share(
        self, spec: specs.Spec, *, path: Path, index: int, level: int, runs: Sequence[RunId]
    ) -> None:
        """Trains some runs of a level in `path` to their end, for the process that opened it.

        Args:
          spec: its experiment.
          path: its run directory.
          index: of the share.
          level: that of the runs.
          runs: they start from what the directory holds.

        Raises:
          as `run`.
        """
        with (
            in_use(self.config),
            backend.prepared(self.warn),
            backend.precise(spec.execution.precision),
            self.listen() as came,
        ):
            network = checks.check(spec)
            store = Share(path, index, RunDirectory.read(path).rows.values())
            _keep_programs(spec, Observer())
            experiment = building.build(spec, network)
            runner = Runner(experiment, store, Observer(), source_path(spec, path))
            runner.train_share(level, runs, Observer(), came)


def _check_source(spec: specs.Spec, finished: Path, transfers: Collection[str]) -> None:
    """Raises a SpecError unless a finished source has every ticket that transfers need."""
    store = RunDirectory.read(finished)
    building.source_optimizer(store.spec())
    fits = False
    for run_id in reachable_runs(spec, (), finished):
        if not (run_id.branch in transfers or (spec.pretrain and run_id.level == 0)):
            continue
        if not store.intact(run_id.replicate, level_name(run_id.level)):
            raise SpecError(
                f"config.source.run='{finished}': it has no whole ticket of level {run_id.level}, "
                f"replicate {run_id.replicate}; accepted: a run that has those of {run_id.branch}"
            )
        if not fits:
            # Of the shapes on disk: a source's own code is not run.
            level = store.checkpoint(run_id.replicate, level_name(run_id.level))
            arrays = read_manifest(level).arrays
            shapes = {n: jax.ShapeDtypeStruct(*array) for n, array in arrays.items()}
            checks.check_transfers(spec, subtree(shapes, "params"))
            fits = True


def _check_ended(spec: specs.Spec, store: RunDirectory) -> None:
    """Raises a RunError where no replicate has a ticket left: all that can be trained is done."""
    planned = [row for row in store.rows.values() if row.level <= spec.levels]
    ended = ended_tickets(spec, planned)
    begun = {row.replicate for row in planned}
    if all(replicate in ended or replicate not in begun for replicate in range(spec.replicates)):
        where = f"the last at level {max(ended.values())}" if ended else "or the source's did"
        raise RunError(
            f"{store.path}: every replicate's ticket diverged, {where}; lower train.learning_rate"
        )


def _runner(
    spec: specs.Spec,
    network: Network | None,
    store: RunDirectory,
    observer: Observer,
    name: str,
    source: Path | None,
    own: OwnRows,
    shares: Shares,
) -> Runner | None:
    """Announces the experiment and returns what trains it; None where nothing is left to train."""
    planned = reachable_runs(spec, store.rows.values(), source)
    done = is_done(spec, store, planned) and not missing_pairs(spec, store)[0]
    if done and not store.repair:
        if "data.name" in own.rows:  # the table will be printed, and must be of these data
            store.record_data(data.content_of(load(spec))._asdict())
        return None
    shares.open(store, observer)
    _keep_programs(spec, observer)
    experiment = building.build(spec, network)
    try_rows(experiment)
    store.record_data(experiment.content._asdict())
    shares.built(experiment.devices.count, experiment.content.digest)
    runner = Runner(experiment, store, observer, source, shares=shares)
    pending = set(runner.pending())
    device = jax.devices()[0]
    header = ExperimentHeader(
        name=name,
        identity=specs.identity(spec),
        workdir=str(store.path),
        device=f"{shares.where}{experiment.devices.number} × {device.device_kind}, "
        f"jax {jax.__version__}",
        data=experiment.data,
        parameters=experiment.parameters,
        levels=planned_levels(experiment, planned, pending),
        metric=store.metric,
    )
    observer.experiment_started(header)
    return runner


def _keep_programs(spec: specs.Spec, observer: Observer) -> None:
    """Lets XLA keep compiled programs, if asked to, where nobody else could have put some."""
    if not spec.execution.compilation_cache:
        return
    folder = directories.resolve("", "", spec.data.cache_dir).cache_dir / "xla"
    try:
        private_folder(folder)
    except (StoreError, OSError) as error:
        observer.note(f"the compilation cache is not used: {error}")
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


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
