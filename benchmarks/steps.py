"""Milliseconds per training step of LeNet-300-100: ours, PyTorch's, and the floor under both.

    python benchmarks/steps.py                       # everything, on MNIST where it can be had
    python benchmarks/steps.py --what=ours,floor     # some of it
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
from typing import Any, NamedTuple, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np
from floor import Floor, Reading
from options import add_data, names_of, parser_of, start
from ours import Ours, SideBySide
from problem import Problem, make_problem

T = TypeVar("T")
WARMUP_STEPS = 20
# Between two turns: the worker threads of one library stop waiting for work, which they do busily,
# before the next library needs the cores. OpenBLAS's take 30 ms.
SETTLE_SECONDS = 0.1
# What trains a network, in the order of their turns; the floor comes last.
CONTENDERS = {
    "ours": "lth_jax, a run for each core at once",
    "alone": "lth_jax, one run alone",
    "eager": "PyTorch, in memory, Adam",
    "fused": "PyTorch, in memory, Adam(fused=True)",
    "loader": "PyTorch, DataLoader + NumPy masks",
    "lean_loader": "the same, nothing to decode",
}
CHOICES = (*CONTENDERS, "floor")
# How many times our time a contender should take at least; we, how many times the floor at most.
TARGETS = {"eager": 2.7, "fused": 1.7, "loader": 10.0}
FLOOR_TARGET = 1.2


class Round(NamedTuple):
    """One round: milliseconds per step of each contender, of an evaluation, and the floor."""

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
    add_data(parser)
    options = parser.parse_args(arguments)
    options.what = names_of(parser, "what", options.what, CHOICES)
    if min(options.rounds, options.steps, options.check_steps) < 1:
        parser.error("--rounds, --steps and --check-steps: accepted: 1 or more")
    return options


def make_contenders(names: Sequence[str], problem: Problem) -> dict[str, Any]:
    """Those of `names` that can run here."""
    makers: dict[str, Callable[[], Any]] = {
        "ours": lambda: SideBySide(problem, len(os.sched_getaffinity(0))),
        "alone": lambda: Ours(problem),
    }
    if importlib.util.find_spec("torch"):
        import pytorch_loops as loops

        makers |= {
            "eager": lambda: loops.InMemory(problem),
            "fused": lambda: loops.InMemory(problem, fused=True),
            "loader": lambda: loops.WithDataLoader(problem),
            "lean_loader": lambda: loops.WithTensorDataset(problem),
        }
    elif any(name not in ("ours", "alone", "floor") for name in names):
        print("PyTorch is not installed: its rows are left out.\n")
    return {name: makers[name]() for name in CONTENDERS if name in names and name in makers}


def check_losses(contenders: dict[str, Any], steps: int) -> dict[str, float]:
    """Mean losses at the end of `steps` steps from one start on the same batches.

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
    """Everyone's turn, one after another."""
    times, evaluation = {}, None
    for name, contender in contenders.items():
        time.sleep(SETTLE_SECONDS)
        contender.train(WARMUP_STEPS)
        times[name] = contender.train(steps)[0] / steps * 1e3
        if name == "ours":
            evaluation = contender.evaluate()[0] * 1e3
    return Round(times, evaluation, floor.measure(steps, SETTLE_SECONDS) if floor else None)


def spread(values: Sequence[float], pattern: str = "{:.3f}") -> str:
    """Median, and the range of the rest."""
    median, least, most = (pattern.format(f(values)) for f in (np.median, np.min, np.max))
    return f"{median:>8}  {least + '–' + most:<14}"


def time_rows(rounds: Sequence[Round]) -> list[str]:
    """A line for each contender, with its ratio to ours."""
    lines = []
    for name in rounds[0].milliseconds:
        times = [r.milliseconds[name] for r in rounds]
        line = f"{CONTENDERS[name]:<38}{spread(times)}"
        if name != "ours" and "ours" in rounds[0].milliseconds:
            ratios = [r.milliseconds[name] / r.milliseconds["ours"] for r in rounds]
            target = f"  ≥ {TARGETS[name]}×" if name in TARGETS else ""
            line += f"{spread(ratios, '{:.2f}')}× ours{target}"
        lines.append(line)
    return lines


def floor_rows(rounds: Sequence[Round], floor: Floor) -> list[str]:
    """The floor, what it is made of, and our ratio to it."""
    readings = [r.floor for r in rounds if r.floor]
    products, traffic = [r.products_ms for r in readings], [r.traffic_ms for r in readings]
    whole = [r.milliseconds for r in readings]
    line = f"{'floor':<38}{spread(whole)}"
    if "ours" in rounds[0].milliseconds:
        ratios = [r.milliseconds["ours"] / f for r, f in zip(rounds, whole, strict=True)]
        line += f"{spread(ratios, '{:.2f}')}: ours ÷ floor  ≤ {FLOOR_TARGET}×"
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


def versions() -> str:
    from importlib import metadata

    names = [name for name in ("jax", "numpy", "torch") if importlib.util.find_spec(name)]
    return ", ".join(f"{name} {metadata.version(name)}" for name in names)


def load() -> str:
    averages = os.getloadavg() if hasattr(os, "getloadavg") else ()
    return " ".join(f"{value:.2f}" for value in averages) or "unknown"


def cpu_seconds() -> tuple[float, float]:
    """CPU seconds of (this process, all processes) since some time; NaN where nobody tells."""
    mine = sum(os.times()[:2])
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return mine, float("nan")
    busy = sum(int(fields[i]) for i in (0, 1, 2, 5, 6, 7))
    return mine, busy / os.sysconf("SC_CLK_TCK")


def in_company(work: Callable[[], T]) -> tuple[T, float, str]:
    """What `work` gives, its seconds, and a phrase about the cores that others used meanwhile."""
    before, start = cpu_seconds(), time.perf_counter()
    result = work()
    seconds, after = time.perf_counter() - start, cpu_seconds()
    others = (after[1] - before[1] - (after[0] - before[0])) / seconds
    return result, seconds, f"other processes kept {others:.1f} cores busy"


def take_turns(
    contenders: dict[str, Any], *, rounds: int, steps: int, warmup: int
) -> tuple[list[dict[str, float]], str]:
    """Rounds in which everyone has a turn, one after another.

    Args:
      contenders: by name; each has `train(steps)`, whose result begins with its seconds.
      rounds: how many.
      steps: timed steps of a turn; warmup: untimed ones before them.

    Returns:
      Milliseconds per step by name, for each round; a phrase about the cores that others used.
    """

    def turn(contender: Any) -> float:
        time.sleep(SETTLE_SECONDS)
        if warmup:
            contender.train(warmup)
        return contender.train(steps)[0] / steps * 1e3

    def play() -> list[dict[str, float]]:
        return [{name: turn(c) for name, c in contenders.items()} for _ in range(rounds)]

    found, _, company = in_company(play)
    return found, company


def compete(
    contenders: dict[str, Any], *, rounds: int, steps: int, warmup: int, first: int
) -> tuple[list[dict[str, float]], str]:
    """`take_turns` after `first` untimed steps on equal batches, which compile and give losses.

    Returns:
      Milliseconds per step and run by name, for each round; a closing line with the losses.
    """
    losses = {name: contender.train(first)[1] for name, contender in contenders.items()}
    found, company = take_turns(contenders, rounds=rounds, steps=steps, warmup=warmup)
    return found, (
        f"mean training loss of the first {first} steps, on equal batches: "
        f"{', '.join(f'{loss:.4f}' for loss in losses.values())}; {company}"
    )


def main(arguments: Sequence[str] | None = None) -> list[Round]:
    options = parse(arguments)
    problem = make_problem(options.data, options.data_dir)
    spec = problem.spec
    print(f"LeNet-300-100, batch {spec.train.batch_size}, Adam {spec.train.learning_rate}")
    print(f"{len(problem.splits.train.labels)} images: {problem.source}")
    print(
        f"{versions()}; {os.cpu_count()} cores ({jax.default_backend()}); load average {load()}\n"
    )
    contenders = make_contenders(options.what, problem)
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
