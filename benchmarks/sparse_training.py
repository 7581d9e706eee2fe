"""Milliseconds per training step of sparse networks whose masks move: ours, and in PyTorch.

    python benchmarks/sparse_training.py                       # LeNet and Conv-2 at 10, 5 and 2%
    python benchmarks/sparse_training.py --nets=lenet --densities=0.05 --rules=rigl,static
    python benchmarks/sparse_training.py --pytorch=rigl        # fewer of PyTorch's rows

Each layer keeps the same share of its weights. Ours is the experiment's own loop, moves and
evaluations included, a run on each core: RigL, SET and a mask that stays (the bound), beside our
dense native step. PyTorch multiplies by masks, as public repositories of sparse training do, with a
fused optimizer and all cores: its masks move by RigL, or stay; LeNet trains with SparseLab's layers
and its RigL, too, where that is installed. Every turn holds as many moves as
its steps have periods. Contenders take turns in every round, and ratios are taken within rounds.
Nothing here fails for being slow.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from levels import random_mask
from options import OVERRIDES, add_data, densities_of, names_of, parser_of, start
from ours import kernels_named
from problem import Problem, make_problem
from timing import compete, load, ratios, spread, versions

from lth_jax import data
from lth_jax.lottery.experiment import Experiment
from lth_jax.lottery.moving import Moving
from lth_jax.lottery.run import Run
from lth_jax.lottery.runs import RunGroup
from lth_jax.lottery.start_points import StartPoint
from lth_jax.pruning.criteria import CRITERIA
from lth_jax.pruning.masks import kept_counts, ones_mask, prunable
from lth_jax.pruning.moving import MASK_RULES, Course
from lth_jax.pruning.trees import PyTree
from lth_jax.store.tables import RunId
from lth_jax.training.states import Examples, TrainState, in_batches, rewind


class Net(NamedTuple):
    """Says what is measured of a network: its preset, timed steps of a turn, and rounds."""

    config: str
    steps: int


NETS = {"lenet": Net("lenet_mnist", 500), "conv2": Net("conv2_cifar10", 100)}
RULES = ("rigl", "set", "static")
PYTORCH = ("rigl", "static")
PEERS = ("PyTorch", "SparseLab")
DENSE = "dense, native"
# A run that never ends: moves exchange the share with which they begin, the largest of a run.
ENDLESS, FRACTION = 10**9, 0.3
# How many times as fast as our dense native step, and as both in PyTorch, RigL should be at least.
TARGETS = {("lenet", 0.05): (2.0, 8.0), ("conv2", 0.05): (2.0, 3.0)}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--nets", default=",".join(NETS), help="any of these, by commas")
    parser.add_argument("--densities", default="0.1,0.05,0.02", help="of each layer, by commas")
    parser.add_argument("--rules", default=",".join(RULES), help="any of these, by commas")
    parser.add_argument("--pytorch", default=",".join(PYTORCH), help="any of these, or nothing")
    parser.add_argument("--every", type=int, default=100, help="steps between two moves")
    parser.add_argument("--steps", type=int, default=0, help="in a turn; 0: the net's own")
    parser.add_argument("--runs", type=int, default=0, help="of ours; 0: one for each core")
    add_data(parser)
    options = parser.parse_args(arguments)
    options.nets = names_of(parser, "nets", options.nets, tuple(NETS))
    options.rules = names_of(parser, "rules", options.rules, RULES)
    options.pytorch = names_of(parser, "pytorch", options.pytorch, PYTORCH)
    options.densities = densities_of(parser, options.densities)
    if min(options.rounds, options.every) < 1 or min(options.steps, options.runs) < 0:
        parser.error("--rounds and --every: accepted: 1 or more; --steps and --runs: 0 or more")
    turns = {net: options.steps or NETS[net].steps for net in options.nets}
    if wrong := [steps for steps in turns.values() if steps % options.every]:
        parser.error(f"--steps: {wrong[0]}; accepted: multiples of --every={options.every}")
    options.turns = turns
    return options


def experiment_of(problem: Problem) -> Experiment:
    """Returns the experiment that a problem is of, under native kernels, without a directory."""
    spec, splits = problem.spec, problem.splits
    batches = in_batches(*splits.validation, spec.eval.batch_size)
    return Experiment(
        spec=spec,
        model=problem.model,
        optimizer=problem.optimizer,
        criterion=CRITERIA[spec.pruning.criterion],
        targets=(),
        train=Examples(jnp.asarray(splits.train.images), jnp.asarray(splits.train.labels)),
        validation=batches,
        test=batches,
        example=jnp.zeros((1, *splits.train.images.shape[1:])),
        pixels=problem.pixels,
        steps=ENDLESS,
        eval_every=int(spec.eval.every),
        steps_per_epoch=len(splits.train.labels) // spec.train.batch_size,
        rates=prunable(problem.params),
        parameters=(),
        data=problem.source,
        content=data.Content(problem.source, "", "", ""),
        native=kernels_named("auto", problem),
    )


class Whole:
    """Runs that train as those of an experiment do, a thread each: moves and evaluations count.

    Times are per run: those of all together, divided by their number.

    Args:
      experiment: what they are of.
      problem: its data and starting point.
      mask: with which they begin; None for dense networks.
      rule: that moves it, by its name.
      every: steps between two moves.
      runs: their number.
    """

    def __init__(
        self,
        experiment: Experiment,
        problem: Problem,
        mask: PyTree | None,
        rule: str,
        every: int,
        runs: int,
    ):
        params, model_state = jax.tree.map(jnp.asarray, (problem.params, problem.model_state))
        state = TrainState(params, model_state, problem.optimizer.init(params))
        begins = ones_mask(params) if mask is None else mask
        begin = StartPoint(begins, rewind(state, begins, problem.optimizer), 0)
        kept = {name: some for name, (some, _) in kept_counts(begins, experiment.rates).items()}
        course = Course(kept, 0, every, ENDLESS, FRACTION)
        self.groups = []
        for index in range(runs):
            moving = Moving(MASK_RULES[rule], course, jax.random.key(index))
            run = Run(
                RunId(rule, 0 if mask is None else 1, index, 0),
                begin,
                experiment,
                ENDLESS,
                problem.run_key(index),
                None if mask is None or rule == "static" else moving,
            )
            group = RunGroup([run], 1, {})
            if not group.is_compiled():
                group.compile()
            self.groups.append(group)
        self.pool = ThreadPoolExecutor(runs)

    def train(self, steps: int) -> tuple[float, float]:
        """Returns (seconds per run, mean training loss before the first run's last evaluation)."""
        stop, began = self.groups[0].step + steps, time.perf_counter()
        list(self.pool.map(lambda group: _advance(group, stop), self.groups))
        seconds = time.perf_counter() - began
        (points,) = self.groups[0].points.values()
        return seconds / len(self.groups), points[-1].train_loss


def _advance(group: RunGroup, stop: int) -> None:
    while group.step < stop:
        group.advance([stop], 1)


def make_contenders(
    options: argparse.Namespace, problem: Problem, experiment: Experiment, density: float
) -> dict[str, Any]:
    """Returns all contenders that can run here, by name; they begin with the same weights."""
    shares = {(name,): round(density * leaf) for name, leaf in sizes_of(problem).items()}
    mask = random_mask(problem, shares, 0)
    runs = options.runs or len(os.sched_getaffinity(0))
    made: dict[str, Any] = {
        f"lth_jax {rule}": Whole(experiment, problem, mask, rule, options.every, runs)
        for rule in options.rules
    }
    made[f"lth_jax {DENSE}"] = Whole(experiment, problem, None, "static", options.every, runs)
    if not options.pytorch or not importlib.util.find_spec("torch"):
        return made
    from pytorch_sparse import loops

    pruned = jax.tree.map(lambda leaf, m: np.where(m, leaf, 0), problem.params, mask)
    sparse = dataclasses.replace(problem, params=pruned)
    for rule in options.pytorch:
        every = options.every if rule == "rigl" else 0
        for name, loop in loops(sparse, every, FRACTION).items():
            made[name.format(rule)] = loop
    return made


def sizes_of(problem: Problem) -> dict[str, int]:
    """Returns the number of weights of each prunable leaf, by its name."""
    counts = kept_counts(ones_mask(problem.params), prunable(problem.params))
    return {name: total for name, (_, total) in counts.items()}


def report(net: str, density: float, rounds: Sequence[dict[str, float]]) -> list[str]:
    """Returns a line for each contender; of our sparse ones what the dense and PyTorch's take."""
    lines, dense = [], f"lth_jax {DENSE}"
    for name in rounds[0]:
        line = f"{net:<8}{density:<7.3g}{name:<32}{spread([one[name] for one in rounds])}"
        if name.startswith("lth_jax") and name != dense:
            rule = name.split()[1]
            aims = TARGETS.get((net, density), ()) if rule == "rigl" else ()
            for said in ("dense", *PEERS):
                others = [n for n in rounds[0] if n.startswith(f"{said} {rule}")]
                others = others or [n for n in rounds[0] if n.startswith(said)]
                if multiples := ratios(rounds, [dense] if said == "dense" else others, [name]):
                    line += f"{spread(multiples, '{:.2f}')}× as fast as {said}"
                    line += f" ≥ {aims[said != 'dense']}×" if aims else ""
        lines.append(line)
    return lines


def measure(
    options: argparse.Namespace,
    net: str,
    problem: Problem,
    experiment: Experiment,
    density: float,
) -> list[dict[str, float]]:
    """Times one network at one density, prints the lines and returns all rounds."""
    contenders = make_contenders(options, problem, experiment, density)
    rounds, closing = compete(
        contenders,
        rounds=options.rounds,
        steps=options.turns[net],
        warmup=0,  # a turn holds whole periods: the first step of one is as warm as the last
        first=options.every,
    )
    print("\n".join(report(net, density, rounds)))
    print(f"{'':<15}batch {problem.spec.train.batch_size}; {closing}\n", flush=True)
    return rounds


def main(
    arguments: Sequence[str] | None = None,
) -> dict[tuple[str, float], list[dict[str, float]]]:
    options = parse(arguments)
    print(f"{versions()}; {os.cpu_count()} cores; load average {load()}")
    if options.pytorch and not importlib.util.find_spec("torch"):
        print("PyTorch is not installed: its rows are left out.")
    found = {}
    for net in options.nets:
        config = f"configs/{NETS[net].config}.py"
        problem = make_problem(options.data, options.data_dir, config, OVERRIDES)
        experiment = experiment_of(problem)
        print(
            f"{net}: {len(problem.splits.train.labels)} images: {problem.source}; "
            f"masks move every {options.every} steps\n\n"
            f"{'net':<8}{'left':<7}{'':<32}{'ms a step':>8} {'min–max':<14}{'ratio':>8}"
        )
        for density in options.densities:
            found[net, density] = measure(options, net, problem, experiment, density)
    return found


if __name__ == "__main__":
    start(main)
