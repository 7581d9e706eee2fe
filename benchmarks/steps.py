"""Milliseconds per training step of LeNet-300-100: ours, PyTorch's, and a floor of dense products.

    python benchmarks/steps.py                       # everything, on MNIST where it can be had
    python benchmarks/steps.py --what=ours,floor     # some of it
    python benchmarks/steps.py --kernel=xla          # our rows without native code
    python benchmarks/steps.py --data=synthetic      # random images of MNIST's shape

All contenders take turns in every round, so that a busy machine slows them alike, and ratios are
taken within rounds. Nothing here fails for being slow.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np
from floor import Floor, Reading
from options import add_data, names_of, parser_of, start
from ours import Ours, SideBySide, kernels_named
from problem import Problem, make_problem
from timing import SETTLE_SECONDS, in_company, load, ratios, spread, versions

WARMUP_STEPS = 20
# What trains a network, in the order of their turns; the floor comes last.
CONTENDERS = {
    "ours": "lth_jax, a run for each core at once",
    "alone": "lth_jax, one run alone",
    "xla": "lth_jax in plain XLA, a run for each core",
    "eager": "PyTorch, in memory, Adam",
    "fused": "PyTorch, in memory, Adam(fused=True)",
    "loader": "PyTorch, DataLoader + NumPy masks",
    "lean_loader": "the same, nothing to decode",
}
CHOICES = (*CONTENDERS, "floor")
# How many times our time a contender should take at least; we, how many times the floor at most.
TARGETS = {"eager": 4.0, "fused": 4.0, "loader": 10.0}
FLOOR_TARGET = 1.2


class Round(NamedTuple):
    """Holds one round: milliseconds per step of each contender, of an evaluation, and the floor."""

    milliseconds: dict[str, float]
    evaluation: float | None
    floor: Reading | None


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of(__doc__, rounds=11)
    parser.add_argument("--what", default=",".join(CHOICES), help="any of these, by commas")
    parser.add_argument("--steps", type=int, default=200, help="training steps in a turn")
    parser.add_argument(
        "--check-steps", type=int, default=300, help="steps on equal batches, to compare losses"
    )
    parser.add_argument("--kernel", choices=("auto", "xla"), default="auto", help="of our rows")
    add_data(parser)
    options = parser.parse_args(arguments)
    options.what = names_of(parser, "what", options.what, CHOICES)
    if min(options.rounds, options.steps, options.check_steps) < 1:
        parser.error("--rounds, --steps and --check-steps: accepted: 1 or more")
    return options


def make_contenders(names: Sequence[str], problem: Problem, kernel: str) -> dict[str, Any]:
    """Returns those of `names` that can run here; ours under that `train.kernel`."""
    cores, kernels = len(os.sched_getaffinity(0)), kernels_named(kernel, problem)
    makers: dict[str, Callable[[], Any]] = {
        "ours": lambda: SideBySide(problem, cores, kernels=kernels),
        "alone": lambda: Ours(problem, kernels=kernels),
        "xla": lambda: SideBySide(problem, cores),
    }
    if importlib.util.find_spec("torch"):
        import pytorch_loops as loops

        makers |= {
            "eager": lambda: loops.InMemory(problem),
            "fused": lambda: loops.InMemory(problem, fused=True),
            "loader": lambda: loops.WithDataLoader(problem),
            "lean_loader": lambda: loops.WithTensorDataset(problem),
        }
    elif any(name not in ("ours", "alone", "xla", "floor") for name in names):
        print("PyTorch is not installed: its rows are left out.\n")
    return {name: makers[name]() for name in CONTENDERS if name in names and name in makers}


def check_losses(contenders: dict[str, Any], steps: int) -> dict[str, float]:
    """Returns mean losses at the end of `steps` steps from one start on the same batches.

    They agree to about three digits if all do the same work (on random labels, where nothing but
    noise is learned, to fewer). Compiles and warms up along the way.
    """
    first, last = steps - min(100, steps), min(100, steps)
    losses = {}
    for name, contender in contenders.items():
        if first:
            contender.train(first)
        losses[name] = contender.train(last)[1]
    return losses


def play_round(contenders: dict[str, Any], floor: Floor | None, steps: int) -> Round:
    """Gives each contender its turn, one after another."""
    times, evaluation = {}, None
    for name, contender in contenders.items():
        time.sleep(SETTLE_SECONDS)
        contender.train(WARMUP_STEPS)
        times[name] = contender.train(steps)[0] / steps * 1e3
        if name == "ours":
            evaluation = contender.evaluate()[0] * 1e3
    return Round(times, evaluation, floor.measure(steps, SETTLE_SECONDS) if floor else None)


def time_rows(rounds: Sequence[Round]) -> list[str]:
    """Returns a line for each contender, with its ratio to ours."""
    lines = []
    for name in rounds[0].milliseconds:
        times = [r.milliseconds[name] for r in rounds]
        line = f"{CONTENDERS[name]:<38}{spread(times)}"
        if name != "ours" and "ours" in rounds[0].milliseconds:
            multiples = ratios([r.milliseconds for r in rounds], [name], ["ours"])
            target = f"  ≥ {TARGETS[name]}×" if name in TARGETS else ""
            line += f"{spread(multiples, '{:.2f}')}× ours{target}"
        lines.append(line)
    return lines


def floor_rows(rounds: Sequence[Round], floor: Floor) -> list[str]:
    """Returns lines with the floor, its two parts, and our ratio to it."""
    readings = [r.floor for r in rounds if r.floor]
    products, traffic = [r.products_ms for r in readings], [r.traffic_ms for r in readings]
    whole = [r.milliseconds for r in readings]
    line = f"{'floor':<38}{spread(whole)}"
    if "ours" in rounds[0].milliseconds:
        multiples = [r.milliseconds["ours"] / f for r, f in zip(rounds, whole, strict=True)]
        line += f"{spread(multiples, '{:.2f}')}: ours ÷ floor  ≤ {FLOOR_TARGET}×"
    speed = floor.flops / np.median(products) / 1e6
    bandwidth = floor.bytes / np.median(traffic) / 1e6
    by = "/".join(sorted({r.products_by for r in readings}))
    through = "/".join(sorted({r.traffic_by for r in readings}))
    return [
        line,
        f"{'  its products':<38}{spread(products)}  {floor.flops / 1e6:.1f} MFLOP "
        f"at {speed:.0f} GFLOP/s ({by})",
        f"{'  Adam’s memory traffic':<38}{spread(traffic)}  {floor.bytes / 1e6:.1f} MB "
        f"at {bandwidth:.0f} GB/s ({through})",
    ]


def report(rounds: Sequence[Round], floor: Floor | None) -> list[str]:
    lines = [f"{'':<38}{'ms a step':>9} {'min–max':<14}{'ratio':>8}  {'min–max':<14}  target"]
    lines += time_rows(rounds)
    if floor:
        lines += floor_rows(rounds, floor)
    evaluations = [r.evaluation for r in rounds if r.evaluation is not None]
    if evaluations:
        lines += ["", f"{'not in ours: an evaluation, ms each':<38}{spread(evaluations, '{:.1f}')}"]
    return lines


def main(arguments: Sequence[str] | None = None) -> list[Round]:
    options = parse(arguments)
    problem = make_problem(options.data, options.data_dir)
    spec = problem.spec
    print(f"LeNet-300-100, batch {spec.train.batch_size}, Adam {spec.train.learning_rate}")
    print(f"{len(problem.splits.train.labels)} images: {problem.source}")
    print(
        f"{versions()}; {os.cpu_count()} cores ({jax.default_backend()}); load average {load()}\n"
    )
    contenders = make_contenders(options.what, problem, options.kernel)
    floor = None
    if "floor" in options.what:
        floor = Floor(problem.widths, spec.train.batch_size)

    losses = check_losses(contenders, options.check_steps)
    if losses:
        print(f"Mean training loss up to step {options.check_steps}, on equal batches: ", end="")
        print(", ".join(f"{name} {loss:.4f}" for name, loss in losses.items()) + "\n")

    rounds, seconds, company = in_company(
        lambda: [play_round(contenders, floor, options.steps) for _ in range(options.rounds)]
    )
    print("\n".join(report(rounds, floor)))
    print(f"\n{options.rounds} rounds of {options.steps} steps in {seconds:.0f} s; ", end="")
    print(f"load average now {load()}; {company}")
    return rounds


if __name__ == "__main__":
    start(main)
