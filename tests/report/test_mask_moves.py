"""The figure of masks that move."""

import pytest

from lth_jax.report.contents import Contents
from lth_jax.report.drawing import house_style, svg
from lth_jax.report.figures.mask_moves import draw
from lth_jax.store import RunDirectory

from ..tiny import flip_byte, tiny_spec, train


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    path = tmp_path_factory.mktemp("moves") / "run"
    options = {name: {"every": "3"} for name in ("set", "gmp")}
    train(path, tiny_spec(branches=("static", "set", "gmp"), branch=options, levels=1))
    return path


@pytest.mark.slow
def test_branches_whose_masks_move_are_drawn_and_told(moved):
    with house_style():
        figure = draw({"run": Contents(RunDirectory.read(moved))})
        document = svg(figure)
    density, moves, ever = figure.axes
    lines = {line.get_label(): line.get_ydata() for line in density.get_lines()}
    assert set(lines) == {"set", "gmp"}
    assert lines["set"][0] == lines["set"][-1] == pytest.approx(lines["gmp"][-1])
    assert lines["gmp"][0] == 100
    assert all(line.get_ydata()[0] == 0 for line in moves.get_lines())
    assert max(line.get_ydata()[-1] for line in ever.get_lines()) == 100
    assert "gmp 72.1%, " in figure.caption
    assert "100% ever" in figure.caption
    assert "weights ever left" in document


def test_a_damaged_file_is_named_and_left_out(moved):
    store = RunDirectory.read(moved)
    file = moved / "metrics" / "set" / "masks_01.csv"
    before = file.read_bytes()
    flip_byte(file)
    contents = Contents(store)
    assert set(contents.masks_on_their_way) == {("gmp", 1)}
    assert any("set/masks_01.csv" in note for note in contents.notes)
    file.write_bytes(before)


def test_nothing_is_drawn_where_no_mask_moves(finished):
    assert draw({"run": Contents(RunDirectory.read(finished))}) is None
