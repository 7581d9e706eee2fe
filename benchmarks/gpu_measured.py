"""What a GPU makes of the programs of `gpu_programs`: weights, times, and a whole protocol."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from gpu_compiled import Counts, compiled, counts_of_steps
from gpu_programs import NETS, beginnings, build, on_dataset, spec_of
from levels import runs_of
from timing import spread

import lth_jax
from lth_jax.config import Spec, duration_steps
from lth_jax.config.files import load_config
from lth_jax.lottery.experiment import Experiment
from lth_jax.training.backend import platform, precise
from lth_jax.training.states import Inputs, LoopState

# How many steps are compared, of so many runs in one program.
COMPARED_STEPS, COMPARED_RUNS = 10, 3
# Weights that differ by more of the way that they went are other numbers than rounding makes. Of
# LeNet another order of sums makes 1e-5, and products in TF32 1e-2 (both on a CPU, TF32 imitated).
MOST_DIFFERENCE = 1e-3
# Microseconds of a step that are aimed at, of each run, by net and number of runs in one program.
AIMS = {("lenet", 1): 50.0, ("lenet", 45): 8.0}
PROTOCOL, PROTOCOL_AIM_MINUTES = "configs/lenet_mnist.py:paper", 10.0
# How long a turn is, about: as long as a chunk of an experiment.
TURN_SECONDS = 1.0


class Source(NamedTuple):
    """Says on what experiments are built.

    Attributes:
      kind: `real`, `synthetic`, or `auto`: real images where they can be had.
      data_dir: of prepared datasets.
      overrides: fields that are changed, by net.
    """

    kind: str
    data_dir: str
    overrides: Mapping[str, Sequence[str]] = {}

    def experiment(self, net: str, *more: str) -> Experiment:
        """Returns the experiment of a net on JAX's default device, `more` of its fields changed."""
        return build(spec_of(net, [*self.overrides.get(net, ()), *more]), self.kind, self.data_dir)


# Weights


def difference(net: str, source: Source, there: Any, here: Any, precision: str) -> float:
    """Returns by how much the weights after ten steps differ, as a share of the way they went.

    Args:
      net: whose experiment: three of its runs train in one program there, one by one here.
      source: what it is built on.
      there: the device that is looked at.
      here: the CPU, whose weights are the measure.
      precision: `execution.precision` there.
    """
    with jax.default_device(here):
        e = source.experiment(net)
        run, inputs = beginnings(e, COMPARED_RUNS)
        begun = _weights(run)
        one = e.program(1)
        singles = [_single((run, inputs), index) for index in range(COMPARED_RUNS)]
        # Training takes a state's memory, which is the CPU's own here.
        start = jax.device_get(run)
        ends = [one.train(*single, e.train, 0, COMPARED_STEPS) for single in singles]
        expected = np.stack([_weights(end)[0] for end in ends])
    with jax.default_device(there), precise(precision):
        e = source.experiment(net, f"execution.precision={precision}")
        # What begins here begins there with the same bits: drawn there, its last ones may differ.
        moved: tuple[LoopState, Inputs] = jax.device_put((start, inputs), there)
        found = _weights(e.program(COMPARED_RUNS).train(*moved, e.train, 0, COMPARED_STEPS))
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected - begun))


def _single(runs: Any, index: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[index : index + 1], runs)


def _weights(run: LoopState) -> np.ndarray:
    """Returns the parameters and other collections of each run, float64 [runs, n]."""
    leaves = jax.tree.leaves((run.state.params, run.state.model_state))
    flat = [np.asarray(leaf, np.float64).reshape(len(leaf), -1) for leaf in leaves]
    return np.concatenate(flat, axis=1)


# Times


class Timed(NamedTuple):
    """What a program took.

    Attributes:
      microseconds: of a step of all its runs, one of each turn.
      evaluation: milliseconds of an evaluation of all its runs.
      test: milliseconds of the two tests of all its runs.
      compile_seconds: of all three functions.
      turn: what a turn of the loop takes, as it was compiled here; None on a CPU.
      block: how many steps that is.
      megabytes: the memory of training at its peak.
    """

    microseconds: list[float]
    evaluation: float
    test: float
    compile_seconds: float
    turn: Counts | None
    block: int
    megabytes: float

    @property
    def step(self) -> float:
        """The median, in seconds."""
        return float(np.median(self.microseconds)) / 1e6


def measure(e: Experiment, runs: int, rounds: int) -> Timed:
    """Times a program of so many runs: as many turns of about a second each as `rounds` says."""
    with precise(e.spec.execution.precision):
        run, inputs = beginnings(e, runs)
        program, began = e.program(runs), time.perf_counter()
        lowered = program.lowered(run, inputs, e.train, e.validation, e.test)
        train, turn = lowered.pop("train"), None
        if platform() == "cpu":
            train = train.compile()
        else:
            train, listings = compiled(train)
            try:
                turn, _ = counts_of_steps(listings, program.block)
            except ValueError as error:  # times are worth more than counts
                print(f"{runs} runs, not counted: {error}")
        evaluate, test = (lowered[name].compile() for name in ("evaluate", "test"))
        compile_seconds = time.perf_counter() - began
    step = 0

    def advance(steps: int) -> float:
        nonlocal run, step
        bounds, began = (np.int32(step), np.int32(step + steps)), time.perf_counter()
        run = jax.block_until_ready(train(run, inputs, e.train, *bounds))
        step += steps
        return (time.perf_counter() - began) / steps

    def evaluation() -> float:
        nonlocal run
        began = time.perf_counter()
        each = np.ones(runs, np.int32)
        run, *_ = jax.block_until_ready(evaluate(run, each, e.validation, np.int32(step)))
        return time.perf_counter() - began

    def tests() -> float:
        began = time.perf_counter()
        jax.block_until_ready(test(run, e.test))
        return time.perf_counter() - began

    advance(program.block + 1)  # the first one touches memory that nobody has touched
    steps = max(1, round(TURN_SECONDS / advance(2 * program.block)))
    found = [1e6 * advance(steps) for _ in range(rounds)]
    evaluations, tested = ([f() for _ in range(1 + rounds)][1:] for f in (evaluation, tests))
    peak = train.memory_analysis().peak_memory_in_bytes
    milliseconds = 1e3 * float(np.median(evaluations)), 1e3 * float(np.median(tested))
    return Timed(found, *milliseconds, compile_seconds, turn, program.block, peak / 1e6)


HEADING = (
    f"{'net':<10}{'runs':>5}{'µs a step':>10}  {'min–max':<16} {'of each':>8}{'aim':>7}"
    f"{'kernels':>9}{'launches':>9}{'waits':>6}{'MB':>7}{'evaluation ms':>14}{'compiled in s':>14}"
)


def line(net: str, runs: int, timed: Timed) -> str:
    """Returns the line of a program in the printed table."""
    each = 1e6 * timed.step / runs
    aim = AIMS.get((net, runs))
    counts = [f"{n / timed.block:.2f}" for n in timed.turn] if timed.turn else ["–"] * 3
    return (
        f"{net:<10}{runs:>5}{spread(timed.microseconds, '{:,.1f}'):>28} {each:>8.2f}"
        f"{f'≤ {aim:g}' if aim else '':>7}{counts[0]:>9}{counts[1]:>9}{counts[2]:>6}"
        f"{timed.megabytes:>7,.0f}{timed.evaluation:>14.2f}{timed.compile_seconds:>14.1f}"
    )


# The protocol


def groups_of(spec: Spec) -> list[tuple[int, int]]:
    """Returns (how many levels, how many runs each): of level 0, and of those that prune."""
    return [(1, spec.replicates), (spec.levels, len(runs_of(spec)))]


def runs_timed(net: str, spec: Spec, few: bool) -> list[int]:
    """Returns how many runs train in one program, of each that is timed of a net.

    Args:
      net: its name; LeNet's are also those that there is an aim for, and those of its protocol.
      spec: its experiment.
      few: whether one run, two of a convolutional network, and the protocol's will do.
    """
    aims = [runs for one, runs in AIMS if one == net]
    chosen = {1, *(() if net == "lenet" else (2,))} if few else {*NETS[net].runs, *aims}
    protocol = [runs for _, runs in groups_of(spec)] if net == "lenet" else []
    return sorted({*chosen, *protocol})


def reckoned(e: Experiment, timed: Mapping[int, Timed]) -> float:
    """Returns the seconds that an experiment's training takes, by the times of its programs.

    Compilation, pruning, checkpoints and the report come on top.

    Args:
      e: the experiment.
      timed: its programs, by the number of runs.
    """
    steps = duration_steps(e.spec.train.steps, e.steps_per_epoch)
    every = duration_steps(e.spec.eval.every, e.steps_per_epoch)
    # Where a run begins, at each multiple, and where it ends.
    evaluations = 1 + -(-steps // every)
    seconds = 0.0
    for levels, runs in groups_of(e.spec):
        one = timed[runs]
        level = steps * one.step + (evaluations * one.evaluation + one.test) / 1e3
        seconds += levels * level
    return seconds


def run_protocol(source: Source, overrides: Sequence[str]) -> float:
    """Runs LeNet's protocol in a folder that goes away; returns its seconds, all included.

    Args:
      source: what it is built on.
      overrides: fields that are changed.
    """
    config = load_config(PROTOCOL, ["execution.mesh=runs:1", *overrides], ())
    began = time.perf_counter()
    with (
        tempfile.TemporaryDirectory(prefix="lth_jax_protocol_") as folder,
        on_dataset(config.data.name, source.kind, source.data_dir),
    ):
        lth_jax.run(config, folder, progress=True)
    return time.perf_counter() - began
