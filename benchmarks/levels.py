"""Milliseconds per step and run at the levels of an experiment, under each `train.kernel`.

    python benchmarks/levels.py                                  # LeNet at 33, 21, 7 and 3.6%
    python benchmarks/levels.py --levels=all --rounds=3 --kernels=xla,auto
    python benchmarks/levels.py --levels=all --kernels=layers,auto --evaluated
    python benchmarks/levels.py --levels=2-7 --kernels=dense,sparse --rounds=9
    python benchmarks/levels.py --nets=conv2,conv4 --levels=0,2-6,20 --rounds=3

All runs of a level train as the experiment trains them: each replicate's ticket and its controls, a
run on each core at a time, in chunks of `eval.every`. Their masks are random, and keep in
each layer what the preset's pruning leaves there (where it ranks all layers together, the share of
all in each). Ratios to our own `xla` step are taken within rounds. A level at which `auto` takes
more than 1.05 times the time of `xla` is marked. `layers` is `auto` with nothing but its layers
native: the loop is XLA's, and chains go layer by layer. `dense` is `auto` that packs nothing:
beside `sparse`, which packs from level 1 on, it shows from where on that pays. With `--evaluated`
the whole validation split is evaluated every `eval.every` steps, and that time counts. Nothing here
fails for being slow.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax.numpy as jnp
import numpy as np
from options import OVERRIDES, add_data, names_of, parser_of, start
from ours import SideBySide, kernels_named
from problem import Problem, make_problem
from timing import compete, load, ratios, spread, versions

from lth_jax.config import Spec
from lth_jax.lottery.network import targets_of
from lth_jax.pruning.masks import prunable
from lth_jax.pruning.trees import PyTree, map_named, named_leaves

KERNELS = ("xla", "auto", "sparse", "layers", "dense")


class Net(NamedTuple):
    """Says what is measured of a network if nothing else is asked for.

    Attributes:
      config: its preset.
      last: its last level at paper scale.
      levels: those in the table.
      steps: timed ones of a turn, of each run.
      warmup: untimed ones before them; with them a multiple of `eval.every`, where that is cheap,
        so that chunks are as long as in an experiment.
    """

    config: str
    last: int
    levels: tuple[int, ...]
    steps: int
    warmup: int


NETS = {
    "lenet": Net("lenet_mnist", 24, (5, 7, 12, 15), 200, 100),
    **{net: Net(f"{net}_cifar10", 20, (10, 20), 20, 5) for net in ("conv2", "conv4", "conv6")},
    "resnet20": Net("resnet20_cifar10", 20, (5, 10), 20, 5),
}
# How many times as fast as our `xla` step a packed one should be, by net and level.
TARGETS = {("lenet", 5): 1.8, ("lenet", 7): 2.6, ("lenet", 12): 5.5, ("lenet", 15): 8.0}
# How many times as fast as with its layers alone `auto` should be, over all levels together.
LAYERS_TARGET = 1.5
# `auto` should at no level take more than this many times the time of `xla`.
MOST_OF_XLA = 1.05


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--nets", default="lenet", help=f"any of {', '.join(NETS)}, by commas")
    parser.add_argument(
        "--levels", default="", help="such as 0,5-9, or `all`; empty: those of the net's table"
    )
    parser.add_argument(
        "--kernels", default="xla,auto,sparse", help=f"any of {', '.join(KERNELS)}, by commas"
    )
    parser.add_argument("--steps", type=int, default=0, help="in a turn; 0: the net's own")
    parser.add_argument("--runs", type=int, default=0, help="0: all of a level of the preset")
    parser.add_argument(
        "--evaluated", action="store_true", help="count evaluations of the whole validation split"
    )
    parser.add_argument("--group", type=int, default=1, help="runs `vmap`ped in one program")
    add_data(parser)
    options = parser.parse_args(arguments)
    options.nets = names_of(parser, "nets", options.nets, tuple(NETS))
    options.kernels = names_of(parser, "kernels", options.kernels, KERNELS)
    try:
        options.levels = {net: levels_of(options.levels, NETS[net]) for net in options.nets}
    except ValueError as error:
        parser.error(f"--levels: {error}; accepted: numbers and ranges, such as 0,5-9, or all")
    if min(options.rounds, options.group) < 1 or min(options.steps, options.runs) < 0:
        parser.error("--rounds and --group: accepted: 1 or more; --steps and --runs: 0 or more")
    return options


def levels_of(text: str, net: Net) -> list[int]:
    """Returns the levels that `text` names.

    Raises:
      ValueError: it names none.
    """
    if text in ("", "all"):
        return list(net.levels) if not text else list(range(net.last + 1))
    levels = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise ValueError(f"{part!r}")
        levels += range(int(match[1]), int(match[2] or match[1]) + 1)
    return levels


def runs_of(spec: Spec) -> list[int]:
    """Returns the replicate of each run of a level: of the ticket, and of each draw of a branch."""
    beside = 1 + sum(spec.branch_spec(name).draws for name in spec.branches)
    return [replicate for replicate in range(spec.replicates) for _ in range(beside)]


def kept_at(problem: Problem, level: int) -> dict[tuple[str, ...], int]:
    """Returns how many weights the preset's pruning keeps of each group that it ranks."""
    spec = dataclasses.replace(problem.spec, levels=level)
    rates = prunable(problem.params, spec.pruning.layer_rates)
    return targets_of(spec, problem.params, rates)[level]


def random_mask(problem: Problem, kept: Mapping[tuple[str, ...], int], seed: int) -> PyTree:
    """Returns a mask that keeps so many weights of each group: the same share of its layers."""
    random, sizes = np.random.default_rng(seed), {}
    for name, leaf in named_leaves(problem.params).items():
        sizes[name] = math.prod(np.shape(leaf))
    counts = dict(sizes)
    for names, count in kept.items():
        share = count / sum(sizes[name] for name in names)
        counts |= {name: round(share * sizes[name]) for name in names}

    def drawn(name: str, leaf: Any) -> Any:
        chosen = np.arange(sizes[name]) < counts[name]
        if counts[name] < sizes[name]:
            random.shuffle(chosen)
        return jnp.asarray(chosen.reshape(np.shape(leaf)))

    return map_named(drawn, problem.params)


class Bench:
    """Measures one network under each kernel; all levels share programs and data.

    Args:
      problem: the data and the starting point.
      names: of kernels.
      runs: how many train; 0 for all of the preset's.
      group: how many of them are `vmap`ped in one program.
      evaluated: whether the time of evaluations counts.

    Raises:
      SpecError: there is no compiler for `sparse`.
    """

    def __init__(
        self,
        problem: Problem,
        names: Sequence[str],
        runs: int,
        group: int,
        evaluated: bool = False,
    ):
        self.problem, self.group, self.evaluated = problem, group, evaluated
        replicates = runs_of(problem.spec)
        self.replicates = (replicates * math.ceil(runs / len(replicates)))[: runs or None]
        self.replicates = self.replicates or replicates
        self.kernels = {name: kernels_named(name, problem) for name in names}
        self.twins: dict[str, SideBySide] = {}

    def contenders(self, level: int) -> dict[str, SideBySide]:
        """Returns the contenders at a level, by the kernel's name."""
        kept = kept_at(self.problem, level)
        seeds = range(len(self.replicates)) if level else ()
        masks = [random_mask(self.problem, kept, seed) for seed in seeds]
        made = {}
        for name, kernels in self.kernels.items():
            made[name] = SideBySide(
                self.problem,
                len(self.replicates),
                workers=len(os.sched_getaffinity(0)),
                group=self.group,
                kernels=kernels,
                masks=masks,
                replicates=self.replicates,
                twin=self.twins.get(name),
                evaluated=self.evaluated,
            )
            self.twins.setdefault(name, made[name])
        return made


def is_above(rounds: Sequence[dict[str, float]]) -> bool:
    """Returns whether `auto` takes more of the time of `xla` than it should."""
    return {"auto", "xla"} <= set(rounds[0]) and bool(
        np.median(ratios(rounds, ["auto"], ["xla"])) > MOST_OF_XLA
    )


def report(net: str, level: int, density: float, rounds: Sequence[dict[str, float]]) -> list[str]:
    """Returns a line for each kernel, with its ratio to `xla`, or else to the first one."""
    lines, base = [], "xla" if "xla" in rounds[0] else next(iter(rounds[0]))
    for name in rounds[0]:
        line = f"{net:<10}{level:>5}{density:>9.1%}  {name:<8}"
        line += spread([r[name] for r in rounds], "{:.3f}")
        if name != base:
            multiples = ratios(rounds, [name], [base])
            line += f"{spread([1 / ratio for ratio in multiples], '{:.2f}')}× as fast as {base}"
            if base == "xla" and (net, level) in TARGETS:
                line += f"  ≥ {TARGETS[net, level]}×"
            if name == "auto" and is_above(rounds):
                line += f"  TIME {np.median(multiples):.2f}× XLA'S, ABOVE {MOST_OF_XLA}×"
        lines.append(line)
    return lines


def density_of(problem: Problem, level: int) -> float:
    """Returns the share of prunable weights that a level keeps."""
    kept, whole = kept_at(problem, level), kept_at(problem, 0)
    return sum(kept.values()) / sum(whole.values())


def measure(
    options: argparse.Namespace, net: str, bench: Bench, level: int
) -> list[dict[str, float]]:
    """Times one level, prints the lines and returns all rounds."""
    steps, warmup = options.steps or NETS[net].steps, NETS[net].warmup
    rounds, closing = compete(
        bench.contenders(level), rounds=options.rounds, steps=steps, warmup=warmup, first=warmup
    )
    print("\n".join(report(net, level, density_of(bench.problem, level), rounds)))
    print(f"{'':<26}{closing}\n", flush=True)
    return rounds


def totals(found: Mapping[tuple[str, int], Sequence[dict[str, float]]]) -> list[str]:
    """Returns a line for each net and kernel: a step of each level, all levels together."""
    lines = []
    for net in dict.fromkeys(net for net, _ in found):
        levels = [rounds for (of, _), rounds in found.items() if of == net]
        sums = [
            {name: sum(one[name] for one in same) for name in same[0]}
            for same in zip(*levels, strict=True)
        ]
        for name in sums[0]:
            line = f"{net}, {len(levels)} levels  {name:<8}" + spread([s[name] for s in sums])
            others = [other for other in ("xla", "layers") if other in sums[0] and other != name]
            for other in others:
                multiples = [1 / ratio for ratio in ratios(sums, [name], [other])]
                line += f"{spread(multiples, '{:.2f}')}× as fast as {other}"
                if (name, other) == ("auto", "layers"):
                    line += f"  ≥ {LAYERS_TARGET}×"
            lines.append(line)
    return lines


def main(
    arguments: Sequence[str] | None = None,
) -> dict[tuple[str, int], list[dict[str, float]]]:
    options = parse(arguments)
    print(f"{versions()}; {os.cpu_count()} cores; load average {load()}")
    found = {}
    for net in options.nets:
        config = f"configs/{NETS[net].config}.py"
        # Evaluations that are not timed are short ones.
        overrides = OVERRIDES[:2] if options.evaluated else OVERRIDES
        problem = make_problem(options.data, options.data_dir, config, overrides)
        bench = Bench(problem, options.kernels, options.runs, options.group, options.evaluated)
        print(
            f"{net}: {len(problem.splits.train.labels)} images: {problem.source}; "
            f"batch {problem.spec.train.batch_size}, {len(bench.replicates)} runs\n\n"
            f"{'net':<10}{'level':>5}{'weights':>9}  {'kernel':<8}{'ms a step':>8} "
            f"{'min–max':<14}{'ratio':>8}"
        )
        for level in options.levels[net]:
            found[net, level] = measure(options, net, bench, level)
    if {"auto", "xla"} <= set(options.kernels):
        above = [f"{net} {level}" for (net, level), rounds in found.items() if is_above(rounds)]
        print(
            f"auto above {MOST_OF_XLA}× the time of xla: {', '.join(above) or 'at no level'} "
            f"(of {len(found)})"
        )
    print("\n".join(totals(found)))
    return found


if __name__ == "__main__":
    start(main)
