"""`results.csv`, the contract: one row for each run, and how rows are written and read.

Pure: text in, rows out. Where the file lies, and that it is replaced atomically, is `store`'s.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

TRUNK = "ticket"


class RunId(NamedTuple):
    """Which run of an experiment: the trunk's are of branch `ticket`, draw 0."""

    branch: str
    level: int
    replicate: int
    draw: int

    def __str__(self) -> str:
        """Such as `reinit, level 3, replicate 0, draw 1`."""
        draw = f", draw {self.draw}" if self.draw else ""
        return f"{self.branch}, level {self.level}, replicate {self.replicate}{draw}"


@dataclasses.dataclass(frozen=True)
class ResultRow:
    """One trained network. Accuracies and density are fractions in [0, 1]; losses are nats.

    `kernel`: what computed it: `xla`, `native` (dense layers by native kernels), or `sparse`
    (at least one layer's mask saved time).
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
        """The (branch, level, replicate, draw) that the row is about."""
        return RunId(self.branch, self.level, self.replicate, self.draw)


COLUMNS: tuple[str, ...] = tuple(field.name for field in dataclasses.fields(ResultRow))
# What results of earlier versions lack.
_LATER = ("kernel",)
_TYPES = {
    field.name: {"str": str, "int": int, "float": float}[str(field.type)]
    for field in dataclasses.fields(ResultRow)
}


def sort_rows(rows: Iterable[ResultRow], branches: Sequence[str]) -> list[ResultRow]:
    """Rows by level, the spec's order of `branches` (the trunk first), replicate, draw.

    Branches that the spec no longer names keep their rows, after the others, by name.
    """
    order = {name: index for index, name in enumerate((TRUNK, *branches))}
    return sorted(
        rows,
        key=lambda r: (r.level, order.get(r.branch, len(order)), r.branch, r.replicate, r.draw),
    )


def to_csv(rows: Iterable[ResultRow]) -> str:
    """The text of `results.csv`: a header line, then the rows as given, floats by `repr`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        values = dataclasses.astuple(row)
        writer.writerow([repr(v) if isinstance(v, float) else v for v in values])
    return out.getvalue()


def from_csv(text: str) -> list[ResultRow]:
    """The rows of `results.csv`; columns that this version does not know are passed over.

    Raises:
      ValueError: a contract column is missing or a value does not parse; names line and column.
    """
    reader = csv.DictReader(io.StringIO(text))
    try:
        missing = [name for name in COLUMNS if name not in (*(reader.fieldnames or ()), *_LATER)]
        if missing:
            raise ValueError(f"results.csv lacks the columns {', '.join(missing)}")
        return [_row(number, record) for number, record in enumerate(reader, start=2)]
    except csv.Error as error:
        raise ValueError(f"results.csv line {reader.line_num}: {error}") from None


def _row(line: int, record: Mapping[str, str | None]) -> ResultRow:
    try:
        known = [name for name in COLUMNS if name in record]
        cut = [name for name in known if record[name] is None]
        if cut:
            raise ValueError(f"it is cut short before {cut[0]}")
        return ResultRow(**{name: _TYPES[name](record[name]) for name in known})
    except ValueError as error:
        raise ValueError(f"results.csv line {line}: {error}") from None


def salvage(text: str) -> tuple[list[ResultRow], list[str]]:
    """(the rows of a damaged `results.csv` that can still be read, what is wrong with the rest)."""
    header, *lines = io.StringIO(text).readlines() or [""]
    try:
        from_csv(header)
    except ValueError as error:
        return [], [str(error)]
    rows: list[ResultRow] = []
    problems: list[str] = []
    for number, line in enumerate(lines, start=2):
        try:
            if not line.endswith("\n"):  # its last number may lack digits
                raise ValueError("results.csv: it is cut short")
            rows += from_csv(header + line)
        except ValueError as error:
            what = str(error).partition(": ")[2]
            problems.append(f"results.csv line {number}: {what}")
    return rows, problems
