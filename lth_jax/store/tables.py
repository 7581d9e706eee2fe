"""The tables of a run directory: what a row is, and how rows are written and read.

`results.csv` has a row for each trained network, and its columns are a contract: tools of others
read it. A file under `metrics/` has a row for each evaluation. This module is pure: text in, rows
out. Where the files lie, and that they are replaced atomically, is `rundir`'s.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import math
import typing
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

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
        """Returns whether its early stop is its last evaluation: it might have come later."""
        return self.early_stop_step == (self.last_step or self.steps)

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


Row = TypeVar("Row")
ACCURACY = "accuracy"  # in names of columns, what the metric's name stands in place of
CHECKSUM = "checksum"  # the column after those of a row; tables of earlier versions lack it


class Table(Generic[Row]):
    """Writes and reads one kind of table: a header, then a line for each row; floats by `repr`.

    After the columns of a row stands a checksum of their names and values, so that a row that was
    changed is found, whatever else is done to the file: rows may be sorted, taken out or brought
    together, a spreadsheet may put its mark before them and end lines in its own way, and columns
    may follow. A table without the column is one of an earlier version.

    Where networks are measured by another metric than accuracy, its name stands in the names of
    columns in place of `accuracy`. The header tells it to whoever reads.

    Args:
      name: of the table, for error messages.
      kind: the type of a row, whose annotated fields are the columns: str, int or float each.
      key: returns what no two rows have in common.
      wrong: returns what cannot be true of a row of this metric, or an empty string.
      measured: a field whose column names the metric.
      later: columns that tables of earlier versions lack; their rows have the field's default.
      series: returns of which series a row is one. Its checksum is then of the row before as well,
        so that a row that is missing in between is found, too.
      stem: of tables of a branch at a level, what the names of their files begin with.
      unlike: of such a table, returns what of the branch's results at the level its rows do not
        bear out, or an empty string.
    """

    def __init__(
        self,
        name: str,
        kind: Callable[..., Row],
        *,
        key: Callable[[Row], Hashable],
        wrong: Callable[[Row, str], str],
        measured: str,
        later: Sequence[str] = (),
        series: Callable[[Row], Hashable] | None = None,
        stem: str = "",
        unlike: Callable[[Iterable[Row], Iterable[ResultRow]], str] = lambda _rows, _results: "",
    ):
        self.name, self.kind, self.key, self.wrong = name, kind, key, wrong
        self.measured, self.later, self.series = measured, later, series
        self.stem, self.unlike = stem, unlike
        self.types: dict[str, type] = typing.get_type_hints(kind)

    @property
    def columns(self) -> tuple[str, ...]:
        """Returns the names of a row's columns, in the order in which they are written."""
        return tuple(self.types)

    def file(self, branch: str, level: int) -> str:
        """Returns where the table of a branch at a level lies in a run directory."""
        return f"metrics/{branch}/{self.stem}_{level:02d}.csv"

    def to_csv(self, rows: Iterable[Row], metric: str = ACCURACY) -> str:
        """Returns the text of the table, its rows as given; `metric` is how columns call it."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        names = [column_of(name, metric) for name in self.columns]
        writer.writerow((*names, CHECKSUM))
        before: dict[Hashable, str] = {}
        for row in rows:
            texts = [_text(kind, getattr(row, name)) for name, kind in self.types.items()]
            series = self.series(row) if self.series else None
            sealed = _checksum(names, texts, before.get(series, ""))
            if self.series:
                before[series] = sealed
            writer.writerow([*texts, sealed])
        return out.getvalue()

    def from_csv(self, text: str) -> list[Row]:
        """Returns the rows of a table; columns that this version does not know are passed over.

        Raises:
          ValueError: a column is missing, or a row was changed, cannot be true, or is there twice;
            names the line.
        """
        rows, problems = self.salvage(text)
        if problems:
            raise ValueError(problems[0])
        return rows

    def salvage(self, text: str) -> tuple[list[Row], list[str]]:
        """Returns the rows of a damaged table that are whole, and what is wrong with the rest."""
        # Lines are read one by one: a damaged one must not take others with it.
        lines = text.removeprefix("\ufeff").split("\n")
        header, metric, problem = self._header(lines[0].removesuffix("\r"))
        problems = [f"{self.name} {problem}"] if problem else []
        found: dict[Hashable, tuple[int, Row]] = {}
        differing: set[Hashable] = set()
        before: dict[Hashable, str] = {}
        for number, line in enumerate(lines[1:], start=2):
            cut = number == len(lines)  # no end of a line follows: its last number may lack digits
            try:
                row = self._row(header, metric, line.removesuffix("\r"), before, cut)
                if row is None:
                    continue
                first, other = found.setdefault(self.key(row), (number, row))
                if first != number:
                    if other != row:
                        differing.add(self.key(row))
                    raise ValueError(f"it is there twice, see line {first}")
            except (ValueError, csv.Error) as error:
                if not problem:  # else the lost header says it all
                    problems.append(f"{self.name} line {number}: {error}")
        return [row for key, (_, row) in found.items() if key not in differing], problems

    def metric(self, text: str) -> str:
        """Returns how the columns of a table call the metric."""
        return self._header(text.removeprefix("\ufeff").partition("\n")[0].removesuffix("\r"))[1]

    def _header(self, line: str) -> tuple[list[str], str, str]:
        """Returns the names of the columns, the metric, and what is wrong with them or nothing.

        Where they are lost, they are those of this version: with them, rows whose checksums are
        right are whole.
        """
        problem = ""
        try:
            names = next(csv.reader([line]), [])
        except csv.Error as error:
            names, problem = [], f"line 1: {error}"
        metric, prefix = ACCURACY, self.measured.removesuffix(ACCURACY)
        if self.measured not in names:
            others = [n for n in names if n.startswith(prefix) and n not in self.columns]
            metric = others[0].removeprefix(prefix) if others else ACCURACY
        expected = {column_of(name, metric): name for name in self.columns}
        missing = [c for c, name in expected.items() if c not in names and name not in self.later]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            problem = problem or f"lacks the columns {', '.join(missing[:3])}{more}"
        elif len(set(names)) < len(names):
            problem = "has a column twice"
        if problem:
            return [*self.columns, CHECKSUM], ACCURACY, problem
        return names, metric, ""

    def _row(
        self,
        header: Sequence[str],
        metric: str,
        line: str,
        before: dict[Hashable, str],
        cut: bool,
    ) -> Row | None:
        """Returns the row of a line, None for an empty one.

        Args:
          header: the names of the columns; metric: how they call it.
          line: without its end.
          before: series -> the checksum of its last row so far.
          cut: whether the end of the line is missing.

        Raises:
          ValueError or csv.Error: says what is wrong with it.
        """
        cells = next(csv.reader([line]), [])
        if not cells:
            return None
        if len(cells) < len(header):
            raise ValueError(f"it is cut short before {header[len(cells)]}")
        if len(cells) > len(header):
            raise ValueError(f"it has {len(cells)} values for {len(header)} columns")
        record = dict(zip(header, cells, strict=True))
        columns = {name: column_of(name, metric) for name in self.columns}
        given = {n: self.types[n](record[c]) for n, c in columns.items() if c in record}
        row = self.kind(**given)
        if CHECKSUM in record:
            series = self.series(row) if self.series else None
            end = header.index(CHECKSUM)
            names = [column for column in columns.values() if column in header[:end]]
            names += sorted(set(header[:end]) - set(names))
            types = {column: self.types[name] for name, column in columns.items()}
            texts = [_plain(types.get(name), record[name]) for name in names]
            expected = _checksum(names, texts, before.get(series, ""))
            if self.series:
                before[series] = record[CHECKSUM]
            if record[CHECKSUM] != expected:
                raise ValueError("its checksum is another one: it was changed")
        elif cut:
            raise ValueError("it is cut short")
        if wrong := self.wrong(row, metric):
            raise ValueError(wrong)
        return row


def column_of(field: str, metric: str) -> str:
    """Returns what a field of a row is called where networks are measured by `metric`."""
    return field.replace(ACCURACY, metric)


def named(row: Any, metric: str) -> dict[str, Any]:
    """Returns a row as a dict by the names of its columns."""
    return {column_of(name, metric): value for name, value in dataclasses.asdict(row).items()}


def _checksum(names: Sequence[str], texts: Sequence[str], before: str) -> str:
    """Returns the checksum of a row; no spreadsheet takes it for a number."""
    content = "\n".join((before, *names, *texts))
    return "x" + hashlib.sha256(content.encode()).hexdigest()[:8]


def _text(kind: type, value: Any) -> str:
    """Returns a value, or its text however it was written, as `Table.to_csv` writes it."""
    return repr(kind(value)) if kind is float else str(kind(value))


def _plain(kind: type | None, text: str) -> str:
    """Returns what `_text` does, also in a column of a later version, where all may stand."""
    try:
        return _text(kind or float, text)
    except ValueError:
        return text


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
