"""The figures of results: accuracy, early stop and paired differences, and how they are files."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.markers import CARETUPBASE

from lth_jax.report.drawing import STYLES, Figure, house_style, label_text, legend_entries, png, svg
from lth_jax.report.figures import FIGURES, Row, accuracy, early_stop, paired_difference
from lth_jax.report.figures import render_figures as render
from lth_jax.store.tables import TRUNK

from .example_rows import example_row, example_rows, example_run, example_runs


def accuracy_of(rows, **options):
    return accuracy.draw(example_runs(rows, **options))


def early_stop_of(rows, **options):
    return early_stop.draw(example_runs(rows, **options))


def line(ax, name):
    """The container that draws branch `name`: its x and y in the units of the axes."""
    container = next(c for c in ax.containers if c.get_label() == name)
    return container.lines[0].get_data(), container.lines[2][0].get_segments()


def test_equal_rows_give_equal_files():
    def files(rows):
        with house_style():
            figure = accuracy_of(rows)
            return svg(figure), png(figure)

    first, second = files(example_rows(levels=4)), files(example_rows(levels=4))
    assert first == second
    assert first[1].startswith(b"\x89PNG")
    assert ET.fromstring(first[0]).tag.endswith("svg")


@pytest.mark.parametrize(
    ("bars", "low", "high"), [("interval", 93.539, 101.128), ("range", 96, 99)]
)
def test_points_are_means_and_bars_what_was_asked_for(bars, low, high):
    rows = [
        example_row(level=level, replicate=replicate, early_stop_test_accuracy=accuracy)
        for level in (0, 1)
        for replicate, accuracy in enumerate([0.96, 0.97, 0.99])
    ]
    (x, y), drawn = line(accuracy_of(rows, bars=bars).axes[0], TRUNK)
    assert list(x) == pytest.approx([100, 80])
    assert list(y) == pytest.approx([97.333] * 2, abs=1e-3)
    ends = [pytest.approx([80, low], abs=1e-3), pytest.approx([80, high], abs=1e-3)]
    assert drawn[1].tolist() == ends


def test_one_replicate_has_no_bar():
    (_, y), bars = line(accuracy_of([example_row(), example_row(level=1)]).axes[0], TRUNK)
    assert [bar[0, 1] for bar in bars] == [bar[1, 1] for bar in bars] == list(y)


def test_the_axis_of_steps_ends_where_training_does():
    rows = [example_row(replicate=n, early_stop_step=at) for n, at in enumerate((500, 5000, 5000))]
    (ax,) = early_stop_of(rows).axes
    assert line(ax, TRUNK)[1][0][1][1] > 9000
    assert 5000 < ax.get_ylim()[1] < 5500
    untrained = [example_row(early_stop_step=0, steps=0)]
    assert early_stop_of(untrained).axes[0].get_ylim()[1] > 0


def test_an_early_stop_that_may_be_later_has_an_arrow():
    rows = [example_row(early_stop_step=5000), example_row(level=1, early_stop_step=4000)]
    (arrows,) = [a for a in early_stop_of(rows).axes[0].get_lines() if a.get_marker() == CARETUPBASE
                 and len(a.get_xdata())]  # fmt: skip
    assert list(arrows.get_ydata()) == [5000]


def test_a_collapse_leaves_the_tall_axes_and_is_whole_in_the_flat_ones():
    rows = example_rows(("reinit", "zero"), levels=20)
    tall, _, flat, _ = accuracy_of(rows).axes
    lowest = min(line(tall, "zero")[0][1])
    ticket = line(tall, TRUNK)[0][1]
    assert flat.get_ylim()[0] < lowest < 50
    assert tall.get_ylim()[0] > 95
    assert tall.get_ylim()[1] > max(ticket)
    assert tall.get_ylim()[0] < ticket[0]


def test_one_range_where_nothing_collapses():
    assert len(accuracy_of(example_rows(levels=4)).axes) == 2


def test_the_axis_falls_from_100_with_percents_that_do_not_collide():
    ax = early_stop_of(example_rows(levels=24)).axes[0]
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert ax.get_xlim()[0] > 100 > ax.get_xlim()[1]
    assert labels == ["100", "41.0", "16.8", "6.9", "2.8", "1.2", "0.5"]


def test_branches_differ_in_colour_and_marker():
    rows = example_rows(("reinit", "random_mask", "late", "shuffle", "zero"), levels=2)
    drawn = [c.lines[0] for c in early_stop_of(rows).axes[0].containers]
    assert len({(artist.get_color(), artist.get_marker()) for artist in drawn}) == 6
    assert len({artist.get_marker() for artist in drawn}) == 6


def test_as_many_lines_as_there_are_styles_are_told_apart():
    """Ten methods in one figure wrapped around seven styles."""
    assert len({style.marker for style in STYLES}) == len(STYLES) >= 11


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
def test_odd_rows_are_drawn(rows):
    with house_style():
        for figure in (accuracy_of(rows), early_stop_of(rows)):
            assert svg(figure)
            assert png(figure)


def test_nothing_is_drawn_of_nothing():
    assert accuracy_of([]) is early_stop_of([]) is None


@pytest.mark.slow
def test_drawing_leaves_matplotlib_as_it_was_and_imports_it_late():
    script = """
import sys
import lth_jax.report.page, lth_jax.report.terminal, lth_jax.report.live, lth_jax.cli.report
assert "matplotlib" not in sys.modules
import matplotlib
from lth_jax.report.figures import render_figures
from tests.report.example_rows import example_rows, example_runs
matplotlib.rcParams["font.size"] = 31
notes = []
figures = render_figures(example_runs(example_rows(levels=1)), notes, files=False)
assert [figure.name for figure in figures[:2]] == ["accuracy", "early_stop"], notes
assert "matplotlib.pyplot" not in sys.modules
assert matplotlib.rcParams["font.size"] == 31
assert matplotlib.rcParams["svg.hashsalt"] is None
"""
    environment = {k: v for k, v in os.environ.items() if k != "DISPLAY"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_row_of_the_registry_is_all_that_a_new_figure_needs(monkeypatch):
    seen = []
    monkeypatch.setitem(FIGURES, "mine", Row("Mine", seen.append, overlays=True))
    monkeypatch.setitem(FIGURES, "masks", Row("Masks", seen.append, masks=True))
    both = {"one": example_run(), "two": example_run()}
    render(example_runs(), [], files=False)
    render(both, [])
    assert [list(runs) for runs in seen] == [["run"], ["one", "two"]]


def test_several_runs_differ_in_colour_and_branches_in_dashes():
    rows = example_rows(("reinit",), 3)
    figure = accuracy.draw({"one": example_run(rows), "two": example_run(rows)})
    drawn = {c.get_label(): c.lines[0] for c in figure.axes[0].containers}
    assert set(drawn) == {"one: ticket", "one: reinit", "two: ticket", "two: reinit"}
    assert drawn["one: ticket"].get_color() == drawn["one: reinit"].get_color()
    assert drawn["one: ticket"].get_color() != drawn["two: ticket"].get_color()
    assert drawn["one: ticket"].get_marker() != drawn["two: ticket"].get_marker()
    assert drawn["one: reinit"].get_linestyle() == drawn["two: reinit"].get_linestyle() == "--"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["one", "two", "ticket", "reinit"]


def test_paired_differences_have_their_mean_and_interval():
    rows = [
        example_row(branch, 1, replicate, early_stop_test_accuracy=accuracy)
        for branch, accuracies in {TRUNK: [0.9, 0.7], "reinit": [0.8, 0.62]}.items()
        for replicate, accuracy in enumerate(accuracies)
    ]
    ax = paired_difference.draw(example_runs(rows)).axes[0]
    (_, y), bars = line(ax, "ticket − reinit")
    assert list(y) == pytest.approx([9])
    assert bars[0][:, 1].tolist() == pytest.approx([9 - 12.706, 9 + 12.706], abs=1e-3)
    assert paired_difference.draw(example_runs(example_rows((), 2))) is None


# --- Reference points -----------------------------------------------------------------------

REFERENCE = {
    "title": "Frankle & Carbin 2019",
    "ticket.early_stop_test_accuracy": ((1.0, 0.979), (0.169, 0.984)),
    "random_mask.early_stop_test_accuracy": ((0.169, 0.9755),),
    "ticket.early_stop_step": ((1.0, 4600), (0.169, 3400)),
}


def reference_lines(ax):
    return {
        line.get_label(): line
        for line in ax.get_lines()
        if str(line.get_label()).startswith("Frankle")
    }


def test_published_points_are_drawn_on_the_axes_of_their_metric():
    left, right, *_ = accuracy_of(example_rows(levels=4), reference=REFERENCE).axes
    lines = reference_lines(left)
    assert set(lines) == {
        "Frankle & Carbin 2019: ticket", "Frankle & Carbin 2019: random_mask"
    }  # fmt: skip
    x, y = lines["Frankle & Carbin 2019: ticket"].get_data()
    np.testing.assert_allclose(x, [100, 16.9])
    np.testing.assert_allclose(y, [97.9, 98.4])
    assert len({(line.get_marker(), line.get_linestyle()) for line in lines.values()}) == 2
    assert not reference_lines(right), "the paper has no points for the end of training"


def test_published_steps_are_drawn_unscaled():
    (ax,) = early_stop_of(example_rows(levels=4), reference=REFERENCE).axes
    (line,) = reference_lines(ax).values()
    np.testing.assert_allclose(line.get_ydata(), [4600, 3400])


def test_published_points_are_in_the_legend_once():
    figure = accuracy_of(example_rows(levels=20), reference=REFERENCE)
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels.count("Frankle & Carbin 2019: ticket") == 1


def test_without_a_reference_nothing_is_drawn_of_one():
    figure = accuracy_of(example_rows(levels=4))
    assert not any("reference" in str(line.get_label()) for line in figure.axes[0].get_lines())


def test_a_reference_changes_none_of_our_points():
    rows = example_rows(levels=4)

    def ours(reference):
        ax = accuracy_of(rows, reference=reference).axes[0]
        return [c.lines[0].get_xydata().tolist() for c in ax.containers]

    assert ours(REFERENCE) == ours({})


def test_any_letters_are_text_and_nothing_else():
    """Neither a formula, nor markup, nor a warning of a font that lacks them."""
    with house_style():
        figure = Figure("$x$ <b> \x1b 大", (4.0, 3.0), "")
        ax = figure.subplots()
        ax.plot([0, 1], label=label_text("_of $y_$\x07"))
        ax.set_yticks([0, 1], ["$z$", label_text("\u202e$")])
        figure.add_legend(legend_entries(ax))
        document = svg(figure)
        assert png(figure)
    texts = {element.text for element in ET.fromstring(document).iter()}
    assert {"$x$ <b> ␛ 大", " _of $y_$␇", "$z$", "�$"} <= texts
