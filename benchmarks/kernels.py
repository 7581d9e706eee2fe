"""Milliseconds per training step of pruned networks: packed kernels, XLA, and dense PyTorch.

    python benchmarks/kernels.py                                    # four nets at 10% and 5%
    python benchmarks/kernels.py --nets=conv2 --densities=0.1,0.02 --rounds=9

Masks are random: convolutions have the given density, dense layers a fifth of it, as in Frankle &
Carbin (2019), who prune them so much faster. Ours is the real training loop, on uint8 data, under
each `train.kernel`: one run alone, and a run for each core, as the runs of a level train. PyTorch
trains all weights, with masks on gradients and a fused optimizer, in both of its memory formats;
the better of a round counts. Contenders take turns in every round, and ratios are taken within
rounds. Nothing here fails for being slow.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from conv import FIRST_STEPS, NETS, make_contenders, problems_of, to_pytorch
from options import add_data, add_steps, densities_of, names_of, parser_of, start
from problem import Problem
from timing import compete, load, spread, versions

from lth_jax.pruning.trees import PyTree

KERNELS = ("xla", "auto", "sparse")
DENSE_SHARE = 0.2  # of the convolutions' density, that dense layers have; at 1 nothing is pruned
# How many times our step under `auto` PyTorch's dense one should take at least.
TARGETS = {
    **{(net, 0.1): 3.5 for net in ("conv2", "conv4", "conv6")},
    **{(net, 0.05): 5.0 for net in ("conv2", "conv4", "conv6")},
    ("resnet20", 0.1): 2.2,
    ("resnet20", 0.05): 2.8,
}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--nets", default=",".join(NETS), help="any of these, by commas")
    parser.add_argument("--densities", default="0.1,0.05", help="of convolutions, by commas")
    parser.add_argument("--kernels", default=",".join(KERNELS), help="any of these, by commas")
    add_steps(parser)
    add_data(parser)
    options = parser.parse_args(arguments)
    options.nets = names_of(parser, "nets", options.nets, tuple(NETS))
    options.kernels = names_of(parser, "kernels", options.kernels, KERNELS)
    options.densities = densities_of(parser, options.densities)
    if min(options.rounds, options.steps) < 1:
        parser.error("--rounds and --steps: accepted: 1 or more")
    return options


def random_mask(problem: Problem, density: float) -> PyTree:
    """Returns a mask: convolutions have that density, dense layers a fifth of it, others 1."""
    random = np.random.default_rng(0)

    def leaf(value: Any) -> Any:
        dense = density * DENSE_SHARE if density < 1 else 1.0
        share = {4: density, 2: dense}.get(np.ndim(value), 1.0)
        return jnp.asarray(random.random(np.shape(value)) < share)

    return jax.tree.map(leaf, problem.params)


def report(net: str, density: float, rounds: Sequence[dict[str, float]]) -> list[str]:
    """Returns a line for each contender; of ours with PyTorch's better time as a multiple."""
    lines = []
    for name in rounds[0]:
        line = f"{net:<10}{density:<8.3g}{name:<38}{spread([r[name] for r in rounds], '{:.1f}')}"
        if ratios := to_pytorch(rounds, name):
            line += f"{spread(ratios, '{:.2f}')}× as fast as PyTorch"
            if "auto" in name and (net, density) in TARGETS:
                line += f"  ≥ {TARGETS[net, density]}×"
        lines.append(line)
    return lines


def measure(options: argparse.Namespace, net: str, problem: Problem, density: float) -> list[Any]:
    """Times one network at one density, prints the lines and returns all rounds."""
    contenders = make_contenders(problem, options.kernels, [1], random_mask(problem, density))
    rounds, closing = compete(
        contenders,
        rounds=options.rounds,
        steps=options.steps,
        warmup=options.warmup,
        first=FIRST_STEPS,
    )
    print("\n".join(report(net, density, rounds)))
    closing += "; PyTorch's, if any, are the last, of dense networks"
    print(f"{'':<18}batch {problem.spec.train.batch_size}; {closing}\n", flush=True)
    return rounds


def main(arguments: Sequence[str] | None = None) -> dict[tuple[str, float], list[Any]]:
    options = parse(arguments)
    print(f"{versions()}; {os.cpu_count()} cores; load average {load()}")
    found = {}
    for net, problem in problems_of(options):
        if not found:
            print(f"{'net':<10}{'density':<8}{'':<38}{'ms a step':>8}  {'min–max':<14}{'ratio':>8}")
        for density in options.densities:
            found[net, density] = measure(options, net, problem, density)
    return found


if __name__ == "__main__":
    start(main)
