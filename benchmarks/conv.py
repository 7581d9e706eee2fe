"""Milliseconds per training step of convolutional networks: ours and PyTorch's, side by side.

    python benchmarks/conv.py                          # Conv-2, -4, -6 and ResNet-20 on CIFAR-10
    python benchmarks/conv.py --nets=conv2 --rounds=9 --kernels=auto
    python benchmarks/conv.py --groups=1,3             # runs `vmap`ped in one program, as on a GPU

Ours is the real training loop, on uint8 data, with masks. PyTorch is eager, on float tensors in
memory, with masks on its gradients and a fused optimizer, in both of its memory formats; the better
of a round counts. Crops and flips are left out of both. Contenders take turns in every round, and
ratios are taken within rounds. Nothing here fails for being slow.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
from options import OVERRIDES, add_data, add_steps, names_of, parser_of, start
from ours import Ours, SideBySide, kernels_named
from problem import Problem, make_problem
from timing import compete, load, ratios, spread, versions

from lth_jax.pruning.trees import PyTree

NETS = ("conv2", "conv4", "conv6", "resnet20")
KERNELS = ("xla", "auto")
# How many times as fast as PyTorch ours should be at least under `auto`.
TARGETS = {"conv2": 1.6, "conv4": 1.9, "conv6": 2.0, "resnet20": 1.5}
# Steps before all rounds, whose losses are compared.
FIRST_STEPS = 4


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--nets", default=",".join(NETS), help="any of these, by commas")
    add_steps(parser)
    parser.add_argument("--kernels", default=",".join(KERNELS), help="any of these, by commas")
    parser.add_argument("--groups", default="1", help="runs `vmap`ped in one program, by commas")
    add_data(parser)
    options = parser.parse_args(arguments)
    options.nets = names_of(parser, "nets", options.nets, tuple(NETS))
    options.kernels = names_of(parser, "kernels", options.kernels, KERNELS)
    options.groups = [int(size) for size in options.groups.split(",")]
    if min(options.rounds, options.steps, *options.groups) < 1:
        parser.error("--rounds, --steps and --groups: accepted: 1 or more")
    return options


def make_contenders(
    problem: Problem, names: Sequence[str], groups: Sequence[int], mask: PyTree = None
) -> dict[str, Any]:
    """Returns all contenders that can run here, by name; ours pruned where there is a mask."""
    contenders: dict[str, Any] = {}
    for name in names:
        kernels, masks = kernels_named(name, problem), [] if mask is None else [mask]
        for size in groups:
            how = "one run alone" if size == 1 else f"{size} runs vmapped"
            contenders[f"lth_jax {name}, {how}"] = Ours(problem, size, kernels, masks * size)
        if jax.default_backend() == "cpu":
            cores = len(os.sched_getaffinity(0))
            contenders[f"lth_jax {name}, a run for each core"] = SideBySide(
                problem, cores, kernels=kernels, masks=masks * cores
            )
    return contenders | pytorch_of(problem)


def pytorch_of(problem: Problem) -> dict[str, Any]:
    """Returns PyTorch's dense loops, by name; none where it is not installed."""
    if not importlib.util.find_spec("torch"):
        print("PyTorch is not installed: its rows are left out.\n")
        return {}
    from pytorch_nets import FORMATS, ConvLoop

    return {f"PyTorch eager, {name}": ConvLoop(problem, name) for name in FORMATS}


def to_pytorch(rounds: Sequence[dict[str, float]], name: str) -> list[float]:
    """Returns PyTorch's better time as a multiple of ours, in each round; empty without it."""
    theirs = [other for other in rounds[0] if "PyTorch" in other]
    return [] if name in theirs else ratios(rounds, theirs, [name])


def problems_of(options: argparse.Namespace) -> Iterator[tuple[str, Problem]]:
    """Yields each network and its problem; prints first where the images come from."""
    for index, net in enumerate(options.nets):
        config = f"configs/{net}_cifar10.py"
        problem = make_problem(options.data, options.data_dir, config, OVERRIDES)
        if index == 0:
            print(f"{len(problem.splits.train.labels)} images: {problem.source}\n")
        yield net, problem


def report(net: str, rounds: Sequence[dict[str, float]]) -> list[str]:
    """Returns a line for each contender; of ours with PyTorch's better time as a multiple."""
    lines = []
    for name in rounds[0]:
        line = f"{net:<10}{name:<38}{spread([r[name] for r in rounds], '{:.1f}')}"
        if multiples := to_pytorch(rounds, name):
            line += f"{spread(multiples, '{:.2f}')}× as fast as PyTorch"
            if "auto" in name and net in TARGETS:
                line += f"  ≥ {TARGETS[net]}×"
        lines.append(line)
    return lines


def main(arguments: Sequence[str] | None = None) -> dict[str, list[dict[str, float]]]:
    options = parse(arguments)
    print(f"{versions()}; {os.cpu_count()} cores ({jax.default_backend()}); load average {load()}")
    found = {}
    for net, problem in problems_of(options):
        if not found:
            print(f"{'net':<10}{'':<38}{'ms a step':>8}  {'min–max':<14}{'ratio':>8}")
        contenders = make_contenders(problem, options.kernels, options.groups)
        found[net], closing = compete(
            contenders,
            rounds=options.rounds,
            steps=options.steps,
            warmup=options.warmup,
            first=FIRST_STEPS,
        )
        print("\n".join(report(net, found[net])))
        train = problem.spec.train
        print(f"{'':<10}batch {train.batch_size}, {train.optimizer}; {closing}\n", flush=True)
    return found


if __name__ == "__main__":
    start(main)
