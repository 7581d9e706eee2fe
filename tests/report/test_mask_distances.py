"""The figure of mask distances, and what early birds save."""

import pytest

from lth_jax.analysis.early_birds import savings
from lth_jax.report.contents import Contents
from lth_jax.report.drawing import house_style, svg
from lth_jax.report.figures.mask_distances import draw
from lth_jax.store import RunDirectory

from ..tiny import finished_run, tiny_spec


@pytest.fixture(scope="module")
def drawn():
    options = {"early_bird": {"distance": 0.9, "window": 1}}
    return finished_run(tiny_spec(branches=("early_bird",), branch=options, levels=1))


def test_distances_are_drawn_and_what_is_saved_is_said(drawn):
    contents = Contents(RunDirectory.read(drawn))
    (saved,) = savings(contents.rows, contents.spec)
    # Epochs end at 5 and 10 before the last step, 12: the first distance there is small enough.
    assert (saved.branch, saved.level, saved.step) == ("early_bird", 1, 10.0)
    assert saved.share == pytest.approx(2 / 12)
    dense = [row.train_seconds for row in contents.rows if row.level == 0]
    assert saved.seconds == pytest.approx(sum(dense) / 2 * 2 / 12)
    with house_style():
        figure = draw({"run": contents})
        document = svg(figure)
    (ax,) = figure.axes
    (line,) = [line for line in ax.get_lines() if line.get_label() == "level 1"]
    assert line.get_xdata().tolist() == [10]
    assert "early_bird of level 1 was drawn at step 10: 16.7%" in figure.caption
    assert "mask distance" in document


def test_nothing_is_drawn_where_no_masks_were_watched(finished):
    assert draw({"run": Contents(RunDirectory.read(finished))}) is None
