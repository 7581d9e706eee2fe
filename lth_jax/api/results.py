"""`lth_jax.read`: what an experiment left behind, or has so far, as typed values and figures."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lth_jax import config as specs
from lth_jax.analysis.summary import LevelSummary, summarize
from lth_jax.analysis.verdicts import Judgement, Standard, judge
from lth_jax.errors import SpecError, StoreError, nearest
from lth_jax.export.tickets import load_ticket, load_trained
from lth_jax.lottery.plan import planned_runs
from lth_jax.lottery.rewinding import missing
from lth_jax.lottery.start_points import StartPoint
from lth_jax.pruning.trees import PyTree, to_device
from lth_jax.report.contents import Contents
from lth_jax.report.page import PAGE, results_html, write_report
from lth_jax.report.table import print_table, results_tables
from lth_jax.report.terminal import PlainConsole
from lth_jax.report.verdict import verdict
from lth_jax.store import CurvePoint, RunDirectory, level_name
from lth_jax.store.checkpoints import read_arrays, read_manifest, subtree
from lth_jax.store.table import column_of, named
from lth_jax.store.tables import CURVES, RESULTS, TRUNK, ResultRow, RunId
from lth_jax.training.metrics import Metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_log = logging.getLogger("lth_jax")
WIDTH = 100  # characters of a table in a text


def read(path: str | Path) -> Results:
    """Returns the results of a run directory, finished or in progress; changes nothing there.

    They are those of this moment: call it again to see what came since.

    Args:
      path: the run directory.

    Raises:
      StoreError: there is no run, its tables are damaged, or it is of another version. What is read
        later (curves, masks) is checked when it is asked for.
    """
    return Results(Contents(RunDirectory.read(Path(path))))


class Results:
    """What an experiment found; in a notebook, its table.

    Everything that is not a row is read when it is first asked for. Where a table, a curve or a
    checkpoint is damaged, that raises a StoreError.

    Attributes:
      path: the run directory.
      name: what the experiment is called.
      identity: eight hex digits of what would change a number.
      spec: its fields, checked and frozen, such as `spec.train.steps`.
      status: `finished`, `running` or `stopped`.
      metric: what networks are measured by; in names of a row's fields `accuracy` stands for it.
      rows: one for each trained network, in the order of `results.csv`.
    """

    path: Path
    name: str
    identity: str
    spec: specs.Spec
    status: str
    metric: Metric
    rows: tuple[ResultRow, ...]
    _contents: Contents
    _read_curves: dict[tuple[str, int], Mapping[RunId, tuple[CurvePoint, ...]]]

    def __init__(self, contents: Contents):
        facts = {
            "path": contents.store.path,
            "name": contents.name,
            "identity": contents.record["identity"],
            "spec": contents.spec,
            "status": contents.status,
            "metric": contents.metric,
            "rows": tuple(contents.rows),
            "_contents": contents,
            "_read_curves": {},
        }
        vars(self).update(facts)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"results cannot be changed: {name}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Lets another process, such as one that a pool's worker answers, read them again."""
        return read, (self.path.resolve(),)

    # What the table says

    @cached_property
    def summaries(self) -> tuple[LevelSummary, ...]:
        """The statistics of each branch at each level, in the order of the table."""
        return tuple(summarize(self.rows))

    @cached_property
    def judgements(self) -> Mapping[tuple[str, int], Judgement]:
        """(branch, level) -> whether it matches the dense network, with the interval that says so.

        Levels that not every replicate has reached are absent, and all for one replicate.
        """
        return judge(self.rows, Standard.of(self.spec, self.metric))

    @cached_property
    def verdict(self) -> str:
        """What was found, in a few sentences."""
        return verdict(self.rows, Standard.of(self.spec, self.metric))

    # Curves and tables

    def curves(
        self,
        branch: str | None = None,
        level: int | None = None,
        replicate: int | None = None,
        draw: int | None = None,
    ) -> dict[RunId, tuple[CurvePoint, ...]]:
        """Returns the evaluations of each run that is asked for, and of all without arguments.

        Of a run in progress they are those so far.

        Args:
          branch: `ticket` for the trunk, `reinit`, …
          level: 0 for the dense network.
          replicate: from 0.
          draw: from 0.

        Raises:
          SpecError: no such branch; StoreError: a curve is damaged.
        """
        branches = (TRUNK, *self.spec.branches)
        if branch not in (None, *branches):
            raise SpecError(f"branch='{branch}': {nearest(branch, branches)}")
        found: dict[RunId, tuple[CurvePoint, ...]] = {}
        for run_id in planned_runs(self.spec):
            asked = zip((branch, level, replicate, draw), run_id, strict=True)
            if all(wanted in (None, part) for wanted, part in asked):
                points = self._curves_of(run_id.branch, run_id.level).get(run_id)
                if points:
                    found[run_id] = points
        return found

    def _curves_of(self, branch: str, level: int) -> Mapping[RunId, tuple[CurvePoint, ...]]:
        """Returns the curves of a branch at a level, which are read and checked once."""
        kept = self._read_curves
        if (branch, level) not in kept:
            store = self._contents.store
            points = store.curve(branch, level)
            if points and self.status != "running":  # who runs it writes a curve before its row
                store.check(CURVES, branch, level, points)
            found: dict[RunId, list[CurvePoint]] = {}
            for point in points:
                run_id = RunId(branch, level, point.replicate, point.draw)
                found.setdefault(run_id, []).append(point)
            kept[branch, level] = {run_id: tuple(each) for run_id, each in found.items()}
        return kept[branch, level]

    def to_pandas(self, *, curves: bool = False) -> Any:
        """Returns the rows as a `pandas.DataFrame`, a column for each of `results.csv`.

        Args:
          curves: whether to return the evaluations of all runs instead, one a row: `branch`,
            `level`, and the columns of a `CurvePoint`.

        Raises:
          ModuleNotFoundError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "to_pandas needs pandas: pip install pandas", name="pandas"
            ) from error
        if not curves:
            columns = [column_of(name, self.metric.column) for name in RESULTS.columns]
            records = [named(row, self.metric.column) for row in self.rows]
            return pd.DataFrame(records, columns=columns)
        fields = [column_of(name, self.metric.column) for name in CurvePoint._fields]
        records = [
            (run_id.branch, run_id.level, *point)
            for run_id, points in self.curves().items()
            for point in points
        ]
        return pd.DataFrame(records, columns=["branch", "level", *fields])

    # Masks and networks

    def mask(self, level: int, replicate: int = 0) -> PyTree:
        """Returns the mask of a level's ticket: bools, nested as the parameters, True = kept.

        Raises:
          StoreError: there is no such level or replicate (says what there is), or it is damaged.
        """
        store, name = self._contents.store, level_name(level)
        checkpoint = store.checkpoint(replicate, name)
        if not checkpoint.exists():
            raise StoreError(missing(store, replicate, name))
        names = [name for name in read_manifest(checkpoint).arrays if name.startswith("mask/")]
        return to_device(subtree(read_arrays(checkpoint, names), "mask"))

    def ticket(
        self,
        level: int,
        replicate: int = 0,
        *,
        branch: str = TRUNK,
        draw: int = 0,
        trust: bool = False,
    ) -> StartPoint:
        """Returns the ticket of a level, `(mask, state, step)`, as `load_ticket` does."""
        return load_ticket(self.path, level, replicate, branch=branch, draw=draw, trust=trust)

    def trained(
        self, level: int, replicate: int = 0, *, branch: str = TRUNK, draw: int = 0
    ) -> tuple[PyTree, PyTree]:
        """Returns a level's trained network, (parameters, model state), as `load_trained` does."""
        return load_trained(self.path, level, replicate, branch=branch, draw=draw)

    # Figures

    def figure(self, name: str = "accuracy") -> Figure:
        """Returns a figure of the report, for a notebook to show or to be saved.

        Args:
          name: that of its file in `figures/`, such as `accuracy`, `early_stop` or `curves`.

        Raises:
          SpecError: no such figure; StoreError: there is nothing to draw yet, or it is damaged.
        """
        from lth_jax.report.drawing import house_style  # which imports Matplotlib
        from lth_jax.report.figures import FIGURES

        if name not in FIGURES:
            raise SpecError(f"figure '{name}': {nearest(name, FIGURES)}")
        with house_style():
            figure = FIGURES[name].draw({self.name: self._contents})
        if figure is None:
            raise StoreError(f"{self.path} has nothing to draw for the figure '{name}'")
        return figure

    def report(self, folder: str | Path | None = None) -> Path:
        """Writes `report.html` and `figures/`, and returns the path of the page.

        Args:
          folder: where to write; the run directory by default.

        Raises:
          StoreError: a table is damaged, or the folder cannot be written.
        """
        where = Path(folder or self.path)
        for note in write_report([self._contents.store], where):
            _log.warning(note)
        return where / PAGE

    # As a text and in a notebook

    def __repr__(self) -> str:
        out = io.StringIO()
        console = PlainConsole(file=out, width=WIDTH, force_terminal=False, force_jupyter=False)
        standard = Standard.of(self.spec, self.metric)
        for table in results_tables(self.rows, standard, self.spec.report.bars)[1:2]:
            print_table(console, table)
        return f"<{self._title()}>\n{out.getvalue()}{self.verdict}"

    def _repr_html_(self) -> str:
        """Returns the tables for a notebook."""
        return results_html(self._title(), self._contents)

    def _title(self) -> str:
        done = f"{len(self.rows)} of {self._contents.planned} runs"
        return f"Results of {self.name}, {self.status}, {done}, in {self.path}"
