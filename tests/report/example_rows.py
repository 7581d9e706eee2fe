"""Rows that look like a LeNet experiment: a ticket that gains and then fails, worse controls."""

import random
from types import SimpleNamespace

from lth_jax.store.tables import TRUNK, ResultRow
from lth_jax.training.metrics import ACCURACY

# Test accuracy by branch, for the ticket as in Frankle & Carbin (2019), figure 3.
_LOST = {TRUNK: 0.15, "reinit": 0.6, "random_mask": 1.0, "late": 0.3, "shuffle": 0.8, "zero": 2.0}
PRUNABLE = 266_200


def example_row(
    branch: str = TRUNK, level: int = 0, replicate: int = 0, draw: int = 0, **changes
) -> ResultRow:
    rng = random.Random(f"{branch} {level} {replicate} {draw}")
    kept = round(PRUNABLE * 0.8**level)
    gain = 0.004 * min(level, 8) / 8 if branch == TRUNK else -0.002 * level / 4
    collapse = 0.012 * _LOST.get(branch, 0.9) * 1.35 ** max(level - 9, 0)
    accuracy = max(0.979 + gain - collapse * (level > 9) + rng.uniform(-0.001, 0.001), 0.11)
    values = {
        "branch": branch,
        "level": level,
        "replicate": replicate,
        "draw": draw,
        "density": kept / PRUNABLE,
        "kept": kept,
        "prunable": PRUNABLE,
        "early_stop_step": 100 * round(46 * (1 + 0.5 * abs(level - 7) / 7) + rng.uniform(-4, 4)),
        "early_stop_val_loss": 0.08,
        "early_stop_val_accuracy": accuracy - 0.001,
        "early_stop_test_accuracy": accuracy,
        "final_val_accuracy": accuracy - 0.002,
        "final_test_accuracy": accuracy - 0.0007,
        "final_train_loss": 0.01,
        "steps": 5000,
        "train_seconds": 4.0,
    }
    return ResultRow(**(values | changes))


def example_rows(
    branches=("reinit", "random_mask"), levels: int = 16, replicates: int = 3, draws: int = 1
) -> list[ResultRow]:
    rows = [example_row(replicate=replicate) for replicate in range(replicates)]
    for level in range(1, levels + 1):
        rows += [example_row(TRUNK, level, replicate) for replicate in range(replicates)]
        for branch in branches:
            rows += [
                example_row(branch, level, replicate, draw)
                for replicate in range(replicates)
                for draw in range(draws)
            ]
    return rows


def example_run(
    rows=(),
    name="run",
    *,
    reference=None,
    curves=None,
    densities=None,
    branches=(),
    bars="interval",
    metric=ACCURACY,
):
    """What figures read of an experiment: a `Contents` without a directory behind it."""
    curves = curves or {}
    return SimpleNamespace(
        name=name,
        rows=rows,
        metric=metric,
        spec=SimpleNamespace(
            reference=reference or {},
            branches=branches,
            report=SimpleNamespace(bars=bars, methods=False),
        ),
        densities=densities or {},
        store=SimpleNamespace(curve=lambda *key: curves.get(key, [])),
    )


def example_runs(rows=(), **options):
    """A single experiment, by its name, as the figures take it."""
    return {"run": example_run(rows, **options)}
