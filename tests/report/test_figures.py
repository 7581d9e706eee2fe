import os
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from lth_jax.report.figures import accuracy_figure, branch_lines, early_stop_figure, run_lines
from lth_jax.report.files import write_figures
from lth_jax.report.paired import paired_figure
from lth_jax.store.results import TRUNK

from .example_rows import example_row, example_rows


def figures(rows):
    lines = branch_lines(rows)
    return {
        "accuracy": accuracy_figure(lines, title="run"),
        "early_stop": early_stop_figure(lines, title="run"),
    }


def line(ax, name):
    """The container that draws branch `name`: its x and y in the units of the axes."""
    container = next(c for c in ax.containers if c.get_label() == name)
    return container.lines[0].get_data(), container.lines[2][0].get_segments()


def test_the_files_are_there_and_equal_rows_give_equal_files(tmp_path):
    rows = example_rows(levels=4)
    first = write_figures(figures(rows), tmp_path / "a" / "figures")
    second = write_figures(figures(rows), tmp_path / "b")
    names = ["accuracy.png", "accuracy.svg", "early_stop.png", "early_stop.svg"]
    assert [path.name for path in first] == names
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == names  # nothing temporary
    assert first[0].read_bytes().startswith(b"\x89PNG")
    assert ET.fromstring(first[1].read_bytes()).tag.endswith("svg")


def test_files_have_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    path = write_figures(figures([example_row()]), tmp_path)[0]
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_failed_write_leaves_the_old_file_and_nothing_temporary(tmp_path, monkeypatch):
    paths = write_figures(figures(example_rows(levels=2)), tmp_path)
    before = [path.read_bytes() for path in paths]

    def full(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        write_figures(figures(example_rows(levels=3)), tmp_path)
    assert [path.read_bytes() for path in paths] == before
    assert len(list(tmp_path.iterdir())) == len(paths)


def test_points_are_means_and_bars_go_from_minimum_to_maximum():
    rows = [
        example_row(level=level, replicate=replicate, early_stop_test_accuracy=accuracy)
        for level in (0, 1)
        for replicate, accuracy in enumerate([0.96, 0.97, 0.99])
    ]
    (x, y), bars = line(accuracy_figure(branch_lines(rows)).axes[0], TRUNK)
    assert list(x) == pytest.approx([100, 80])
    assert list(y) == pytest.approx([97.333] * 2, abs=1e-3)
    assert bars[1].tolist() == [pytest.approx([80, 96]), pytest.approx([80, 99])]


def test_a_collapse_leaves_the_tall_axes_and_is_whole_in_the_flat_ones():
    rows = example_rows(("reinit", "zero"), levels=20)
    tall, _, flat, _ = accuracy_figure(branch_lines(rows)).axes
    lowest = min(line(tall, "zero")[0][1])
    ticket = line(tall, TRUNK)[0][1]
    assert flat.get_ylim()[0] < lowest < 50
    assert tall.get_ylim()[0] > 95
    assert tall.get_ylim()[1] > max(ticket)
    assert tall.get_ylim()[0] < ticket[0]


def test_one_range_where_nothing_collapses():
    assert len(accuracy_figure(branch_lines(example_rows(levels=4))).axes) == 2


def test_the_axis_falls_from_100_with_percents_that_do_not_collide():
    ax = early_stop_figure(branch_lines(example_rows(levels=24))).axes[0]
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert ax.get_xlim()[0] > 100 > ax.get_xlim()[1]
    assert labels == ["100", "41.0", "16.8", "6.9", "2.8", "1.2", "0.5"]


def test_branches_differ_in_colour_and_marker():
    rows = example_rows(("reinit", "random_mask", "late", "shuffle", "zero"), levels=2)
    drawn = [c.lines[0] for c in early_stop_figure(branch_lines(rows)).axes[0].containers]
    assert len({(artist.get_color(), artist.get_marker()) for artist in drawn}) == 6
    assert len({artist.get_marker() for artist in drawn}) == 6


@pytest.mark.parametrize(
    "rows",
    [
        [example_row()],
        [example_row(early_stop_test_accuracy=float("nan"))],
        [example_row("reinit", 3)],
        [example_row(), example_row(level=1, density=0.0)],
        [example_row(early_stop_test_accuracy=1.0, final_test_accuracy=1.0)],
        example_rows(levels=2)[:-1],
    ],
    ids=["dense", "nan", "no trunk", "nothing left", "perfect", "unfinished"],
)
def test_odd_rows_are_drawn(rows, tmp_path):
    assert len(write_figures(figures(rows), tmp_path)) == 4


def test_without_figures_nothing_is_written(tmp_path):
    assert write_figures({}, tmp_path / "figures") == []
    assert not (tmp_path / "figures").exists()


def test_drawing_leaves_matplotlib_as_it_was_and_imports_it_late(tmp_path):
    script = f"""
import sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
import lth_jax.report.files, lth_jax.report.terminal, lth_jax.report.live, lth_jax.cli.report
from lth_jax.report.figures import accuracy_figure, branch_lines
assert "matplotlib" not in sys.modules
import matplotlib
from .example_rows import example_rows
matplotlib.rcParams["font.size"] = 31
figure = accuracy_figure(branch_lines(example_rows(levels=1)))
lth_jax.report.files.write_figures({{"accuracy": figure}}, {str(tmp_path)!r})
assert "matplotlib.pyplot" not in sys.modules
assert matplotlib.rcParams["font.size"] == 31
assert matplotlib.rcParams["svg.hashsalt"] is None
"""
    environment = {k: v for k, v in os.environ.items() if k != "DISPLAY"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_several_runs_differ_in_colour_and_branches_in_dashes():
    lines = run_lines({"one": example_rows(("reinit",), 3), "two": example_rows(("reinit",), 3)})
    figure = accuracy_figure(lines)
    drawn = {c.get_label(): c.lines[0] for c in figure.axes[0].containers}
    assert set(drawn) == {"one: ticket", "one: reinit", "two: ticket", "two: reinit"}
    assert drawn["one: ticket"].get_color() == drawn["one: reinit"].get_color()
    assert drawn["one: ticket"].get_color() != drawn["two: ticket"].get_color()
    assert drawn["one: ticket"].get_marker() != drawn["two: ticket"].get_marker()
    assert drawn["one: reinit"].get_linestyle() == drawn["two: reinit"].get_linestyle() == "--"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["one", "two", "ticket", "reinit"]


def test_paired_differences_have_their_mean_and_standard_error():
    rows = [
        example_row(branch, 1, replicate, early_stop_test_accuracy=accuracy)
        for branch, accuracies in {TRUNK: [0.9, 0.7], "reinit": [0.8, 0.62]}.items()
        for replicate, accuracy in enumerate(accuracies)
    ]
    ax = paired_figure({"run": rows}).axes[0]
    (_, y), bars = line(ax, "ticket − reinit")
    assert list(y) == pytest.approx([9])
    assert bars[0][:, 1].tolist() == pytest.approx([8, 10])
    assert paired_figure({"run": example_rows((), 2)}) is None
