"""What a person sees while an experiment runs, and at its end.

Progress goes to standard error and results to standard output, so that `python run.py > table.txt`
keeps the table alone and still shows how far it is. A terminal gets a live bar; anything else (a
file, a pipe, a dumb terminal) gets plain lines with the time of day.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from lth_jax.analysis.summary import percent, summarize
from lth_jax.lottery.observer import ExperimentHeader, Observer, ParameterRow
from lth_jax.report.metric import ACCURACY
from lth_jax.report.table import new_table, print_results_tables
from lth_jax.report.verdict import verdict
from lth_jax.store.tables import ResultRow

SECONDS_BETWEEN_LINES = 10.0
SECONDS_OF_RATE = 120.0


def make_console(*, stderr: bool = False) -> Console:
    """Returns a console on standard output or error that shows `?` for what its encoding cannot."""
    console = Console(stderr=stderr, highlight=False)
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
        left = _TimeLeftColumn()
        # Where there is no bar, it still knows the time left. It vanishes when stopped. What
        # others print to standard output stays there: it may be redirected to a file.
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%", markup=False),
            TextColumn("{task.fields[latest]}", markup=False),
            left,
            console=self._console,
            disable=not self._live,
            transient=True,
            expand=True,
            redirect_stdout=False,
            refresh_per_second=4,
            speed_estimate_period=SECONDS_OF_RATE,
            get_time=clock,
        )
        self._whole = left.whole = self._add_task(visible=False)
        self._level = self._add_task(visible=True)
        self._density = 1.0
        self._last_line = clock()
        self._heading_shown = False

    def _add_task(self, *, visible: bool) -> Task:
        name = self._progress.add_task("", total=None, visible=visible, latest="")
        return next(task for task in self._progress.tasks if task.id == name)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def experiment_started(self, header: ExperimentHeader) -> None:
        """Prints the header: what is trained, on what, where, and its parameters."""
        self._progress.reset(self._whole.id, total=header.total_steps, completed=header.done_steps)
        self._print(Text.assemble((header.name, "bold"), f"  identity {header.identity}"))
        for key in ("device", "data", "workdir"):
            self._print(Text.assemble((f"  {key:<8}", "dim"), getattr(header, key)))
        self._console.print(Padding(parameter_table(header.parameters), (0, 0, 0, 2)))
        if 0 < header.done_steps < header.total_steps:
            done = percent(header.done_steps / header.total_steps)
            self.note(f"{done} of the steps are done already")

    def level_started(self, level: int, density: float, runs: int, steps: int, done: int) -> None:
        """Begins a bar, or prints a line."""
        # Not by `update`: what an earlier session did says nothing of how fast this one is.
        self._whole.completed += done
        self._density = density
        title = f"level {level}, {percent(density)} of weights"
        self._progress.reset(
            self._level.id, total=steps, completed=done, description=title, latest=""
        )
        if self._live:
            self._progress.start()
        else:
            self._log(f"{title}: {runs} runs, {steps - done:,} steps to do")

    def advanced(
        self, level: int, steps: int, loss: float | None, val_accuracy: float | None
    ) -> None:
        """Moves the bar; without one, prints a line if the last is ten seconds old."""
        del level
        if steps:
            self._progress.update(self._whole.id, advance=steps)
            self._progress.update(self._level.id, advance=steps)
        news = [] if loss is None else [f"loss {loss:.4f}"]
        if val_accuracy is not None:
            news.append(f"val {ACCURACY.text(val_accuracy)}")
        if news:
            self._progress.update(self._level.id, latest="  ".join(news))
        if not self._live and self._clock() - self._last_line >= SECONDS_BETWEEN_LINES:
            task = self._level
            done = f"{task.completed:,.0f} of {task.total:,.0f} steps"
            parts = [task.description, done, task.fields["latest"], time_left(self._whole)]
            self._log("  ".join(part for part in parts if part))

    def level_finished(self, level: int, rows: Sequence[ResultRow], seconds: float) -> None:
        """Prints the level's mean test accuracies at early stop, one line that stays."""
        if not self._heading_shown:
            self._heading_shown = True
            self._log(
                "level, weights left, time; "
                f"mean test {ACCURACY.name} at early stop in {ACCURACY.unit}:"
            )
        means = [
            f"  {summary.branch} {ACCURACY.number(summary.early_stop_test_accuracy.mean)}"
            for summary in summarize(rows)
            if summary.level == level
        ]
        head = f"level {level:2}  {percent(self._density):>6}  {duration(seconds):>5}"
        self._log(head + "".join(means))

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

    def _log(self, message: str) -> None:
        self._last_line = self._clock()
        clock = "" if self._live else f"{time.strftime('%H:%M:%S')} "
        self._print(Text(f"{clock}{message}"))

    def _print(self, line: Text) -> None:
        """Prints one line; only a terminal breaks it, and only where its edge is."""
        self._console.print(line, soft_wrap=True)


class _TimeLeftColumn(ProgressColumn):
    """The time left for the whole experiment, whatever the bar is of."""

    whole: Task

    def render(self, task: Task) -> Text:  # noqa: ARG002
        return Text(time_left(self.whole), style="cyan")


def time_left(whole: Task) -> str:
    """Returns such as `4:40 left`, by the rate of the last two minutes; empty until there is one.

    Rich leaves the first advance out of the rate: it waited for the compilation. The rate is a
    recent one since levels differ in theirs.
    """
    seconds = whole.time_remaining
    return "" if seconds is None else f"{duration(seconds)} left"


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
    console: Console, rows: Sequence[ResultRow], files: Sequence[tuple[str, Path | str]]
) -> None:
    """Prints the table over levels, what was found, and where the files are.

    Args:
      console: standard output's, see `make_console`.
      rows: those of `results.csv` to tell of.
      files: (what it is, where it is) of each.
    """
    print_results_tables(console, rows)
    console.print()
    console.print(Text(verdict(rows), style="bold"))
    console.print()
    print_files(console, files)


def print_files(console: Console, files: Sequence[tuple[str, Path | str]]) -> None:
    """Prints where each file is, a line each, which nothing breaks."""
    for kind, path in files:
        console.print(Text.assemble((f"{kind:<8}", "dim"), str(path)), soft_wrap=True)
