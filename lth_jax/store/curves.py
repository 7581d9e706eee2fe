"""Training curves: one CSV for each branch and level, one line for each evaluation."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class CurvePoint(NamedTuple):
    """One evaluation on the validation split.

    Attributes:
      replicate, draw: whose run.
      step: updates behind the network, counted from initialization.
      val_loss: mean loss in nats; val_accuracy: fraction.
      train_loss: mean minibatch loss since the evaluation before; NaN at a run's first.
    """

    replicate: int
    draw: int
    step: int
    val_loss: float
    val_accuracy: float
    train_loss: float


def to_csv(points: Iterable[CurvePoint]) -> str:
    """A header and the points by replicate, draw and step; floats by `repr`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CurvePoint._fields)
    for point in sorted(points, key=lambda p: p[:3]):
        writer.writerow([repr(v) if isinstance(v, float) else v for v in point])
    return out.getvalue()


def from_csv(text: str) -> list[CurvePoint]:
    """The points that `to_csv` wrote.

    Raises:
      ValueError: a value is missing or does not parse.
    """
    try:
        rows = list(csv.reader(io.StringIO(text)))[1:]
    except csv.Error as error:
        raise ValueError(str(error)) from None
    return [_point(number, row) for number, row in enumerate(rows, start=2)]


def _point(line: int, row: Sequence[str]) -> CurvePoint:
    if len(row) < len(CurvePoint._fields):
        raise ValueError(f"line {line} is cut short")
    replicate, draw, step = map(int, row[:3])
    return CurvePoint(replicate, draw, step, *map(float, row[3:6]))
