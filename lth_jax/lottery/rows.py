"""What a table says of a run that is trained: its row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from lth_jax.lottery.run import Run
from lth_jax.pruning.masks import kept_counts
from lth_jax.pruning.trees import PyTree, count_true, named_leaves, size
from lth_jax.store import CurvePoint
from lth_jax.store.tables import ResultRow
from lth_jax.training.operation_counts import training_operations
from lth_jax.training.states import Evaluation, LoopState, TrainState


class FinishedRun(NamedTuple):
    """A trained network: its row, its mask, and the state that it ended in, on the host."""

    row: ResultRow
    mask: PyTree
    state: TrainState


def row_of(
    run: Run,
    points: Sequence[CurvePoint],
    state: LoopState,
    mask: PyTree,
    tests: tuple[Evaluation, Evaluation],
    *,
    seconds: float,
    kernel: str,
) -> ResultRow:
    """Returns the row of a trained run.

    Args:
      run: which one.
      points: its evaluations, in order.
      state: in which it ended, on the host.
      mask: of its network.
      tests: the early stop and the last network on the test split.
      seconds: that its training took.
      kernel: what trained it.
    """
    counts = kept_counts(mask, run.experiment.rates).values()
    kept, total = (sum(column) for column in zip(*counts, strict=True))
    last, best = points[-1], state.best
    at_best, at_end = tests
    measured = best.loss, best.accuracy, at_best.accuracy
    loss, val_accuracy, test_accuracy = map(float, measured if best.step >= 0 else [math.nan] * 3)
    steps = run.last_step - run.start.step
    return ResultRow(
        *run.run_id,
        density=kept / total,
        kept=kept,
        prunable=total,
        early_stop_step=int(best.step),
        early_stop_val_loss=loss,
        early_stop_val_accuracy=val_accuracy,
        early_stop_test_accuracy=test_accuracy,
        final_val_accuracy=last.val_accuracy,
        final_test_accuracy=float(at_end.accuracy),
        final_train_loss=last.train_loss,
        steps=steps,
        train_seconds=seconds,
        kernel=kernel,
        diverged=diverged_since(points, state.state.params),
        last_step=run.last_step,
        operations=_operations(run),
    )


def _operations(run: Run) -> float:
    """Counts what a run's training takes; 0 (unknown) where more weights are updated than kept."""
    if run.moving and run.moving.rule.trained:
        return 0.0
    e, leaves = run.experiment, named_leaves(run.start.mask)
    kept = {name: count_true(leaf) for name, leaf in leaves.items()}
    sizes = {name: size(leaf) for name, leaf in leaves.items()}
    # What a schedule keeps, piece by piece; a mask does not move at the step where a run starts.
    pieces = {run.start.step: kept}
    if run.moving:
        for step, counts in run.moving.counts_to_come(sizes).items():
            if run.start.step < step < run.last_step:
                pieces[step] = kept | counts
    ends = [*[*pieces][1:], run.last_step]
    batch_size = e.spec.train.batch_size
    return sum(
        training_operations(counts, e.uses, steps=end - begin, batch_size=batch_size)
        for (begin, counts), end in zip(pieces.items(), ends, strict=True)
    )


def diverged_since(points: Sequence[CurvePoint], params: PyTree) -> int:
    """Returns the step of the evaluation since which a trained run's loss is not finite, or -1.

    A loss that was finite again is one that the run came back from: it did not diverge. Parameters
    that are not finite never come back, though a network may hide them; its last step counts then.

    Args:
      points: its evaluations, in order.
      params: with which it ended, on the host.
    """
    step = -1
    for point in reversed(points):
        if math.isfinite(point.val_loss):
            break
        step = point.step
    broken = not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    return points[-1].step if broken and step < 0 else step
