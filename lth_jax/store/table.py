"""One kind of table as text: how rows are written, sealed by checksums, and read again.

This module is pure: text in, rows out. Where files lie, and that they are replaced atomically, is
`rundir`'s.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import typing
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Generic, TypeVar

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
        unlike: Callable[[Iterable[Row], Iterable[Any]], str] = lambda _rows, _results: "",
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
