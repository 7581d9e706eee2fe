"""The figure of the loss's curvature."""

import pytest

from lth_jax.report.contents import Contents
from lth_jax.report.drawing import house_style, svg
from lth_jax.report.figures.curvature import draw
from lth_jax.store import RunDirectory
from lth_jax.store.tables import CURVATURE

from ..tiny import finished_run, flip_byte, tiny_spec


@pytest.fixture
def measured(tmp_path):
    steps = ("0", "3", "12")
    spec = tiny_spec(curvature__steps=steps, curvature__iterations=3, branches=("reinit",))
    return finished_run(spec, tmp_path / "run")


@pytest.mark.slow
def test_tickets_and_the_last_level_s_branches_are_drawn(measured):
    store = RunDirectory.read(measured)
    with house_style():
        figure = draw({"run": Contents(store)})
        document = svg(figure)
    (ax,) = figure.axes
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert set(lines) == {"ticket 100%", "ticket 72.1%", "ticket 52.4%", "reinit"}
    assert lines["reinit"].get_xdata().tolist() == [0, 3, 12]
    of = [p.eigenvalue for p in store.points(CURVATURE, "reinit", 2) if p.step == 12]
    assert lines["reinit"].get_ydata()[-1] == pytest.approx(sum(of) / 2)
    assert "of 100 training examples, by 3 products" in figure.caption
    assert "largest eigenvalue" in document
    assert "mathdefault" not in document, "a tick is labelled by a formula"


def test_a_damaged_table_is_named_and_left_out(measured):
    flip_byte(measured / CURVATURE.file("ticket", 1))
    contents = Contents(RunDirectory.read(measured))
    assert ("ticket", 1) not in contents.curvature
    assert any("ticket/curvature_01.csv" in note for note in contents.notes)


def test_nothing_is_drawn_where_nothing_was_measured(finished):
    assert draw({"run": Contents(RunDirectory.read(finished))}) is None
