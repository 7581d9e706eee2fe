"""The tables of a run directory: what a row is, and how rows are written and read.

`results.csv` has a row for each trained network, and its columns are a contract: tools of others
read it. A file under `metrics/` has a row for each evaluation. How they are written is `table`'s.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from lth_jax.store.table import ACCURACY, Table

TRUNK = "ticket"  # what the column `branch` says of the trunk's networks


class RunId(NamedTuple):
    """Names a run of an experiment.

    Attributes:
      branch: `ticket` for the trunk.
      level: how many times it was pruned.
      replicate: from 0.
      draw: which of the branch's random draws, from 0; 0 for the trunk.
    """

    branch: str
    level: int
    replicate: int
    draw: int

    def __str__(self) -> str:
        """Returns it in words, such as `reinit, level 3, replicate 0, draw 1`."""
        draw = f", draw {self.draw}" if self.draw else ""
        return f"{self.branch}, level {self.level}, replicate {self.replicate}{draw}"


@dataclasses.dataclass(frozen=True)
class ResultRow:
    """Describes one trained network.

    Accuracies and density are fractions in [0, 1]; losses are nats. Where networks are measured by
    another metric, `accuracy` in these names stands for it. `kernel` says what computed it: `xla`,
    `native` (dense layers by native code), or `sparse` (at least one layer's mask saved time).

    `diverged` is the step of the evaluation since which its validation loss is not finite, up to
    its end; -1 where it did not diverge. A run whose loss was never finite has no early stop:
    `early_stop_step` is -1, what was measured there NaN.

    `last_step` is the step at which the run ended, counted from initialization; `operations` are
    the floating-point operations of its training, counted from its mask
    (`training.operation_counts`). Both are 0 in tables of earlier versions.
    """

    branch: str
    level: int
    replicate: int
    draw: int
    density: float
    kept: int
    prunable: int
    early_stop_step: int
    early_stop_val_loss: float
    early_stop_val_accuracy: float
    early_stop_test_accuracy: float
    final_val_accuracy: float
    final_test_accuracy: float
    final_train_loss: float
    steps: int
    train_seconds: float
    kernel: str = "xla"
    diverged: int = -1
    last_step: int = 0
    operations: float = 0.0

    @property
    def censored(self) -> bool:
        """Returns whether its early stop is its last evaluation: it might have come later.

        That of a network that was not trained could not.
        """
        return self.steps > 0 and self.early_stop_step == (self.last_step or self.steps)

    @property
    def run_id(self) -> RunId:
        """Returns the (branch, level, replicate, draw) that the row is about."""
        return RunId(self.branch, self.level, self.replicate, self.draw)


class PathPoint(NamedTuple):
    """Describes one network on the straight line between two trained ones.

    Attributes:
      pair: what the two are to each other: `siblings`, `levels`, …
      level, replicate: of the first; density: of its mask.
      alpha: the place, 0 the first network and 1 the second.
      train_loss, test_loss: mean losses in nats; train_error, test_error: fractions.
      first, second: the networks, as `sibling:0:2:1` (branch, level, replicate, draw); one of
        another run has that run's name before it.
      parted: the step at which siblings parted; -1 of others.
      statistics: how its batch statistics came about.
      examples: the training examples that it was measured on.
      l2, angle: how far the two lie apart, a distance and degrees.
      aligned: by what the second's units were put into the first's order, `none` if they were not.
    """

    pair: str
    level: int
    replicate: int
    alpha: float
    train_loss: float
    train_error: float
    test_loss: float
    test_error: float
    density: float
    first: str
    second: str
    parted: int
    statistics: str
    examples: int
    l2: float
    angle: float
    aligned: str = "none"


class CurvePoint(NamedTuple):
    """Describes one evaluation on the validation split.

    Attributes:
      replicate, draw: whose run.
      step: the updates behind the network, counted from initialization.
      val_loss: mean loss in nats.
      val_accuracy: a fraction; or the value of the metric by which networks are measured.
      train_loss: mean minibatch loss since the evaluation before; NaN at a run's first.
    """

    replicate: int
    draw: int
    step: int
    val_loss: float
    val_accuracy: float
    train_loss: float


class MaskPoint(NamedTuple):
    """Describes the mask of a run from a step on: where the run starts, and each time it moves.

    Attributes:
      replicate, draw: whose run.
      step: the updates behind the network, counted from initialization.
      kept: weights in the mask.
      dropped: those of the mask before that are not in this one; 0 at the start.
      grown: those that were not in the mask before; 0 at the start.
      ever: weights that were in any mask so far.
      prunable: weights that may be pruned.
    """

    replicate: int
    draw: int
    step: int
    kept: int
    dropped: int
    grown: int
    ever: int
    prunable: int


class CurvaturePoint(NamedTuple):
    """Describes the largest eigenvalue of the Hessian of a run's training loss at a step.

    Attributes:
      replicate, draw: whose run.
      step: the updates behind the network, counted from initialization.
      eigenvalue: as Lanczos' iteration has it.
      residual: an eigenvalue lies at most this far from it.
      examples: the training examples of the loss.
      iterations: products of the Hessian and a vector.
    """

    replicate: int
    draw: int
    step: int
    eigenvalue: float
    residual: float
    examples: int
    iterations: int


class MaskDistance(NamedTuple):
    """Tells how far the mask that an epoch's weights would give is from the epoch's before.

    Attributes:
      replicate, draw: whose dense network.
      step: the updates behind it.
      level: of the mask.
      distance: the share of the channels, or weights, that differ.
    """

    replicate: int
    draw: int
    step: int
    level: int
    distance: float


def _wrong_result(row: ResultRow, metric: str) -> str:
    """Returns what cannot be true of a result, or an empty string."""
    if min(row.level, row.replicate, row.draw) < 0:
        return "level, replicate or draw is negative"
    if not 0 <= row.kept <= row.prunable or not row.prunable:
        return f"kept is {row.kept} of {row.prunable} prunable weights"
    if not math.isclose(row.density, row.kept / row.prunable, rel_tol=1e-9):
        return f"density is {row.density}, and {row.kept} of {row.prunable} weights are kept"
    stopped = row.early_stop_step >= 0  # else no loss was finite
    of_accuracy = {
        "early_stop_val_accuracy": stopped,
        "early_stop_test_accuracy": stopped,
        "final_val_accuracy": True,
        "final_test_accuracy": True,
    }
    for name, needed in of_accuracy.items() if metric == ACCURACY else ():
        value = getattr(row, name)
        if not (0 <= value <= 1 or (math.isnan(value) and not needed)):
            return f"{name} is {value}; accepted: 0 to 1"
    if stopped and not math.isfinite(row.early_stop_val_loss):
        return f"early_stop_val_loss is {row.early_stop_val_loss}"
    if row.early_stop_step < -1 or row.steps < 0 or row.diverged < -1:
        return "early_stop_step, steps or diverged is negative"
    for name in ("train_seconds", "operations"):
        if not (math.isfinite(value := getattr(row, name)) and value >= 0):
            return f"{name} is {value}"
    return ""


def _wrong_point(point: CurvePoint, metric: str) -> str:
    """Returns what cannot be true of an evaluation, or an empty string."""
    if min(point.replicate, point.draw, point.step) < 0:
        return "replicate, draw or step is negative"
    if metric == ACCURACY and not 0 <= point.val_accuracy <= 1:
        return f"val_accuracy is {point.val_accuracy}; accepted: 0 to 1"
    return ""


def _wrong_mask(point: MaskPoint, _metric: str) -> str:
    """Returns what cannot be true of a mask on its way, or an empty string."""
    if min(point) < 0:
        return f"{point._fields[point.index(min(point))]} is negative"
    if not point.grown <= point.kept <= point.ever <= point.prunable or not point.prunable:
        return f"kept is {point.kept}, ever {point.ever}, of {point.prunable} prunable weights"
    return ""


def _wrong_curvature(point: CurvaturePoint, _metric: str) -> str:
    """Returns what cannot be true of an eigenvalue, or an empty string."""
    if min(point.replicate, point.draw, point.step) < 0:
        return "replicate, draw or step is negative"
    if min(point.examples, point.iterations) < 1:
        return "examples or iterations is below 1"
    if point.residual < 0:
        return f"residual is {point.residual}"
    return ""


def _wrong_distance(point: MaskDistance, _metric: str) -> str:
    """Returns what cannot be true of a mask distance, or an empty string."""
    if min(point[:4]) < 0 or not 0 <= point.distance <= 1:
        return f"distance is {point.distance} at step {point.step}; accepted: 0 to 1"
    return ""


def wrong_curve(points: Iterable[CurvePoint], rows: Iterable[ResultRow]) -> str:
    """Returns what of the results of a branch at a level its curve does not bear out, or nothing.

    The evaluations of a finished run end with the last, and its early stop is among them.
    """
    curves: dict[tuple[int, int], list[CurvePoint]] = {}
    for point in sorted(points, key=lambda point: point[:3]):
        curves.setdefault((point.replicate, point.draw), []).append(point)
    for row in rows:
        curve = curves.get((row.replicate, row.draw))
        if curve is None:
            return f"it lacks {row.run_id}"
        last = curve[-1]
        # By `repr`, in which NaN is equal to itself: a metric may have no value.
        stops = [repr((point.step, point.val_loss, point.val_accuracy)) for point in curve]
        stop = repr((row.early_stop_step, row.early_stop_val_loss, row.early_stop_val_accuracy))
        ends = repr(last[4:]) == repr((row.final_val_accuracy, row.final_train_loss))
        if not ends or (row.early_stop_step >= 0 and stop not in stops):
            return f"it is not the curve of {row.run_id} in {RESULTS.name}"
    return ""


def wrong_masks(points: Iterable[MaskPoint], rows: Iterable[ResultRow]) -> str:
    """Returns what of the results of a branch at a level its masks do not bear out, or nothing.

    The last mask of a finished run keeps as many weights as its row says.
    """
    last = {(point.replicate, point.draw): point for point in sorted(points)}
    for row in rows:
        point = last.get((row.replicate, row.draw))
        if point is None:
            return f"it lacks {row.run_id}"
        if (point.kept, point.prunable) != (row.kept, row.prunable):
            return f"it does not end with the mask of {row.run_id} in {RESULTS.name}"
    return ""


def wrong_curvature(points: Iterable[CurvaturePoint], rows: Iterable[ResultRow]) -> str:
    """Returns what of the results of a branch at a level its curvature does not bear out.

    It may have been asked for in some runs alone.
    """
    last = {(row.replicate, row.draw): row for row in rows}
    found = list(points)
    for point in found:
        row = last.get((point.replicate, point.draw))
        if row and point.step > (row.last_step or row.steps):
            return f"it goes on past the end of {row.run_id} in {RESULTS.name}"
    return "" if found else "it has no rows"


RESULTS = Table(
    "results.csv",
    ResultRow,
    key=lambda row: row.run_id,
    wrong=_wrong_result,
    measured="early_stop_test_accuracy",
    later=("kernel", "diverged", "last_step", "operations"),
)
CURVES = Table(
    "the curve",
    CurvePoint,
    key=lambda point: point[:3],
    wrong=_wrong_point,
    measured="val_accuracy",
    series=lambda point: point[:2],
    stem="level",
    unlike=wrong_curve,
)


def _wrong_path(point: PathPoint, _metric: str) -> str:
    """Returns what cannot be true of a network on a path, or an empty string."""
    if not 0 <= point.alpha <= 1:
        return f"alpha is {point.alpha}; accepted: 0 to 1"
    for name in ("train_error", "test_error"):
        if not 0 <= getattr(point, name) <= 1:
            return f"{name} is {getattr(point, name)}; accepted: 0 to 1"
    return ""


PATHS = Table(
    "paths.csv",
    PathPoint,
    key=lambda point: (point.pair, point.first, point.second, point.aligned, point.alpha),
    wrong=_wrong_path,
    measured="test_error",
    later=("aligned",),
)


MASKS = Table(
    "the masks",
    MaskPoint,
    key=lambda point: point[:3],
    wrong=_wrong_mask,
    measured="kept",
    series=lambda point: point[:2],
    stem="masks",
    unlike=wrong_masks,
)
CURVATURE = Table(
    "the curvature",
    CurvaturePoint,
    key=lambda point: point[:3],
    wrong=_wrong_curvature,
    measured="eigenvalue",
    series=lambda point: point[:2],
    stem="curvature",
    unlike=wrong_curvature,
)
DISTANCES = Table(
    "the mask distances",
    MaskDistance,
    key=lambda point: point[:4],
    wrong=_wrong_distance,
    measured="distance",
    series=lambda point: point[:2],
    stem="mask_distances",
    unlike=lambda points, _rows: "" if list(points) else "it has no rows",
)
# Of a branch at a level. A row of the results promises the first; the others are there for some.
METRICS: tuple[Table[Any], ...] = (CURVES, MASKS, CURVATURE, DISTANCES)


def sort_rows(rows: Iterable[ResultRow], branches: Sequence[str]) -> list[ResultRow]:
    """Returns rows by level, the spec's order of `branches` (the trunk first), replicate, draw.

    Branches that the spec no longer names keep their rows, after the others, by name.
    """
    order = {name: index for index, name in enumerate((TRUNK, *branches))}
    return sorted(
        rows,
        key=lambda r: (r.level, order.get(r.branch, len(order)), r.branch, r.replicate, r.draw),
    )
