"""What a person sees while an experiment runs, and at its end.

Progress goes to standard error and results to standard output, so that `python run.py > table.txt`
keeps the table alone and still shows how far it is. A terminal gets a live bar; anything else (a
file, a pipe, a dumb terminal) gets plain lines with the time of day.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, Progress, Task, TextColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from lth_jax.analysis.summary import percent, summarize
from lth_jax.analysis.verdicts import Standard
from lth_jax.config import Spec
from lth_jax.lottery.observer import ExperimentHeader, Observer, ParameterRow
from lth_jax.report.claims import print_claims
from lth_jax.report.stability import stability_said
from lth_jax.report.table import new_table, print_results_tables, print_table
from lth_jax.report.time_left import TimeLeft
from lth_jax.report.verdict import verdict
from lth_jax.store.tables import PathPoint, ResultRow
from lth_jax.system.signals import undone_if_ended
from lth_jax.system.streams import printable, quiet
from lth_jax.training.metrics import ACCURACY, Metric

SECONDS_BETWEEN_LINES = 10.0


class PlainConsole(Console):
    """A console on which a text is text: it is no markup, and a terminal obeys nothing in it."""

    def __init__(self, **options: Any):
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yields the segments of what is printed; those with text are made printable."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else printable(segment.text)
            yield segment if text == segment.text else segment._replace(text=text)

    def on_broken_pipe(self) -> NoReturn:
        """Raises the error, on which Rich would end the process: commands have a status for it."""
        raise


def make_console(*, stderr: bool = False) -> Console:
    """Returns a console on standard output or error that shows `?` for what its encoding cannot.

    That on standard error never fails: what it shows is worth no experiment.
    """
    console = PlainConsole(file=quiet(sys.stderr) if stderr else sys.stdout)
    reconfigure = getattr(console.file, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    return console


def duration(seconds: float) -> str:
    """Writes seconds for people: `0:07`, `2:31`, `1:02:03`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


class Terminal(Observer):
    """Shows an experiment on a console.

    Also a context manager, which closes it: after Ctrl-C too, the bar is gone and the cursor back.

    Args:
      console: where to show it; standard error by default.
      clock: seconds from any origin; time in tests.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic):
        self._console = console or make_console(stderr=True)
        self._clock = clock
        self._live = self._console.is_terminal and not self._console.is_dumb_terminal
        # A line for the level and one for the whole. It vanishes when stopped. What others print to
        # standard output stays there: it may be redirected to a file.
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%", markup=False),
            TextColumn("{task.fields[latest]}", markup=False),
            console=self._console,
            disable=not self._live,
            transient=True,
            expand=True,
            redirect_stdout=False,
            refresh_per_second=4,
            get_time=clock,
        )
        self._level = self._add_task("level")
        self._whole = self._add_task("in all")
        self._left = TimeLeft((), clock())
        self._last_level = 0
        self._density, self._metric = 1.0, ACCURACY
        self._last_line = clock()
        self._heading_shown = False
        self._shown = ExitStack()

    def _add_task(self, description: str) -> Task:
        name = self._progress.add_task(description, total=1.0, latest="")
        return next(task for task in self._progress.tasks if task.id == name)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def experiment_started(self, header: ExperimentHeader) -> None:
        """Prints the header: what is trained, on what, where, and its parameters."""
        self._left = TimeLeft(header.levels, self._clock())
        self._last_level = max((one.level for one in header.levels), default=0)
        self._metric = header.metric
        self._print(Text.assemble((header.name, "bold"), f"  identity {header.identity}"))
        for key in ("device", "data", "workdir"):
            self._print(Text.assemble((f"  {key:<8}", "dim"), getattr(header, key)))
        self._console.print(Padding(parameter_table(header.parameters), (0, 0, 0, 2)))
        total = sum(one.steps for one in header.levels)
        done = sum(one.done for one in header.levels)
        if 0 < done < total:
            self.note(f"{percent(done / total)} of the steps are done already")

    def level_started(self, level: int, density: float, runs: int, steps: int, done: int) -> None:
        """Begins a bar, or prints a line."""
        self._left.level_started(level, done, self._clock())
        self._density = density
        title = f"level {level} of {self._last_level}, {percent(density)} of weights"
        self._progress.reset(
            self._level.id, total=steps, completed=done, description=title, latest=""
        )
        self._show_whole()
        if self._live:
            self._shown.enter_context(undone_if_ended(self._remove_bar))
            self._progress.start()
        else:
            self._log(f"{title}: {runs} runs, {steps - done:,} steps to do")

    def compiling(self, level: int) -> None:
        """Says so, until there is other news."""
        self._left.compiling(self._clock())
        self._progress.update(self._level.id, latest="compiling")
        if not self._live:
            self._log(f"level {level}: compiling")

    def advanced(
        self, level: int, steps: int, loss: float | None, val_accuracy: float | None
    ) -> None:
        """Moves the bar; without one, prints a line if the last is ten seconds old."""
        del level
        if steps:
            self._left.advanced(steps, self._clock())
            self._progress.update(self._level.id, advance=steps)
            self._show_whole()
        news = [] if loss is None else [f"loss {loss:.4f}"]
        if val_accuracy is not None:
            news.append(f"val {self._metric.text(val_accuracy)}")
        if news or self._level.fields["latest"] == "compiling":
            self._progress.update(self._level.id, latest="  ".join(news))
        if not self._live and self._clock() - self._last_line >= SECONDS_BETWEEN_LINES:
            task = self._level
            done = f"{task.completed:,.0f} of {task.total:,.0f} steps"
            whole = f"{self._whole.percentage:.0f}% in all"
            parts = [task.description, done, task.fields["latest"], whole, self.time_left()]
            self._log("  ".join(part for part in parts if part))

    def time_left(self) -> str:
        """Returns such as `4:40 left`, of the whole experiment; empty until there is some news."""
        seconds = self._left.seconds()
        return "" if seconds is None else f"{duration(seconds)} left"

    def _show_whole(self) -> None:
        done, left = self._left.share_done(), self.time_left()
        self._progress.update(self._whole.id, completed=done, latest=left)

    def level_finished(self, level: int, rows: Sequence[ResultRow], seconds: float) -> None:
        """Prints the level's mean test accuracies at early stop, one line that stays."""
        self._left.level_ended()
        self._show_whole()
        if not self._heading_shown:
            self._heading_shown = True
            unit = f" in {self._metric.unit}" if self._metric.unit else ""
            name = self._metric.name
            self._log(f"level, weights left, time; mean test {name} at early stop{unit}:")
        means = []
        for summary in summarize(rows):
            if summary.level == level:
                mean = self._metric.number(summary.early_stop_test_accuracy.mean)
                means.append(
                    f"  {summary.branch} {'diverged' if summary.diverged == summary.runs else mean}"
                )
        head = f"level {level:2}  {percent(self._density):>6}  {duration(seconds):>5}"
        self._log(head + "".join(means))

    def measuring(self, path: int, paths: int) -> None:
        """Says so in the bar; without one, in a line if the last is ten seconds old."""
        latest = f"path {path:,} of {paths:,} between networks"
        self._progress.update(self._level.id, latest=latest)
        if not self._live and self._clock() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._log(latest)

    def shortened(self, steps: int) -> None:
        """Takes them off what is left."""
        self._left.shortened(steps)
        self._show_whole()

    def note(self, message: str) -> None:
        """Prints one line."""
        self._log(message)

    def experiment_finished(self) -> None:
        """Removes the bar."""
        self.close()

    def close(self) -> None:
        """Removes the bar and gives the cursor back; harmless when repeated."""
        if self._live:
            self._progress.stop()
        self._shown.close()

    def _remove_bar(self) -> None:
        """Does what `close` does, in a hurry and whoever holds Rich's locks."""
        self._console.file.write("\r\x1b[2K\x1b[1A\x1b[2K\x1b[?25h")  # both of its lines
        self._console.file.flush()

    def _log(self, message: str) -> None:
        self._last_line = self._clock()
        clock = "" if self._live else f"{time.strftime('%H:%M:%S')} "
        self._print(Text(f"{clock}{message}"))

    def _print(self, line: Text) -> None:
        """Prints one line; only a terminal breaks it, and only where its edge is."""
        self._console.print(line, soft_wrap=True)


def parameter_table(parameters: Sequence[ParameterRow]) -> Table:
    """Returns a line for each leaf (name, shape, count, share pruned a level) and their sum."""
    table = new_table(show_footer=True)
    prunable = sum(row.count for row in parameters if row.prunable)
    table.add_column("parameter", footer="total")
    table.add_column("shape", footer=f"prunable {prunable:,}")
    table.add_column("count", justify="right", footer=f"{sum(r.count for r in parameters):,}")
    table.add_column("pruned a level", justify="right")
    for row in parameters:
        shape = "×".join(map(str, row.shape)) or "scalar"
        rate = percent(row.rate) if row.prunable else "–"
        table.add_row(Text(row.name), shape, f"{row.count:,}", rate)
    return table


def print_results(
    console: Console,
    spec: Spec,
    rows: Sequence[ResultRow],
    files: Sequence[tuple[str, Path | str]],
    metric: Metric = ACCURACY,
    paths: Sequence[PathPoint] = (),
) -> None:
    """Prints the table over levels, what was found, and where the files are.

    Args:
      console: standard output's, see `make_console`.
      spec: says how they are judged and shown.
      rows: those of `results.csv` to tell of.
      files: (what it is, where it is) of each.
      metric: what networks are measured by.
      paths: those of `paths.csv`.
    """
    standard = Standard.of(spec, metric)
    print_results_tables(console, rows, standard, spec.report.bars)
    console.print()
    console.print(Text(verdict(rows, standard), style="bold"))
    if said := stability_said(paths, standard.confidence):
        console.print(Text(said, style="bold"))
    console.print()
    if spec.report.methods:
        _print_methods(console, spec, rows, metric)
    print_claims(console, rows, spec, metric)
    print_files(console, files)


def _print_methods(console: Console, spec: Spec, rows: Sequence[ResultRow], metric: Metric) -> None:
    from lth_jax.report.methods import methods_said, methods_tables  # which imports JAX

    for table in methods_tables(rows, spec, metric):
        print_table(console, table)
    if said := methods_said(rows, spec, metric):
        console.print(Text(said, style="dim"))
        console.print()


def print_files(console: Console, files: Sequence[tuple[str, Path | str]]) -> None:
    """Prints where each file is, a line each, which nothing breaks."""
    for kind, path in files:
        console.print(Text.assemble((f"{kind:<8}", "dim"), str(path)), soft_wrap=True)
