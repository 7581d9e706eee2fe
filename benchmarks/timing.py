"""What benchmarks share to time contenders in turns, and to print what was found."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
Round = dict[str, float]  # the milliseconds per step of each contender, by name
# Between two turns: the worker threads of one library stop waiting for work, which they do busily,
# before the next library needs the cores. OpenBLAS's take 30 ms.
SETTLE_SECONDS = 0.1


def spread(values: Sequence[float], pattern: str = "{:.3f}") -> str:
    """Returns the median and the range of `values` as columns of a table."""
    median, least, most = (pattern.format(f(values)) for f in (np.median, np.min, np.max))
    return f"{median:>8}  {least + '–' + most:<14}"


def ratios(rounds: Sequence[Round], names: Sequence[str], others: Sequence[str]) -> list[float]:
    """Returns the best time of `names` as a multiple of the best of `others`, in each round.

    Returns an empty list where nobody is named on one side.
    """
    if not names or not others:
        return []
    return [min(map(one.__getitem__, names)) / min(map(one.__getitem__, others)) for one in rounds]


def versions() -> str:
    names = [name for name in ("jax", "numpy", "torch") if importlib.util.find_spec(name)]
    return ", ".join(f"{name} {metadata.version(name)}" for name in names)


def load() -> str:
    averages = os.getloadavg() if hasattr(os, "getloadavg") else ()
    return " ".join(f"{value:.2f}" for value in averages) or "unknown"


def cpu_seconds() -> tuple[float, float]:
    """Returns CPU seconds of (this process, all processes) since some time; NaN if unknown."""
    mine = sum(os.times()[:2])
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return mine, float("nan")
    busy = sum(int(fields[i]) for i in (0, 1, 2, 5, 6, 7))
    return mine, busy / os.sysconf("SC_CLK_TCK")


def in_company(work: Callable[[], T]) -> tuple[T, float, str]:
    """Returns what `work` returns, its seconds, and a phrase about the cores that others used."""
    before, start = cpu_seconds(), time.perf_counter()
    result = work()
    seconds, after = time.perf_counter() - start, cpu_seconds()
    others = (after[1] - before[1] - (after[0] - before[0])) / seconds
    return result, seconds, f"other processes kept {others:.1f} cores busy"


def take_turns(
    contenders: dict[str, Any], *, rounds: int, steps: int, warmup: int
) -> tuple[list[dict[str, float]], str]:
    """Times rounds in which each contender has a turn, one after another.

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
    """Calls `take_turns` after `first` steps on equal batches, to compile and give losses.

    Returns:
      Milliseconds per step and run by name, for each round; a closing line with the losses.
    """
    losses = {name: contender.train(first)[1] for name, contender in contenders.items()}
    found, company = take_turns(contenders, rounds=rounds, steps=steps, warmup=warmup)
    return found, (
        f"mean training loss of the first {first} steps, on equal batches: "
        f"{', '.join(f'{loss:.4f}' for loss in losses.values())}; {company}"
    )
