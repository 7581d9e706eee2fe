"""The path between any two stored networks, of one run or of two, after the fact."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from lth_jax import data
from lth_jax.config import PathsSpec, PruningSpec, RewindSpec, Spec, TrainSpec
from lth_jax.errors import SpecError, StoreError, shown
from lth_jax.lottery.aligning import Network
from lth_jax.lottery.building import build
from lth_jax.lottery.examples import load
from lth_jax.lottery.experiment import Experiment
from lth_jax.lottery.network import check_known, check_model, network_of, task_metric
from lth_jax.lottery.path_meter import PathMeter
from lth_jax.lottery.paths import name_of, points_of, stored_network
from lth_jax.models import MODELS
from lth_jax.store import RunDirectory, checkpoint_name
from lth_jax.store.tables import TRUNK, PathPoint, RunId
from lth_jax.training.tasks import TASKS

KIND = "connected"


def run_id_of(text: str, flag: str) -> RunId:
    """Returns the run that `BRANCH:LEVEL:REPLICATE` or `…:DRAW` names, as `paths.csv` does.

    Raises:
      SpecError: it names none.
    """
    branch, *numbers = text.split(":")
    if not branch or len(numbers) not in (2, 3) or not all(map(str.isdecimal, numbers)):
        raise SpecError(
            f"{flag}={shown(text)}: accepted: BRANCH:LEVEL:REPLICATE, such as ticket:5:0, and "
            ":DRAW after it"
        )
    level, replicate, draw = map(int, (*numbers, "0")[:3])
    return RunId(branch, level, replicate, draw)


def connect(
    stores: tuple[RunDirectory, RunDirectory], runs: tuple[RunId, RunId], spec: PathsSpec
) -> list[PathPoint]:
    """Returns the networks on the straight line between two, measured on the first run's data.

    After them stand those on the line to the second once it is aligned, if that is asked for.

    Args:
      stores: the run directory of each; the same for two networks of one run.
      runs: which networks.
      spec: how many places, on which examples, by which statistics, after which alignment.

    Raises:
      StoreError: a network is not kept (says what keeps it), or the two are of other shapes.
      SpecError: the first run's network cannot be measured so.
    """
    for store, run in zip(stores, runs, strict=True):
        _check_kept(store, run)
    experiment = experiment_of(stores[0].spec(), spec)
    meter = PathMeter(experiment, spec)
    meter.check()
    state = experiment.initial(0)
    like = state.params, state.model_state
    first, second = (_network(store, run, like) for store, run in zip(stores, runs, strict=True))
    one, other = runs
    beside = "" if stores[0].path == stores[1].path else f"{_name(stores[1].path)}:"
    same = {
        "pair": KIND,
        "level": one.level,
        "replicate": one.replicate,
        "density": stores[0].rows[one].density,
        "first": name_of(one),
        "second": beside + name_of(other),
        "parted": -1,
    }
    return [
        point
        for aligned in spec.alignments
        for point in points_of(meter, first, second, same, aligned)
    ]


def experiment_of(spec: Spec, paths: PathsSpec) -> Experiment:
    """Returns what measures networks of a finished run: its data and its network, untrained.

    What trained it need not be known here.
    """
    check_known("model.name", spec.model.name, MODELS)
    check_model(spec)
    data.check_name(spec.data.name)
    check_known("task", spec.task, TASKS)
    if task_metric(spec).column != "accuracy":
        raise SpecError(
            f"config.task={spec.task!r}: errors on a path are those of classes; accepted: a run "
            "of classification"
        )
    bare = dataclasses.replace(
        spec, levels=0, branches=(), branch={}, source={}, reference={}, pretrain=False,
        pruning=PruningSpec(), rewind=RewindSpec(), paths=paths,
        train=TrainSpec(batch_size=spec.train.batch_size, kernel=spec.train.kernel),
    )  # fmt: skip
    facts = data.facts(spec.data.name) or data.facts_of(load(bare))
    return build(bare, network_of(bare, facts))


def _check_kept(store: RunDirectory, run: RunId) -> None:
    if run not in store.rows:
        raise StoreError(f"{store.path} has no finished run {run}")
    if not store.checkpoint(run.replicate, checkpoint_name(run)).exists():
        keeps = "" if run.branch == TRUNK else f"; config.branch.{run.branch}.keep=True keeps it"
        raise StoreError(f"{store.path}: the network of {run} was not kept{keeps}")


def _network(store: RunDirectory, run: RunId, like: Network) -> Network:
    try:
        return stored_network(store, run, like)
    except StoreError as error:
        raise StoreError(f"{store.path}, {run}: {error}; accepted: equal shapes") from None


def _name(path: Path) -> str:
    return path.resolve().name.replace(":", "_")
