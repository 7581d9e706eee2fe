"""results.csv: what is written is read, and rows have one order."""

import dataclasses
import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

from lth_jax.store.tables import RESULTS, ResultRow, RunId, sort_rows

FLOATS = st.floats(allow_nan=False)
NAMES = st.text("abcXYZ019_-+.", min_size=1)
STRATEGIES = {"str": NAMES, "int": st.integers(0, 2**40), "float": FLOATS}
ROWS = st.builds(
    ResultRow,
    **{field.name: STRATEGIES[str(field.type)] for field in dataclasses.fields(ResultRow)},
)


def row(**changes):
    values = {
        name: {"branch": "ticket", "kernel": "xla"}.get(name, 1 if kind == "int" else 0.5)
        for name, kind in ((f.name, str(f.type)) for f in dataclasses.fields(ResultRow))
    }
    return ResultRow(**(values | changes))


@given(st.lists(ROWS))
def test_what_is_written_is_read_to_the_bit(rows):
    text = RESULTS.to_csv(rows)
    assert RESULTS.from_csv(text) == rows
    assert RESULTS.to_csv(RESULTS.from_csv(text)) == text


def test_a_loss_that_is_not_a_number_comes_back():
    back = RESULTS.from_csv(
        RESULTS.to_csv([row(final_train_loss=math.nan, early_stop_val_loss=math.inf)])
    )[0]
    assert math.isnan(back.final_train_loss)
    assert math.isinf(back.early_stop_val_loss)


def test_the_columns_are_the_contract():
    assert RESULTS.columns == (
        "branch", "level", "replicate", "draw", "density", "kept", "prunable", "early_stop_step",
        "early_stop_val_loss", "early_stop_val_accuracy", "early_stop_test_accuracy",
        "final_val_accuracy", "final_test_accuracy", "final_train_loss", "steps", "train_seconds",
        "kernel",
    )  # fmt: skip


def test_the_text_is_a_header_and_a_line_for_each_row():
    text = RESULTS.to_csv([row(density=0.1, kept=3, train_seconds=1e-7)])
    assert text == (
        ",".join(RESULTS.columns) + "\nticket,1,1,1,0.1,3,1,1,0.5,0.5,0.5,0.5,0.5,0.5,1,1e-07,xla\n"
    )
    assert RESULTS.to_csv([]) == ",".join(RESULTS.columns) + "\n"


def test_columns_of_later_versions_are_passed_over_and_order_is_free():
    names = ["later", *reversed(RESULTS.columns)]
    values = dataclasses.asdict(row()) | {"later": "x"}
    text = "\n".join([",".join(names), ",".join(str(values[name]) for name in names)])
    assert RESULTS.from_csv(text) == [row()]


def test_results_from_before_there_were_kernels_are_xlas():
    text = RESULTS.to_csv([row()]).replace(",kernel", "").replace(",xla", "")
    assert RESULTS.from_csv(text) == [row(kernel="xla")]


@pytest.mark.parametrize("text", ["", "branch,level\nticket,0\n"])
def test_a_missing_column_is_named(text):
    with pytest.raises(ValueError, match=r"results\.csv lacks the columns .*kept"):
        RESULTS.from_csv(text)


@pytest.mark.parametrize(
    "change",
    [("0.5", "half"), ("ticket,1", "ticket,one"), (",1,0.5,xla\n", "\n"), (",xla\n", "\n")],
)
def test_a_damaged_line_is_named(change):
    lines = RESULTS.to_csv([row(), row()]).splitlines(keepends=True)
    lines[2] = lines[2].replace(*change)
    with pytest.raises(ValueError, match=r"results\.csv line 3: "):
        RESULTS.from_csv("".join(lines))


@given(st.permutations(range(24)), st.permutations(["reinit", "random_mask"]))
def test_rows_are_sorted_by_level_branch_of_the_spec_replicate_and_draw(order, branches):
    expected = [
        row(branch=branch, level=level, replicate=replicate, draw=draw)
        for level in (0, 10)
        for branch in ("ticket", *branches)
        for replicate in (2, 10)
        for draw in (0, 1)
    ]
    assert sort_rows([expected[index] for index in order], tuple(branches)) == expected


def test_branches_that_the_spec_forgot_come_last_by_name():
    rows = [row(branch=name) for name in ("z", "a", "reinit", "ticket")]
    assert [r.branch for r in sort_rows(rows, ("reinit",))] == ["ticket", "reinit", "a", "z"]


def test_a_run_is_said_in_words():
    assert str(RunId("reinit", 3, 0, 1)) == "reinit, level 3, replicate 0, draw 1"
    assert str(row(draw=0).run_id) == "ticket, level 1, replicate 1"


TEXT = RESULTS.to_csv([row(level=0), row(level=1), row(level=2)])


@pytest.mark.parametrize(
    ("text", "levels", "said"),
    [
        (TEXT, [0, 1, 2], []),
        (TEXT[:-1], [0, 1], ["results.csv line 4: it is cut short"]),  # a digit may be missing
        (TEXT[:-20], [0, 1], ["results.csv line 4: it is cut short"]),
        (TEXT.replace("ticket,1,", "ticket,?,"), [0, 2], ["results.csv line 3: invalid literal"]),
        (TEXT.replace("ticket,1,", "tick\ret,1,"), [0, 2], ["results.csv line 3: new-line"]),
        (TEXT.replace("ticket,1,", "ticket,1\n1,"), [0, 2], ["line 3: it is cut", "line 4: "]),
        (TEXT[20:], [], ["results.csv lacks the columns branch"]),
        ("", [], ["results.csv lacks the columns branch"]),
    ],
)
def test_of_a_damaged_file_every_whole_row_is_read_and_the_rest_named(text, levels, said):
    rows, problems = RESULTS.salvage(text)
    assert [r.level for r in rows] == levels
    assert len(problems) == len(said)
    assert all(part in problem for part, problem in zip(said, problems, strict=True))


@pytest.mark.parametrize("text", [TEXT[:-20], TEXT.replace("ticket,1,", "tick\ret,1,")])
def test_a_damaged_file_is_refused_in_one_line(text):
    with pytest.raises(ValueError, match=r"^results.csv line \d: [^\n]*$"):
        RESULTS.from_csv(text)
