"""results.csv: what is written is read, what was changed is found, and rows have one order."""

import dataclasses
import math
import re

import hypothesis.strategies as st
import pytest
from hypothesis import given

from lth_jax.store.tables import (
    CURVES,
    RESULTS,
    CurvePoint,
    MaskPoint,
    ResultRow,
    RunId,
    sort_rows,
    wrong_curve,
    wrong_masks,
)

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SHARES = st.floats(0, 1)
NAMES = st.text("abcXYZ019_-+.", min_size=1)
STRATEGIES = {"str": NAMES, "int": st.integers(0, 2**40), "float": FLOATS}


def row(**changes):
    values = {
        name: {"branch": "ticket", "kernel": "xla", "prunable": 2, "diverged": -1}.get(
            name, 1 if kind == "int" else 0.5
        )
        for name, kind in ((f.name, str(f.type)) for f in dataclasses.fields(ResultRow))
    }
    return ResultRow(**(values | changes))


@st.composite
def any_row(draw):
    """A row that can be true."""
    fields = {field.name: str(field.type) for field in dataclasses.fields(ResultRow)}
    values = {
        name: draw(SHARES if "accuracy" in name else STRATEGIES[kind])
        for name, kind in fields.items()
    }
    prunable = draw(st.integers(1, 2**40))
    kept = draw(st.integers(0, prunable))
    counts = {"kept": kept, "prunable": prunable, "density": kept / prunable}
    return ResultRow(
        **values
        | counts
        | {name: draw(st.floats(0, 1e9)) for name in ("train_seconds", "operations")}
    )


@given(st.lists(any_row(), unique_by=lambda row: row.run_id))
def test_what_is_written_is_read_to_the_bit(rows):
    text = RESULTS.to_csv(rows)
    assert RESULTS.from_csv(text) == rows
    assert RESULTS.to_csv(RESULTS.from_csv(text)) == text


def test_a_loss_that_is_not_a_number_comes_back():
    back = RESULTS.from_csv(
        RESULTS.to_csv(
            [row(final_train_loss=math.nan, early_stop_val_loss=math.inf, early_stop_step=-1)]
        )
    )[0]
    assert math.isnan(back.final_train_loss)
    assert math.isinf(back.early_stop_val_loss)


def test_the_columns_are_the_contract():
    assert RESULTS.columns == (
        "branch", "level", "replicate", "draw", "density", "kept", "prunable", "early_stop_step",
        "early_stop_val_loss", "early_stop_val_accuracy", "early_stop_test_accuracy",
        "final_val_accuracy", "final_test_accuracy", "final_train_loss", "steps", "train_seconds",
        "kernel", "diverged", "last_step", "operations",
    )  # fmt: skip


def test_the_text_is_a_header_and_a_line_for_each_row():
    text = RESULTS.to_csv([row(density=0.1, prunable=10, train_seconds=1e-7)])
    header = ",".join(RESULTS.columns) + ",checksum\n"
    assert text == (
        f"{header}ticket,1,1,1,0.1,1,10,1,0.5,0.5,0.5,0.5,0.5,0.5,1,1e-07,xla,-1,1,0.5,x214d4f05\n"
    )
    assert RESULTS.to_csv([]) == header


def test_columns_of_later_versions_are_passed_over_and_order_is_free():
    names = ["later", *reversed(RESULTS.columns)]
    values = dataclasses.asdict(row()) | {"later": "x"}
    text = ",".join(names) + "\n" + ",".join(str(values[name]) for name in names) + "\n"
    assert RESULTS.from_csv(text) == [row()]


def test_results_of_earlier_versions_lack_the_last_columns():
    """Their networks were computed by XLA, and no row was marked as diverged."""
    text = unsealed(RESULTS.to_csv([row()]))
    text = text.replace(",kernel,diverged,last_step,operations", "").replace(",xla,-1,1,0.5", "")
    assert RESULTS.from_csv(text) == [row(kernel="xla", diverged=-1, last_step=0, operations=0.0)]


def unsealed(text):
    """A table as earlier versions wrote it."""
    return "".join(line.rpartition(",")[0] + "\n" for line in text.splitlines())


@pytest.mark.parametrize("text", ["", "branch,level\nticket,0\n"])
def test_a_missing_column_is_named(text):
    with pytest.raises(ValueError, match=r"results\.csv lacks the columns .* and 1[0-9] more"):
        RESULTS.from_csv(text)


@pytest.mark.parametrize(
    "change",
    [("0.5", "half"), ("ticket,1", "ticket,one"), (",1,0.5,xla,-1,1\n", "\n"), (",-1,1\n", "\n")],
)
def test_a_damaged_line_is_named(change):
    text = unsealed(RESULTS.to_csv([row(), row(level=2)]))
    lines = text.replace("ticket,2", "ticket,1").splitlines(keepends=True)
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
        (TEXT[:-1], [0, 1, 2], []),  # its checksum tells that nothing is missing
        (unsealed(TEXT)[:-1], [0, 1], ["results.csv line 4: it is cut short"]),  # a digit, maybe
        (TEXT[:-20], [0, 1], ["results.csv line 4: it is cut short"]),
        (TEXT.replace("ticket,1,", "ticket,?,"), [0, 2], ["results.csv line 3: invalid literal"]),
        (TEXT.replace("ticket,1,", "tick\ret,1,"), [0, 2], ["results.csv line 3: new-line"]),
        (TEXT.replace("ticket,1,", "ticket,1\n1,"), [0, 2], ["line 3: it is cut", "line 4: "]),
        (TEXT.replace("ticket,1,", "ticket,3,"), [0, 2], ["line 3: its checksum is another one"]),
        (TEXT + TEXT.splitlines()[1] + "\n", [0, 1, 2], ["line 5: it is there twice, see line 2"]),
        (TEXT[20:], [0, 1, 2], ["results.csv lacks the columns branch"]),  # rows that are whole
        (unsealed(TEXT)[20:], [], ["results.csv lacks the columns branch"]),
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


def curve(runs=2, steps=(0, 5, 10)):
    return [
        CurvePoint(replicate, 0, step, 1 / (step + 1), step / 10, math.nan if step == 0 else 0.3)
        for replicate in range(runs)
        for step in steps
    ]


TABLES = [(RESULTS, [row(level=0), row(level=1, final_test_accuracy=0.1 + 0.2)]), (CURVES, curve())]


@pytest.mark.parametrize(("table", "rows"), TABLES)
def test_every_bit_that_flips_is_found_or_changes_nothing(table, rows):
    content = table.to_csv(rows).encode()
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        found, problems = table.salvage(damaged.decode("utf-8", "replace"))
        right = [repr(one) for one in rows]
        assert all(repr(one) in right for one in found), f"bit {bit} makes another row"
        assert problems or len(found) == len(rows), f"bit {bit} loses a row without a word"


@given(st.sampled_from(TABLES), st.data())
def test_what_a_spreadsheet_makes_of_it_is_the_same(which, data):
    table, rows = which
    text = table.to_csv(rows)
    if data.draw(st.booleans(), "it ends lines in its own way"):
        text = text.replace("\n", "\r\n")
    if data.draw(st.booleans(), "it puts a mark before"):
        text = "\ufeff" + text
    if data.draw(st.booleans(), "it writes numbers in its own way"):
        text = text.replace("0.5", "0.50").replace("nan", "NaN")
    if data.draw(st.booleans(), "a column follows"):
        text = re.sub(r"(\r?\n)", r",mine\1", text)
    if data.draw(st.booleans(), "an empty line follows"):
        text += "\n"
    assert [*map(repr, table.from_csv(text))] == [*map(repr, rows)]


def test_rows_may_be_sorted_taken_out_and_brought_together():
    header, *lines = RESULTS.to_csv([row(level=n) for n in range(4)]).splitlines(keepends=True)
    text = header + "".join([lines[3], lines[0], lines[2]])
    assert [r.level for r in RESULTS.from_csv(text)] == [3, 0, 2]


def test_an_evaluation_that_is_missing_in_between_is_found():
    lines = CURVES.to_csv(curve()).splitlines(keepends=True)
    for index in range(1, len(lines)):
        last = index in (3, 6)  # of a run, which the results tell
        problems = CURVES.salvage("".join(lines[:index] + lines[index + 1 :]))[1]
        assert bool(problems) != last


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"final_test_accuracy": 7.5}, "final_test_accuracy is 7.5; accepted: 0 to 1"),
        ({"final_val_accuracy": math.nan}, "final_val_accuracy is nan"),
        ({"early_stop_test_accuracy": math.nan}, "early_stop_test_accuracy is nan"),
        ({"early_stop_val_loss": math.inf}, "early_stop_val_loss is inf"),
        ({"kept": 3, "density": 1.5}, "kept is 3 of 2 prunable weights"),
        ({"density": 0.25}, "density is 0.25, and 1 of 2 weights are kept"),
        ({"level": -1}, "level, replicate or draw is negative"),
        ({"train_seconds": math.nan}, "train_seconds is nan"),
    ],
)
def test_what_cannot_be_true_is_named_whatever_its_checksum_says(changes, said):
    for text in (RESULTS.to_csv([row(**changes)]), unsealed(RESULTS.to_csv([row(**changes)]))):
        with pytest.raises(ValueError, match=re.escape(f"results.csv line 2: {said}")):
            RESULTS.from_csv(text)


def test_a_network_that_diverged_may_lack_what_it_could_not_have():
    nothing = dict.fromkeys(
        ("early_stop_val_loss", "early_stop_val_accuracy", "early_stop_test_accuracy"), math.nan
    )
    text = RESULTS.to_csv([row(**nothing, early_stop_step=-1, diverged=0)])
    assert RESULTS.from_csv(text)[0].diverged == 0


def test_a_curve_bears_out_the_results():
    stops = {
        "early_stop_step": 10,
        "early_stop_val_loss": 1 / 11,
        "early_stop_val_accuracy": 1.0,
        "final_val_accuracy": 1.0,
        "final_train_loss": 0.3,
        "draw": 0,
    }
    rows = [row(**stops, replicate=n) for n in (0, 1)]
    assert wrong_curve(curve(), rows) == ""
    assert wrong_curve(curve(runs=1), rows) == "it lacks ticket, level 1, replicate 1"
    assert wrong_curve([], rows) == "it lacks ticket, level 1, replicate 0"
    for points in (curve(steps=(0, 5)), curve(steps=(0, 10, 15))):
        assert "it is not the curve of ticket, level 1" in wrong_curve(points, rows)


def test_masks_that_moved_end_where_the_results_say():
    rows = [row(replicate=n, kept=6, prunable=10, draw=0) for n in (0, 1)]
    moves = [
        MaskPoint(n, 0, step, kept, 0, 0, 10, 10) for n in (0, 1) for step, kept in ((0, 9), (5, 6))
    ]
    assert wrong_masks(moves, rows) == ""
    assert wrong_masks(moves[:2], rows) == "it lacks ticket, level 1, replicate 1"
    assert "does not end with the mask of ticket, level 1, replicate 1" in wrong_masks(
        moves[:3], rows
    )
