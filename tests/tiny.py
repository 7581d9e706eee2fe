"""A tiny experiment on real images, trained in fractions of a second, and its run directory."""

import csv
import dataclasses
import functools
import io
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import ClassVar

import jax
import numpy as np
import pytest

from lth_jax import config as specs
from lth_jax.lottery import level as levels
from lth_jax.lottery.building import build
from lth_jax.lottery.experiment import Experiment
from lth_jax.lottery.memory import Portions
from lth_jax.lottery.network import task_metric
from lth_jax.lottery.observer import Observer, Observers
from lth_jax.lottery.runner import Runner
from lth_jax.models import MODELS
from lth_jax.pruning.granularity import granularity_of
from lth_jax.store import RunDirectory, checkpoints
from lth_jax.store.tables import RESULTS, RunId
from lth_jax.training.devices import ONE_DEVICE, run_devices
from lth_jax.training.streamed import StreamedSplit

# 12 steps cross two epochs of 5 steps; the evaluations fall on 0, 5, 10 and 12.
FIELDS = {
    "levels": 2,
    "replicates": 2,
    "branches": ("reinit", "random_mask"),
    "model.hidden": (8,),
    "data.validation_size": 40,
    "data.train_size": 100,
    "data.test_size": 50,
    "train.steps": "12",
    "train.batch_size": 20,
    "train.learning_rate": 0.01,
    "eval.every": "5",
    "pruning.fraction": 0.3,
    "pruning.layer_rates": (("output", 0.5),),
    "checkpoint.every_seconds": 1e6,
    "execution.workers": 1,  # so that the n-th question for a signal always comes at one place
}


def tiny_spec(**fields) -> specs.Spec:
    """The tiny experiment with some `fields` changed, `__` for a dot."""
    values = {**FIELDS, **{name.replace("__", "."): value for name, value in fields.items()}}
    nested: dict = {}
    for name, value in values.items():
        *groups, last = name.split(".")
        node = nested
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = value
    return specs.from_config(nested)


def arguments(**fields) -> list[str]:
    """The same as arguments of the command line."""
    values = {**FIELDS, **{name.replace("__", "."): value for name, value in fields.items()}}
    return [f"--config.{name}={value}" for name, value in values.items()]


def experiment(spec: specs.Spec, network=None) -> Experiment:
    """`spec` built, with the compiled programs of an earlier one of the same shapes."""
    train = dataclasses.replace(spec.train, steps="1")
    measured = spec.task, spec.metric, spec.eval.batch_size
    built = _built(train, spec.model, spec.data, spec.pruning, measured)
    epoch = len(built.train.targets) // spec.train.batch_size
    splits = [built.train, built.validation, built.test]
    splits = [s.shapes(ONE_DEVICE) if isinstance(s, StreamedSplit) else s for s in splits]
    return dataclasses.replace(
        built,
        spec=spec,
        steps=spec.train.cycles * specs.duration_steps(spec.train.steps, epoch),
        eval_every=specs.duration_steps(spec.eval.every, epoch),
        programs=_programs(
            built.spec.train,
            built.pixels,
            spec.model,
            *(array.shape for split in splits for array in split if array is not None),
            spec.data.name,
            built.streaming is not None,
            (spec.task, spec.metric),
            tuple(row.shape for row in built.parameters),
            (spec.execution.mesh, spec.execution.group_as),
        ),
        devices=run_devices(spec.execution.mesh),
        portions=Portions(),
        others={},
    )


@functools.cache
def _programs(*_key) -> dict:
    """Compiled programs belong to a network, an optimizer, a batch, and how the data look."""
    return {}


@functools.cache
def _built(train, model, data, pruning, measured) -> Experiment:
    task, metric, batch_size = measured
    granularity = granularity_of(pruning.granularity)
    most = granularity.rows - granularity.of_each if granularity.of_each else 12
    spec = specs.Spec(
        levels=most,
        train=train, model=model, data=data, pruning=pruning, task=task, metric=metric,
        analysis=specs.AnalysisSpec(margin=1.0), eval=specs.EvalSpec(batch_size=batch_size),
    )  # fmt: skip
    built = build(spec)
    key = (
        dataclasses.replace(train, kernel="xla"),
        model,
        MODELS[model.name].module,
        built.example.shape,
        tuple((row.name, row.shape) for row in built.parameters),
    )
    network, optimizer = _MADE.setdefault(key, (built.model, built.optimizer))
    return dataclasses.replace(built, model=network, optimizer=optimizer)


# JAX compiles an initialization and a rewind for each network and optimizer as an object.
_MADE: dict = {}


def train(
    path: Path, spec: specs.Spec, stop_signal=lambda: 0, observer=None, source=None, repair=False
) -> RunDirectory:
    """Runs `spec` in `path` to its end, or to the interruption that it raises."""
    metric = task_metric(spec).described()
    store = RunDirectory.open(path, spec, "tiny", ["run.py"], repair=repair, metric=metric)
    watching = [one for one in (observer, stop_signal) if isinstance(one, Observer)]
    try:
        runner = Runner(
            experiment(spec), store, Observers(*watching), source, stop_signal=stop_signal
        )
        runner.run()
    finally:
        store.close()
    return store


def finished_run(spec: specs.Spec, path: Path | None = None) -> Path:
    """A run of `spec` that was trained to its end: once in a process, whoever asks for it.

    Args:
      spec: the spec.
      path: where a copy goes that may be changed; without it the run is everybody's, to look at.
    """
    key = repr(spec)
    if key not in _FINISHED:
        folder = Path(tempfile.mkdtemp(prefix="finished_", dir=os.environ["XDG_CACHE_HOME"]))
        train(folder / "run", spec)
        _FINISHED[key] = folder / "run"
    if path is None:
        return _FINISHED[key]
    return shutil.copytree(_FINISHED[key], path, dirs_exist_ok=True)


_FINISHED: dict[str, Path] = {}


class StopAt(Observer):
    """A signal that comes once so many updates of a level are done, over all of its runs.

    It watches the experiment as an observer, and says at each pause whether it has come; it stays.
    """

    def __init__(self, level: int, updates: int = 0, signum: int = signal.SIGINT):
        self.point, self.signum = (level, updates), signum
        self.reached = (-1, 0)

    def level_started(self, level, density, runs, steps, done):
        self.reached = (level, done)

    def advanced(self, level, steps, loss, val_accuracy):
        self.reached = (level, self.reached[1] + steps)

    def __call__(self) -> int:
        return self.signum if self.reached >= self.point else 0


class StopAtPause:
    """A signal that comes at the n-th pause between two chunks (from 1), for those who watch none.

    It is asked for twice a chunk: before what was trained is taken in, and at the pause then.
    """

    def __init__(self, pause: int, signum: int = signal.SIGINT):
        self.pause, self.signum, self.asked = pause, signum, 0

    def __call__(self) -> int:
        self.asked += 1
        return self.signum if self.asked >= 2 * self.pause else 0


class TrainedRuns(levels.LevelTrainer):
    """Notes every run that is trained, and the state in which it ended, by its id."""

    runs: ClassVar[dict] = {}
    ends: ClassVar[dict] = {}

    def train(self, level, runs):
        # A run that begins gives up where it started.
        self.runs.update({run.run_id: dataclasses.replace(run) for run in runs})
        finished = super().train(level, runs)
        self.ends.update({run_id: run.state for run_id, run in finished.items()})
        return finished

    @classmethod
    def start(cls, branch, level, replicate=0, draw=0):
        """The point that a run started from."""
        return jax.device_get(cls.runs[RunId(branch, level, replicate, draw)].start)


class Recorder(Observer):
    """An observer that keeps the events in order."""

    def __init__(self):
        self.events = []

    def level_started(self, *event):
        self.events.append(("level_started", *event))

    def advanced(self, *event):
        self.events.append(("advanced", *event))

    def level_finished(self, *event):
        self.events.append(("level_finished", *event))

    def note(self, *event):
        self.events.append(("note", *event))

    def measuring(self, *event):
        self.events.append(("measuring", *event))

    def shortened(self, *event):
        self.events.append(("shortened", *event))

    def of(self, name):
        return [event[1:] for event in self.events if event[0] == name]

    def trained(self):
        """The runs that were trained, in order."""
        return [row.run_id for _, rows, _ in self.of("level_finished") for row in rows]


def results(path: Path) -> list[dict[str, str]]:
    """The rows of `results.csv` as they are written, without the seconds and their checksum."""
    reader = csv.DictReader(io.StringIO((path / "results.csv").read_text()))
    return [
        {name: value for name, value in row.items() if name not in ("train_seconds", "checksum")}
        for row in reader
    ]


def change_row(path: Path, index: int, **changes) -> None:
    """Gives a row of `results.csv` other values, as if it had been trained so."""
    file = path / "results.csv"
    rows = RESULTS.from_csv(file.read_text())
    rows[index] = dataclasses.replace(rows[index], **changes)
    file.write_text(RESULTS.to_csv(rows))


def curves(path: Path) -> dict[str, bytes]:
    """The files of training curves by name."""
    folder = path / "metrics"
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*.csv")}


def arrays(path: Path) -> dict[str, tuple[str, bytes]]:
    """Every array of the trunk's checkpoints: its dtype and its bytes."""
    return {
        f"{folder.parent.name}/{folder.name}/{name}": (array.dtype.name, array.tobytes())
        for folder in sorted((path / "checkpoints").glob("replicate_*/*"))
        for name, array in checkpoints.load(folder)[0].items()
    }


def assert_same_run(path: Path, other: Path) -> None:
    """Asserts that two run directories hold the same results bit for bit, the seconds apart."""
    assert results(path) == results(other)
    assert curves(path) == curves(other)
    mine, others = arrays(path), arrays(other)
    assert mine.keys() == others.keys()
    assert [name for name in mine if mine[name] != others[name]] == []


def assert_alike(path, other):
    """Asserts that runs under one `vmap` have equal rows, to rounding."""
    for row, same in zip(results(path), results(other), strict=True):
        assert row.keys() == same.keys()
        for name, value in row.items():
            if value != same[name]:
                assert float(value) == pytest.approx(float(same[name]), rel=1e-5), name


def flip_byte(file: Path, index: int | None = None) -> None:
    """Changes one byte of a file, by default the middle one."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2 if index is None else index] ^= 0xFF
    file.write_bytes(content)


def data_file(checkpoint: Path) -> Path:
    """The largest file of a checkpoint but its manifest: the one with the arrays' values."""
    files = [f for f in checkpoint.rglob("*") if f.is_file() and f.name != "manifest.json"]
    return max(files, key=lambda f: f.stat().st_size)


def host(tree) -> dict[str, np.ndarray]:
    """The leaves of a pytree by name, on the host."""
    from lth_jax.pruning.trees import named_leaves

    return {name: np.asarray(leaf) for name, leaf in named_leaves(tree).items()}
