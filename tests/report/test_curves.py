"""Training curves by level."""

import numpy as np
import pytest

from lth_jax.report.figures.curves import draw, shown_levels
from lth_jax.store import CurvePoint
from lth_jax.store.tables import TRUNK

from .example_rows import example_run, example_runs

DENSITIES = {level: 0.8**level for level in range(20)}


def points(accuracies, replicate=0, every=100):
    return [
        CurvePoint(replicate, 0, every * index, 0.5, accuracy, 0.5)
        for index, accuracy in enumerate(accuracies)
    ]


# --- Which levels ---------------------------------------------------------------------------


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


def curves_of(curves, densities, branches=()):
    return draw(example_runs(curves=curves, densities=densities, branches=branches))


def test_a_line_of_many_evaluations_is_a_running_mean_over_what_was_measured():
    noisy = [0.9 + 0.05 * (-1) ** index for index in range(200)]
    figure = curves_of({(TRUNK, 0): points(noisy)}, {0: 1.0})
    raw, smooth = figure.axes[0].get_lines()
    np.testing.assert_allclose(raw.get_ydata(), np.multiply(noisy, 100))
    assert smooth.get_label() == "100%"
    assert np.abs(smooth.get_ydata()[10:-10] - 90).max() < 0.25
    assert "running means over 21" in figure.caption
    assert "running means" not in curves_of(example_curves(), THREE).caption


def test_a_line_for_each_level_and_a_panel_for_each_branch():
    figure = curves_of(example_curves(), THREE, ("reinit", "absent"))
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
    figure = curves_of(example_curves(names), THREE, names)
    assert [ax.get_title() for ax in figure.axes] == [TRUNK, *names[:5]]


def test_panels_that_are_not_needed_are_not_seen():
    names = ("reinit", "random_mask", "noise")
    figure = curves_of(example_curves(names), THREE, names)
    assert [ax.get_title() for ax in figure.axes if ax.get_visible()] == [TRUNK, *names]


def test_the_sparsest_level_is_shown_unless_one_of_almost_its_density_is():
    assert shown_levels({level: 0.8**level for level in range(11)}) == [0, 3, 7, 10]
    assert shown_levels({level: 0.8**level for level in range(9)}) == [0, 3, 7]


def test_several_runs_have_a_panel_and_a_legend_each():
    short = {(TRUNK, 0): points([0.1, 0.9], every=50)}
    first = example_run(curves=example_curves(), densities=THREE)
    one, two = draw({"one": first, "two": example_run(curves=short, densities={0: 1.0})}).axes
    assert [ax.get_title() for ax in (one, two)] == ["one", "two"]
    assert [text.get_text() for text in one.get_legend().get_texts()] == ["100%", "51.2%", "21.0%"]
    assert [text.get_text() for text in two.get_legend().get_texts()] == ["100%"]
    assert two.get_xlim()[1] < 100 < one.get_xlim()[1]


def test_the_dense_network_alone_is_drawn():
    figure = curves_of({(TRUNK, 0): points([0.1, 0.9])}, {0: 1.0})
    assert len(figure.axes) == 1
    assert len(figure.axes[0].get_lines()) == 1
