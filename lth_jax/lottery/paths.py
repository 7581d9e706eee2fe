"""The paths between an experiment's trained networks: which there are, and what lies on them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lth_jax.config import Spec
from lth_jax.errors import Interrupted, StoreError
from lth_jax.lottery.aligning import Network
from lth_jax.lottery.experiment import Experiment
from lth_jax.lottery.observer import Observer
from lth_jax.lottery.path_meter import PathMeter
from lth_jax.lottery.plan import is_kept, origin, parting, planned_runs
from lth_jax.lottery.rewinding import missing
from lth_jax.pruning.trees import to_device
from lth_jax.store import RunDirectory, checkpoint_name
from lth_jax.store.checkpoints import fill
from lth_jax.store.rundir import DamagedTable
from lth_jax.store.tables import TRUNK, PathPoint, RunId
from lth_jax.training.paths import distance


class Pair(NamedTuple):
    """Two trained networks that a path lies between.

    Attributes:
      kind: what they are to each other, a word of `config.paths.pairs`.
      first, second: the runs.
      aligned: by what the second's units are put into the first's order, or `none`.
    """

    kind: str
    first: RunId
    second: RunId
    aligned: str = "none"

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Its kind, the networks as `paths.csv` names them, and their alignment."""
        return self.kind, name_of(self.first), name_of(self.second), self.aligned


def name_of(run: RunId) -> str:
    """Returns how `paths.csv` names a network: `sibling:0:2:1`."""
    return ":".join(map(str, run))


def pairs_of(spec: Spec, runs: Sequence[RunId]) -> list[Pair]:
    """Returns the pairs that a spec asks for among `runs`, of those whose networks are kept."""
    kept = [run for run in runs if is_kept(spec, run)]
    there = set(kept)
    trunk = [run for run in kept if run.branch == TRUNK]

    def siblings() -> Iterator[Pair]:
        kinds = {name: spec.branch_spec(name).kind for name in spec.branches}
        own = [run for run in kept if kinds.get(run.branch) == "sibling"]
        for one, other in itertools.combinations(own, 2):
            together = parting(spec, one)[1] == parting(spec, other)[1]
            if one[:3] == other[:3] and together:
                yield Pair("siblings", one, other)

    def levels() -> Iterator[Pair]:
        for run in trunk:
            before = run._replace(level=run.level - 1)
            if before in there:
                yield Pair("levels", before, run)

    def ticket_dense() -> Iterator[Pair]:
        for run in trunk:
            if run.level and run._replace(level=0) in there:
                yield Pair("ticket_dense", run, run._replace(level=0))

    def ticket_branch() -> Iterator[Pair]:
        for run in kept:
            ticket = RunId(TRUNK, run.level, run.replicate, 0)
            if run.branch != TRUNK and run.level and ticket in there:
                yield Pair("ticket_branch", ticket, run)

    def replicates() -> Iterator[Pair]:
        for one, other in itertools.combinations(trunk, 2):
            if one.level == other.level:
                yield Pair("replicates", one, other)

    found: dict[str, Callable[[], Iterator[Pair]]] = {
        "siblings": siblings, "levels": levels, "ticket_dense": ticket_dense,
        "ticket_branch": ticket_branch, "replicates": replicates,
    }  # fmt: skip
    return [
        pair._replace(aligned=aligned)
        for kind in spec.paths.pairs
        for pair in found[kind]()
        for aligned in spec.paths.alignments
    ]


def missing_pairs(spec: Spec, store: RunDirectory) -> tuple[list[Pair], list[PathPoint]]:
    """Returns the pairs that are trained and not measured, and what of the table stays.

    What another number of points, other examples or other batch statistics gave is measured anew,
    as is all of a table that is damaged.
    """
    if not spec.paths.pairs:
        return [], []
    try:
        points = store.paths()
    except DamagedTable as error:
        store.problems.append(error.problem)
        points = []
    known: dict[tuple[str, str, str, str], list[PathPoint]] = {}
    for point in points:
        key = point.pair, point.first, point.second, point.aligned
        known.setdefault(key, []).append(point)
    asked = spec.paths.points, {(spec.paths.statistics, spec.paths.examples)}

    def is_whole(of: Sequence[PathPoint]) -> bool:
        return (len(of), {(point.statistics, point.examples) for point in of}) == asked

    runs = [run for run in planned_runs(spec) if run in store.rows]
    pairs = [pair for pair in pairs_of(spec, runs) if not is_whole(known.get(pair.key, []))]
    for pair in pairs:
        known.pop(pair.key, None)
    return pairs, [point for of in known.values() for point in of]


class Paths:
    """Measures the paths of an experiment between the networks that its directory keeps."""

    def __init__(self, experiment: Experiment, store: RunDirectory, observer: Observer):
        self.experiment, self.store, self.spec = experiment, store, experiment.spec.paths
        self.observer = observer
        self.meter = PathMeter(experiment, self.spec)
        if self.spec.pairs:
            self.meter.check()

    def measure(self, stop_signal: Callable[[], int]) -> None:
        """Measures the paths that are missing, a pair at a time; each is written when it is done.

        Raises:
          Interrupted: a signal came; the pairs so far are written.
        """
        pairs, points = missing_pairs(self.experiment.spec, self.store)
        for number, pair in enumerate(pairs):
            if signum := stop_signal():
                raise Interrupted(signum, f"path {number} of {len(pairs)}")
            self.observer.measuring(number + 1, len(pairs))
            points += self._points(pair)
            self.store.write_paths(points)

    def _points(self, pair: Pair) -> list[PathPoint]:
        first, second = (self._network(run) for run in (pair.first, pair.second))
        run, parted = pair.first, -1
        if pair.kind == "siblings" and not run.level:
            parted = origin(self.experiment.spec, run, self.experiment.steps_per_epoch)
        same = {
            "pair": pair.kind,
            "level": run.level,
            "replicate": run.replicate,
            "density": self.store.rows[run].density,
            "first": name_of(run),
            "second": name_of(pair.second),
            "parted": parted,
        }
        return points_of(self.meter, first, second, same, pair.aligned)

    def _network(self, run: RunId) -> Network:
        """Returns the parameters and batch statistics that a kept run ended in."""
        state = self.experiment.initial(run.replicate)
        return stored_network(self.store, run, (state.params, state.model_state))


def points_of(
    meter: PathMeter,
    first: Network,
    second: Network,
    same: Mapping[str, Any],
    aligned: str = "none",
) -> list[PathPoint]:
    """Returns the rows of a path.

    Args:
      meter: measures it.
      first, second: the networks at its ends.
      same: what all rows have in common, such as what the two are to each other.
      aligned: by what the second's units are put into the first's order, or `none`.
    """
    if aligned != "none":
        second = meter.aligner.aligned(first, second)
    train, test = meter.measured(first, second)
    apart = distance(first[0], second[0])
    return [
        PathPoint(
            **same,
            alpha=float(alpha),
            train_loss=float(train.loss[index]),
            train_error=1 - float(train.accuracy[index]),
            test_loss=float(test.loss[index]),
            test_error=1 - float(test.accuracy[index]),
            statistics=meter.spec.statistics,
            examples=meter.spec.examples,
            l2=apart.l2,
            angle=apart.angle,
            aligned=aligned,
        )
        for index, alpha in enumerate(meter.alphas)
    ]


def stored_network(store: RunDirectory, run: RunId, like: Network) -> Network:
    """Returns the parameters and batch statistics that a kept run ended in.

    Args:
      store: its run directory.
      run: which.
      like: a network of its shapes.

    Raises:
      StoreError: it is not there, or damaged.
    """
    name = checkpoint_name(run)
    arrays = store.load(run.replicate, name)
    if arrays is None:
        raise StoreError(missing(store, run.replicate, name))
    kept = fill({"params": like[0], "model_state": like[1]}, arrays)
    return to_device(kept["params"]), to_device(kept["model_state"])
