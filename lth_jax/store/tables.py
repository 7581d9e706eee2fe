"""The tables of a run directory: what a row is, and how rows are written and read.

`results.csv` has a row for each trained network, and its columns are a contract: tools of others
read it. A file under `metrics/` has a row for each evaluation. This module is pure: text in, rows
out. Where the files lie, and that they are replaced atomically, is `rundir`'s.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

TRUNK = "ticket"  # what the column `branch` says of the trunk's networks


class RunId(NamedTuple):
    """Names a run of an experiment; those of the trunk have the branch `ticket` and draw 0."""

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

    Accuracies and density are fractions in [0, 1]; losses are nats. `kernel` says what computed
    it: `xla`, `native` (dense layers by native code), or `sparse` (at least one layer's mask saved
    time).
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

    @property
    def run_id(self) -> RunId:
        """Returns the (branch, level, replicate, draw) that the row is about."""
        return RunId(self.branch, self.level, self.replicate, self.draw)


class CurvePoint(NamedTuple):
    """Describes one evaluation on the validation split.

    Attributes:
      replicate, draw: whose run.
      step: the updates behind the network, counted from initialization.
      val_loss: mean loss in nats.
      val_accuracy: a fraction.
      train_loss: mean minibatch loss since the evaluation before; NaN at a run's first.
    """

    replicate: int
    draw: int
    step: int
    val_loss: float
    val_accuracy: float
    train_loss: float


Row = TypeVar("Row")


class Table(Generic[Row]):
    """Writes and reads one kind of table: a header, then a line for each row; floats by `repr`.

    Args:
      name: of the table, for error messages.
      kind: the type of a row, whose annotated fields are the columns: str, int or float each.
      later: columns that tables of earlier versions lack; their rows have the field's default.
    """

    def __init__(self, name: str, kind: Callable[..., Row], later: Sequence[str] = ()):
        self.name, self.kind, self.later = name, kind, later
        self.types: dict[str, type] = typing.get_type_hints(kind)

    @property
    def columns(self) -> tuple[str, ...]:
        """Returns the names of the columns, in the order in which they are written."""
        return tuple(self.types)

    def to_csv(self, rows: Iterable[Row]) -> str:
        """Returns the text of the table, its rows as given."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        for row in rows:
            values = [getattr(row, name) for name in self.columns]
            writer.writerow([repr(v) if isinstance(v, float) else v for v in values])
        return out.getvalue()

    def from_csv(self, text: str) -> list[Row]:
        """Returns the rows of a table; columns that this version does not know are passed over.

        Raises:
          ValueError: a column is missing or a value does not parse; names line and column.
        """
        reader = csv.DictReader(io.StringIO(text))
        try:
            known = (*(reader.fieldnames or ()), *self.later)
            missing = [name for name in self.columns if name not in known]
            if missing:
                raise ValueError(f"{self.name} lacks the columns {', '.join(missing)}")
            return [self._row(number, record) for number, record in enumerate(reader, start=2)]
        except csv.Error as error:
            raise ValueError(f"{self.name} line {reader.line_num}: {error}") from None

    def _row(self, line: int, record: Mapping[str, Any]) -> Row:
        try:
            known = [name for name in self.columns if name in record]
            cut = [name for name in known if record[name] is None]
            if cut:
                raise ValueError(f"it is cut short before {cut[0]}")
            return self.kind(**{name: self.types[name](record[name]) for name in known})
        except ValueError as error:
            raise ValueError(f"{self.name} line {line}: {error}") from None

    def salvage(self, text: str) -> tuple[list[Row], list[str]]:
        """Returns the rows of a damaged table that still read, and what is wrong with the rest."""
        header, *lines = io.StringIO(text).readlines() or [""]
        try:
            self.from_csv(header)
        except ValueError as error:
            return [], [str(error)]
        rows: list[Row] = []
        problems: list[str] = []
        for number, line in enumerate(lines, start=2):
            try:
                if not line.endswith("\n"):  # its last number may lack digits
                    raise ValueError(f"{self.name}: it is cut short")
                rows += self.from_csv(header + line)
            except ValueError as error:
                what = str(error).partition(": ")[2]
                problems.append(f"{self.name} line {number}: {what}")
        return rows, problems


RESULTS = Table("results.csv", ResultRow, later=("kernel",))
CURVES = Table("the curve", CurvePoint)


def sort_rows(rows: Iterable[ResultRow], branches: Sequence[str]) -> list[ResultRow]:
    """Returns rows by level, the spec's order of `branches` (the trunk first), replicate, draw.

    Branches that the spec no longer names keep their rows, after the others, by name.
    """
    order = {name: index for index, name in enumerate((TRUNK, *branches))}
    return sorted(
        rows,
        key=lambda r: (r.level, order.get(r.branch, len(order)), r.branch, r.replicate, r.draw),
    )
