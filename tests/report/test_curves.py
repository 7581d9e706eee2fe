"""Training curves by level, and published points beside ours."""

import numpy as np
import pytest

from lth_jax.report.curves import curves_figure, mean_curve, run_curves_figure, shown_levels
from lth_jax.report.figures import accuracy_figure, branch_lines, early_stop_figure
from lth_jax.report.files import write_figures
from lth_jax.store import CurvePoint
from lth_jax.store.results import TRUNK

from .example_rows import example_rows

DENSITIES = {level: 0.8**level for level in range(20)}


def points(accuracies, replicate=0, every=100):
    return [
        CurvePoint(replicate, 0, every * index, 0.5, accuracy, 0.5)
        for index, accuracy in enumerate(accuracies)
    ]


# --- Which levels, and their means ----------------------------------------------------------


def test_the_levels_nearest_to_the_papers_are_shown():
    """Frankle & Carbin 2019, Figure 3: 100, 51.3, 21.1, 7.0, 3.6 and 1.9%."""
    assert shown_levels(DENSITIES) == [0, 3, 7, 12, 15, 18]


@pytest.mark.parametrize(
    ("densities", "levels"),
    [
        ({}, []),
        ({0: 1.0}, [0]),
        ({0: 1.0, 1: 0.5}, [0, 1]),
        ({0: 1.0, 1: 0.7}, [0, 1]),
        ({0: 1.0, 1: 0.0}, [0]),
        ({0: 1.0, 1: 0.05, 2: 0.02}, [0, 1, 2]),
        ({0: 1.0, 3: 0.5, 4: 0.51}, [0, 4]),
    ],
)
def test_levels_are_shown_once_and_only_where_there_are_some(densities, levels):
    assert shown_levels(densities) == levels


def test_a_mean_is_over_the_runs_that_have_the_step():
    curve = mean_curve([*points([0.2, 0.4, 0.9]), *points([0.4, 0.8], replicate=1)])
    assert curve.steps.tolist() == [0, 100, 200]
    np.testing.assert_allclose(curve.mean, [0.3, 0.6, 0.9])
    np.testing.assert_allclose(curve.low, [0.2, 0.4, 0.9])
    np.testing.assert_allclose(curve.high, [0.4, 0.8, 0.9])
    assert curve.runs == 2


# --- The figure of curves -------------------------------------------------------------------


def example_curves(branches=("reinit",)):
    curves = {
        (TRUNK, 0): points([0.1, 0.8, 0.9, 0.91]),
        (TRUNK, 3): points([0.1, 0.85, 0.93, 0.94]),
        (TRUNK, 7): points([0.1, 0.7, 0.9, 0.95]),
    }
    for name in branches:
        curves[name, 3] = points([0.1, 0.5, 0.6, 0.7])
    return curves


THREE = {0: 1.0, 3: 0.512, 7: 0.21}


def test_a_line_for_each_level_and_a_panel_for_each_branch():
    figure = curves_figure(example_curves(), THREE, branches=("reinit", "absent"), title="run")
    ticket, reinit = figure.axes
    assert [ax.get_title() for ax in (ticket, reinit)] == [TRUNK, "reinit"]
    assert [line.get_label() for line in ticket.get_lines()] == ["100%", "51.2%", "21.0%"]
    # The dense network belongs to each panel; a branch lacks level 7 here.
    assert [line.get_label() for line in reinit.get_lines()] == ["100%", "51.2%"]
    x, y = ticket.get_lines()[1].get_data()
    assert list(x) == [0, 100, 200, 300]
    np.testing.assert_allclose(y, [10, 85, 93, 94])
    np.testing.assert_allclose(reinit.get_lines()[1].get_ydata(), [10, 50, 60, 70])
    low, high = ticket.get_ylim()
    assert 60 < low < 80 < 95 < high


def test_at_most_five_branches_beside_the_ticket():
    names = ("a", "b", "c", "d", "e", "f")
    figure = curves_figure(example_curves(names), THREE, branches=names)
    assert [ax.get_title() for ax in figure.axes] == [TRUNK, *names[:5]]


def test_panels_that_are_not_needed_are_not_seen():
    names = ("reinit", "random_mask", "noise")
    figure = curves_figure(example_curves(names), THREE, branches=names)
    assert [ax.get_title() for ax in figure.axes if ax.get_visible()] == [TRUNK, *names]


def test_the_sparsest_level_is_shown_unless_one_of_almost_its_density_is():
    assert shown_levels({level: 0.8**level for level in range(11)}) == [0, 3, 7, 10]
    assert shown_levels({level: 0.8**level for level in range(9)}) == [0, 3, 7]


def test_several_runs_have_a_panel_and_a_legend_each():
    short = {(TRUNK, 0): points([0.1, 0.9], every=50)}
    runs = {"one": (example_curves(), THREE), "two": (short, {0: 1.0})}
    one, two = run_curves_figure(runs).axes
    assert [ax.get_title() for ax in (one, two)] == ["one", "two"]
    assert [text.get_text() for text in one.get_legend().get_texts()] == ["100%", "51.2%", "21.0%"]
    assert [text.get_text() for text in two.get_legend().get_texts()] == ["100%"]
    assert two.get_xlim()[1] < 100 < one.get_xlim()[1]


def test_the_dense_network_alone_is_drawn():
    figure = curves_figure({(TRUNK, 0): points([0.1, 0.9])}, {0: 1.0})
    assert len(figure.axes) == 1
    assert len(figure.axes[0].get_lines()) == 1


def test_the_figure_of_curves_is_written_beside_the_others(tmp_path):
    paths = write_figures({"curves": curves_figure(example_curves(), THREE)}, tmp_path)
    assert [path.name for path in paths] == ["curves.png", "curves.svg"]
    assert paths[-2].read_bytes().startswith(b"\x89PNG")


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
    left, right, *_ = accuracy_figure(
        branch_lines(example_rows(levels=4)), reference=REFERENCE
    ).axes
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
    (ax,) = early_stop_figure(branch_lines(example_rows(levels=4)), reference=REFERENCE).axes
    (line,) = reference_lines(ax).values()
    np.testing.assert_allclose(line.get_ydata(), [4600, 3400])


def test_published_points_are_in_the_legend_once():
    figure = accuracy_figure(branch_lines(example_rows(levels=20)), reference=REFERENCE)
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels.count("Frankle & Carbin 2019: ticket") == 1


def test_without_a_reference_nothing_is_drawn_of_one():
    figure = accuracy_figure(branch_lines(example_rows(levels=4)))
    assert not any("reference" in str(line.get_label()) for line in figure.axes[0].get_lines())


def test_a_reference_changes_none_of_our_points():
    rows = example_rows(levels=4)

    def ours(reference):
        ax = accuracy_figure(branch_lines(rows), reference=reference).axes[0]
        return [c.lines[0].get_xydata().tolist() for c in ax.containers]

    assert ours(REFERENCE) == ours({})
