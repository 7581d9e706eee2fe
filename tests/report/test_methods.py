"""Methods ranked at each level: the table, the sentence, the figure, and what asks for them."""

import dataclasses
import io

import pytest

from lth_jax.config import from_config
from lth_jax.report.drawing import house_style, svg
from lth_jax.report.figures import FIGURES, methods
from lth_jax.report.methods import methods_said, methods_tables, spans_of
from lth_jax.report.page import write_report
from lth_jax.report.terminal import PlainConsole, print_results
from lth_jax.store import RunDirectory

from ..tiny import tiny_spec, train
from .example_rows import example_rows, example_run

BRANCHES = ("reinit", "random_mask", "late")
SPEC = from_config({
    "levels": 2, "branches": BRANCHES, "branch": {"late": {"kind": "reinit"}},
    "report": {"methods": True},
})  # fmt: skip
ROWS = [
    dataclasses.replace(row, operations=2e12)
    for row in example_rows(BRANCHES, levels=2, replicates=5)
]


def test_a_table_of_each_level_ranks_every_branch_and_tells_its_cost():
    tables = methods_tables(ROWS, SPEC)
    assert [table.title for table in tables] == [
        "Methods at 80.0% of the weights, level 1", "Methods at 64.0% of the weights, level 2",
    ]  # fmt: skip
    for level, table in enumerate(tables, start=1):
        assert {line[1].text for line in table.rows} == {"ticket", *BRANCHES}
        assert [line[0].text for line in table.rows] == ["1", "2", "3", "4"]
        assert all(len(line) == len(table.header) for line in table.rows)
        by_name = {line[1].text: line for line in table.rows}
        assert by_name["ticket"][6].text == f"{5000 * (level + 1):,}"
        assert by_name["ticket"][8].text == f"{2 * (level + 1):.2f}"
        assert by_name["random_mask"][6].text == "5,000"
        assert table.rows[0][4].text == ""
        assert all(float(line[4].text) >= 0 for line in table.rows[1:])


def test_who_asks_for_nothing_gets_no_table():
    assert methods_tables(ROWS, from_config({"branches": BRANCHES[:2]})) == []
    assert methods_said(ROWS, from_config({"branches": BRANCHES[:2]})) == ""


def test_a_branch_that_is_not_whole_is_named():
    rows = [row for row in ROWS if (row.branch, row.level, row.replicate) != ("late", 2, 3)]
    said = methods_said(rows, SPEC)
    assert "Left out at 64.0%, not every replicate is there: late." in said
    assert "Holm's correction over all pairs" in said


@pytest.mark.parametrize(
    ("ranks", "text"), [([], "–"), ([3], "3"), ([1, 2, 3, 5], "1–3, 5"), ([2, 4], "2, 4")]
)
def test_ranks_in_a_row_are_told_by_their_ends(ranks, text):
    assert spans_of(ranks) == text


def test_the_terminal_shows_them():
    out = io.StringIO()
    print_results(PlainConsole(file=out, width=160), SPEC, ROWS, [])
    for part in ("Methods at 64.0% of the weights", "differs from", "Holm's correction"):
        assert part in out.getvalue()


def test_the_figure_tells_every_pair_under_a_pointer():
    run = example_run(ROWS)
    run.spec = SPEC
    with house_style():
        figure = methods.draw({"run": run})
        assert "<svg" in svg(figure)
    texts = [text for note in figure.notes for text in note.texts]
    assert any(text.startswith("ticket − reinit: ") for text in texts)
    assert any(text.startswith("reinit − ticket: ") for text in texts)
    assert len(figure.axes) == 4
    assert FIGURES["methods"].draw({"run": example_run(ROWS)}) is None


@pytest.mark.slow
def test_a_report_of_a_real_run_has_them(tmp_path):
    spec = tiny_spec(levels=1, replicates=2, branches=("snip", "finetune"),
                     branch={"snip": {"kind": "prune", "criterion": "snip"}},
                     report__methods=True)  # fmt: skip
    train(tmp_path / "run", spec)
    store = RunDirectory.read(tmp_path / "run")
    assert all(row.operations > 0 for row in store.rows.values())
    assert write_report([store], tmp_path / "out") == []
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert 'id="figure-methods"' in page
    assert "10¹² operations" in page
