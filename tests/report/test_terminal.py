import dataclasses
import io
import re

import pytest
from rich.console import Console

from lth_jax.config import from_config
from lth_jax.lottery.observer import ExperimentHeader, Observer, ParameterRow, PlannedLevel
from lth_jax.report.terminal import Terminal, duration, make_console, print_results
from lth_jax.store.tables import TRUNK

from .example_rows import example_rows

MNIST = from_config({"data": {"name": "mnist"}})

HEADER = ExperimentHeader(
    name="lenet_digits",
    identity="1a2b3c4d",
    workdir="runs/[odd] name",
    device="cpu",
    data="digits",
    parameters=[
        ParameterRow("fc1/kernel", (784, 300), 235_200, True, 0.2),
        ParameterRow("fc1/bias", (300,), 300, False, 0.0),
    ],
    levels=[PlannedLevel(level, 1000, 0, 1.0, 0) for level in range(3)],
)
SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def plain_console() -> Console:
    return Console(file=io.StringIO(), width=80)


def live_console() -> Console:
    return Console(file=io.StringIO(), width=100, force_terminal=True, _environ={"TERM": "xterm"})


def text(console: Console) -> str:
    """What was printed, without escape sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())


def watch(observer: Observer, clock: Clock, levels: int = 3, seconds: float = 1.0) -> None:
    """An experiment of ten advances a level, each taking `seconds`."""
    observer.experiment_started(HEADER)
    for level in range(levels):
        observer.level_started(level, 0.8**level, 9, 1000, 0)
        for index in range(10):
            clock.now += seconds
            observer.advanced(level, 100, None, None)
            observer.advanced(level, 0, 1 / (index + 1), 0.9 + index / 1000)
        rows = [row for row in example_rows() if row.level == level]
        observer.level_finished(level, rows, 10 * seconds)
    observer.experiment_finished()


def test_the_header_names_everything_that_identifies_the_experiment():
    console = plain_console()
    Terminal(console).experiment_started(HEADER)
    for part in ("lenet_digits", "1a2b3c4d", "runs/[odd] name", "cpu", "digits", "235,500"):
        assert part in text(console)
    assert re.search(r"fc1/kernel +784×300 +235,200 +20.0%", text(console))
    assert re.search(r"fc1/bias +300 +300 +–", text(console))


def test_plain_lines_are_few_and_levels_end_with_their_accuracies():
    console, clock = plain_console(), Clock()
    watch(Terminal(console, clock), clock, seconds=2.5)
    lines = [line for line in text(console).splitlines() if re.match(r"\d\d:\d\d:\d\d ", line)]
    within = [line for line in lines if "of 1,000 steps" in line]
    assert len(within) == 3 * 2  # 25 seconds a level
    assert "loss 0.3333  val 90.20%" in within[0]
    assert re.search(r"level  1   80.0%   0:25  ticket 97.\d\d  reinit 97.\d\d", text(console))
    assert "\x1b" not in console.file.getvalue()


def test_plain_lines_tell_the_time_left_of_the_whole_experiment():
    console, clock = plain_console(), Clock()
    watch(Terminal(console, clock), clock, seconds=10)
    line = next(line for line in text(console).splitlines() if "200 of 1,000" in line)
    assert line.endswith("4:40 left")  # 28 of 30 advances


def test_live_shows_loss_accuracy_and_density_of_the_level_and_the_time_left_of_the_whole():
    console, clock = live_console(), Clock()
    terminal = Terminal(console, clock)
    terminal.experiment_started(HEADER)
    terminal.level_started(2, 0.64, 9, 1000, 0)
    for _ in range(2):
        clock.now += 1
        terminal.advanced(2, 100, 0.25, 0.975)
    terminal._progress.refresh()
    level, whole = text(console).splitlines()[-2:]
    terminal.close()
    for part in ("level 2 of 2", "64.0%", "20%", "loss 0.2500", "val 97.50%"):
        assert part in level
    for part in ("in all", " 73%", "0:08 left"):
        assert part in whole


def test_live_leaves_level_lines_and_no_bar():
    console, clock = live_console(), Clock()
    watch(Terminal(console, clock), clock)
    assert re.search(r"level  2   64.0%   0:10  ticket 98.\d\d", text(console))
    assert console.file.getvalue().count(HIDE_CURSOR) == console.file.getvalue().count(SHOW_CURSOR)


def test_an_interruption_gives_the_cursor_back():
    console = live_console()
    terminal = Terminal(console)

    def interrupted() -> None:
        with terminal:
            terminal.experiment_started(HEADER)
            terminal.level_started(0, 1.0, 3, 1000, 0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    output = console.file.getvalue()
    assert output.rfind(SHOW_CURSOR) > output.rfind(HIDE_CURSOR) > 0
    terminal.close()  # harmless


def test_a_dumb_terminal_gets_plain_lines():
    console = Console(file=io.StringIO(), width=80, force_terminal=True, _environ={"TERM": "dumb"})
    clock = Clock()
    watch(Terminal(console, clock), clock)
    assert HIDE_CURSOR not in console.file.getvalue()


def test_a_terminal_is_an_observer_and_so_is_silence():
    clock = Clock()
    watch(Observer(), clock)
    with Terminal(plain_console()) as terminal:
        observer: Observer = terminal
        observer.note("resumed from step 3200 of level 4")
        assert "resumed from step 3200 of level 4" in text(terminal._console)


def test_a_compilation_is_told_while_it_lasts():
    console, clock = plain_console(), Clock()
    terminal = Terminal(console, clock)
    terminal.experiment_started(HEADER)
    terminal.level_started(0, 1.0, 9, 1000, 0)
    terminal.compiling(0)
    assert terminal._level.fields["latest"] == "compiling"
    clock.now += 30
    terminal.advanced(0, 1, None, None)
    assert terminal._level.fields["latest"] == ""
    assert "level 0: compiling" in text(console)
    for _ in range(2):
        clock.now += 10
        terminal.advanced(0, 100, None, None)
    assert text(console).splitlines()[-1].endswith("7% in all  4:40 left")


def test_paths_are_told_while_they_are_measured():
    console, clock = plain_console(), Clock()
    terminal = Terminal(console, clock)
    watch(terminal, clock)
    for number in range(1, 13):
        clock.now += 5
        terminal.measuring(number, 12)
        assert terminal._level.fields["latest"] == f"path {number} of 12 between networks"
    lines = [line for line in text(console).splitlines() if "between networks" in line]
    assert [line[9:] for line in lines] == [
        f"path {number} of 12 between networks" for number in (2, 4, 6, 8, 10, 12)
    ]


def test_a_level_that_goes_on_starts_where_it_stood():
    console, clock = plain_console(), Clock()
    terminal = Terminal(console, clock)
    terminal.experiment_started(HEADER)
    terminal.level_started(0, 1.0, 9, 1000, 600)
    for _ in range(3):
        clock.now += 10
        terminal.advanced(0, 100, None, None)
    assert "9 runs, 400 steps to do" in text(console)
    *_, line = text(console).splitlines()
    assert "900 of 1,000 steps" in line
    assert line.endswith("30% in all  3:30 left")  # 21 of 30 advances


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (6.7, "0:07"), (151, "2:31"), (3723, "1:02:03")]
)
def test_durations(seconds, shown):
    assert duration(seconds) == shown


def test_the_end_shows_the_table_the_verdict_and_the_files():
    console = plain_console()
    files = [("results", "runs/x/results.csv"), ("report", "runs/x/report.html")]
    print_results(console, MNIST, example_rows(("random_mask",)), files)
    words = " ".join(text(console).split())
    assert "matches the dense network (within 0.2 points)" in words
    assert "random_mask is below it from" in words
    assert all(path in text(console) for _, path in files)


def test_progress_goes_to_standard_error_and_results_to_standard_output(capsys):
    with Terminal() as terminal:
        terminal.note("progress")
    make_console().print(TRUNK)
    captured = capsys.readouterr()
    assert "progress" in captured.err
    assert captured.out == f"{TRUNK}\n"


def test_an_encoding_without_our_marks_is_no_error(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stream)
    print_results(make_console(), MNIST, example_rows(levels=2), [("results", "runs/x/r.csv")])
    stream.flush()
    assert b"runs/x/r.csv" in stream.buffer.getvalue()


def test_a_branch_all_of_whose_runs_diverged_has_no_mean_and_what_is_left_is_less():
    clock, console = Clock(), plain_console()
    terminal = Terminal(console, clock)
    terminal.experiment_started(HEADER)
    rows = [
        dataclasses.replace(row, diverged=100, early_stop_test_accuracy=float("nan"))
        for row in example_rows()
        if (row.branch, row.level) == (TRUNK, 0)
    ]
    terminal.level_started(0, 1.0, len(rows), 1000, 0)
    terminal.advanced(0, 1000, None, None)
    terminal.shortened(2000)
    terminal.level_finished(0, rows, 1.0)
    assert re.search(r"level  0 .* ticket diverged$", text(console), re.MULTILINE)
    assert terminal._whole.percentage == 100
    assert terminal._left.share_done() == 1.0
