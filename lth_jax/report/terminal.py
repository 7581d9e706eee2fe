"""What a person sees while an experiment runs, and at its end.

Progress goes to standard error and results to standard output, so that `python run.py > table.txt`
keeps the table alone and still shows how far it is. A terminal gets a live bar; anything else (a
file, a pipe, a dumb terminal) gets plain lines with the time of day.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from lth_jax.analysis.summary import percent, summarize
from lth_jax.analysis.verdict import verdict
from lth_jax.lottery.observer import ParameterRow
from lth_jax.report.table import ResultsTable, select
from lth_jax.store.results import ResultRow

SECONDS_BETWEEN_LINES = 10.0
SECONDS_OF_RATE = 60.0


def make_console(*, stderr: bool = False) -> Console:
    """A console on standard output or error that shows `?` for what its encoding cannot."""
    console = Console(stderr=stderr, highlight=False)
    reconfigure = getattr(console.file, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    return console


class TimeLeft:
    """The seconds an experiment will still take, from the rate of this session's last minute.

    The clock starts at the end of the first advance, which waited for the compilation; its steps
    count as done but not towards the rate. The rate is a recent one since levels differ in theirs.
    """

    def __init__(
        self, total_steps: int, done_steps: int, clock: Callable[[], float] = time.monotonic
    ):
        self._total = total_steps
        self._done = done_steps
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque()

    def advance(self, steps: int) -> None:
        """Take note that `steps` more run-steps were just done."""
        if not steps:
            return
        now = self._clock()
        self._done += steps
        self._samples.append((now, self._done))
        while len(self._samples) > 2 and self._samples[1][0] <= now - SECONDS_OF_RATE:
            self._samples.popleft()

    def skip(self, steps: int) -> None:
        """Take note of `steps` run-steps that an earlier session did."""
        self._done += steps
        self._samples = deque((when, done + steps) for when, done in self._samples)

    def seconds(self) -> float | None:
        """An estimate that counts down between advances; None until there is a rate."""
        if self._done >= self._total:
            return 0.0
        if len(self._samples) < 2:
            return None
        (start, before), (end, after) = self._samples[0], self._samples[-1]
        if end <= start or after <= before:
            return None
        needed = (self._total - self._done) * (end - start) / (after - before)
        return max(needed - (self._clock() - end), 0.0)

    def __str__(self) -> str:
        seconds = self.seconds()
        return "" if seconds is None else f"{duration(seconds)} left"


def duration(seconds: float) -> str:
    """Seconds for people: `0:07`, `2:31`, `1:02:03`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


class Terminal:
    """An `lth_jax.lottery.observer.Observer` that shows an experiment on a console.

    Also a context manager, which closes it: after Ctrl-C too, the bar is gone and the cursor back.

    Args:
      console: where to show it; standard error by default.
      clock: seconds from any origin; time in tests.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic):
        self._console = console or make_console(stderr=True)
        self._clock = clock
        self._live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._left = TimeLeft(0, 0, clock)
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._level_steps = 0
        self._level_done = 0
        self._density = 1.0
        self._latest = ""
        self._last_line = clock()
        self._heading_shown = False

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def experiment_started(
        self,
        *,
        name: str,
        identity: str,
        workdir: str,
        device: str,
        data: str,
        parameters: Sequence[ParameterRow],
        total_steps: int,
        done_steps: int,
    ) -> None:
        """Print the header: what is trained, on what, where, and its parameters."""
        self._left = TimeLeft(total_steps, done_steps, self._clock)
        self._print(Text.assemble((name, "bold"), f"  identity {identity}"))
        for key, value in {"device": device, "data": data, "workdir": workdir}.items():
            self._print(Text.assemble((f"  {key:<8}", "dim"), value))
        self._console.print(Padding(parameter_table(parameters), (0, 0, 0, 2)))
        if done_steps and done_steps < total_steps:
            self.note(f"{percent(done_steps / total_steps)} of the steps are done already")

    def level_started(self, level: int, density: float, runs: int, steps: int, done: int) -> None:
        """Begin a bar, or a line."""
        self._left.skip(done)
        self._level_steps, self._level_done = steps, done
        self._density, self._latest = density, ""
        if not self._live:
            self._log(f"{self._title(level)}: {runs} runs, {steps - done:,} steps to do")
            return
        if self._progress is None:
            self._progress = progress = self._new_progress()
            self._task = progress.add_task("", total=None, latest="")
            progress.start()
        else:
            progress = self._progress
        title = self._title(level)
        progress.reset(self._task, total=steps, completed=done, description=title, latest="")

    def advanced(
        self, level: int, steps: int, loss: float | None, val_accuracy: float | None
    ) -> None:
        """Move the bar; without one, print a line if the last is ten seconds old."""
        self._left.advance(steps)
        self._level_done += steps
        news = [] if loss is None else [f"loss {loss:.4f}"]
        if val_accuracy is not None:
            news.append(f"val {100 * val_accuracy:.2f}%")
        self._latest = "  ".join(news) or self._latest
        if self._progress is not None:
            self._progress.update(self._task, advance=steps, latest=self._latest)
        elif self._clock() - self._last_line >= SECONDS_BETWEEN_LINES:
            done = f"{self._level_done:,} of {self._level_steps:,} steps"
            parts = [self._title(level), done, self._latest, str(self._left)]
            self._log("  ".join(part for part in parts if part))

    def level_finished(self, level: int, rows: Sequence[ResultRow], seconds: float) -> None:
        """Print the level's mean test accuracies at early stop, one line that stays."""
        if not self._heading_shown:
            self._heading_shown = True
            self._log("level, weights left, time; mean test accuracy at early stop in %:")
        means = [
            f"  {summary.branch} {100 * summary.early_stop_test_accuracy.mean:.2f}"
            for summary in summarize(rows)
            if summary.level == level
        ]
        head = f"level {level:2}  {percent(self._density):>6}  {duration(seconds):>5}"
        self._log(head + "".join(means))

    def note(self, message: str) -> None:
        """Print one line."""
        self._log(message)

    def experiment_finished(self) -> None:
        """Remove the bar."""
        self.close()

    def close(self) -> None:
        """Remove the bar and give the cursor back; harmless when repeated."""
        progress, self._progress = self._progress, None
        if progress is not None:
            progress.stop()

    def _title(self, level: int) -> str:
        return f"level {level}, {percent(self._density)} of weights"

    def _log(self, message: str) -> None:
        self._last_line = self._clock()
        clock = "" if self._live else f"{time.strftime('%H:%M:%S')} "
        self._print(Text(f"{clock}{message}"))

    def _print(self, line: Text) -> None:
        """Print one line; only a terminal breaks it, and only where its edge is."""
        self._console.print(line, soft_wrap=True)

    def _new_progress(self) -> Progress:
        """A bar that vanishes when stopped, with the time left for the whole experiment.

        What others print to standard output stays there: it may be redirected to a file.
        """
        return Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%", markup=False),
            TextColumn("{task.fields[latest]}", markup=False),
            _TimeLeftColumn(self._left),
            console=self._console,
            transient=True,
            expand=True,
            redirect_stdout=False,
            refresh_per_second=4,
        )


class _TimeLeftColumn(ProgressColumn):
    """The time left for the whole experiment, counting down."""

    def __init__(self, left: TimeLeft):
        super().__init__()
        self._left = left

    def render(self, task: Task) -> Text:  # noqa: ARG002
        return Text(str(self._left), style="cyan")


def parameter_table(parameters: Sequence[ParameterRow]) -> Table:
    """One line for each leaf (name, shape, count, share pruned a level) and their sum."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, show_footer=True)
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
    rows: Iterable[ResultRow],
    branches: Sequence[str] | None,
    files: Sequence[tuple[str, Path | str]],
) -> None:
    """Print the table over levels, what was found, and where the files are.

    Args:
      console: standard output's, see `make_console`.
      rows: those of `results.csv`; branches that are not shown are left out of the verdict too.
      branches: the spec's controls in its order; None for all in `rows`.
      files: (what it is, where it is) of each.
    """
    rows = select(rows, branches)
    console.print(ResultsTable(rows, branches))
    console.print()
    console.print(Text(verdict(rows), style="bold"))
    console.print()
    print_files(console, files)


def print_files(console: Console, files: Sequence[tuple[str, Path | str]]) -> None:
    """Print where each file is, a line each, which nothing breaks."""
    for kind, path in files:
        console.print(Text.assemble((f"{kind:<8}", "dim"), str(path)), soft_wrap=True)
