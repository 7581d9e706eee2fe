import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from lth_jax.analysis.summary import RANGE
from lth_jax.report.table import legend, print_results_tables, results_tables
from lth_jax.store.tables import TRUNK

from .example_rows import example_row, example_rows

FIVE = ("reinit", "random_mask", "late", "shuffle", "zero")


def marks(rows) -> str:
    """The marks of all cells."""
    return "".join(
        cell.mark for table in results_tables(rows) for row in table.rows for cell in row
    )


def printed(rows, width=80) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_results_tables(console, rows)
    return console.file.getvalue()


@pytest.mark.parametrize(("branches", "width"), [(FIVE[:2], 80), (FIVE, 80), (FIVE, 130)])
def test_nothing_is_cut_off_in_terminals_of_usual_widths(branches, width):
    text = printed(example_rows(branches), width=width)
    assert max(map(len, text.splitlines())) <= width
    table = text.split("Mean ±")[0]
    assert "…" not in table
    assert all(name in table for name in branches)


def test_levels_stand_in_lines_and_branches_side_by_side_where_they_fit():
    lines = printed(example_rows(levels=3)).splitlines()
    header = lines.index(next(line for line in lines if line.startswith("Test accuracy at early")))
    assert lines[header + 1].split() == ["level", "weights", TRUNK, "reinit", "random_mask"]
    assert [line.split()[:2] for line in lines[header + 3 : header + 7]] == [
        ["0", "100%"],
        ["1", "80.0%"],
        ["2", "64.0%"],
        ["3", "51.2%"],
    ]


def test_means_and_intervals_are_those_of_the_rows():
    accuracies = [0.9701, 0.9811, 0.9903]
    rows = [
        example_row(replicate=index, early_stop_test_accuracy=accuracy, early_stop_step=steps)
        for index, (accuracy, steps) in enumerate(zip(accuracies, (900, 1000, 1400), strict=True))
    ]
    text = printed(rows)
    assert "98.05 ± 2.51" in text
    assert "1,100 ± 657" in text
    spans = {cell.span for table in results_tables(rows, bars=RANGE) for row in table.rows
             for cell in row}  # fmt: skip
    assert {"97.01–99.03", "900–1,400"} <= spans
    assert "min–max" in legend(rows, bars=RANGE)


def test_a_step_that_may_be_later_is_a_lower_bound():
    rows = [example_row(early_stop_step=5000), example_row(replicate=1, early_stop_step=4000)]
    text = printed(rows)
    assert "≥ 4,500" in text
    assert "training ended before a network would stop" in " ".join(text.split())


def test_one_run_has_no_range():
    text = printed(example_rows(levels=2, replicates=1))
    assert "±" not in text


def test_equal_values_do_not_say_how_far_others_would_lie():
    rows = [
        example_row(replicate=index, early_stop_step=5000, early_stop_test_accuracy=accuracy)
        for index, accuracy in enumerate((0.97, 0.98, 0.99))
    ]
    step, accuracy, _ = (table.rows[0][2] for table in results_tables(rows))
    assert (step.text, step.span, accuracy.span) == ("≥ 5,000", "", "± 2.48")
    assert "Without ±, all replicates have that value." in legend(rows)
    differ = [
        example_row(
            replicate=index,
            early_stop_step=index,
            early_stop_test_accuracy=index / 10,
            final_test_accuracy=index / 10,
        )
        for index in range(2)
    ]
    assert "Without ±" not in legend(differ)


def test_the_column_that_is_judged_has_the_marks_and_unfinished_levels_have_none():
    rows = [
        example_row(level=level, replicate=replicate, early_stop_test_accuracy=accuracy + noise)
        for level, accuracies in enumerate([(0.9, 0.9), (0.9, 0.9), (0.8, 0.8), (0.8, 0.99)])
        for replicate, (accuracy, noise) in enumerate(zip(accuracies, (0, 1e-5), strict=True))
    ]
    assert marks(rows) == "✓✗·"
    assert {len(cell.mark) for row in results_tables(rows)[1].rows[1:] for cell in row[2:]} == {1}
    assert marks(rows[::2]) == "", "one replicate says nothing"
    # The dense network is the only whole level; three tables name the other unfinished.
    assert marks(rows[:3]) == "???"


def test_branches_are_columns_in_the_order_of_the_rows():
    for table in results_tables(example_rows(("zero", "late"), levels=2)):
        assert table.header == ["level", "weights", TRUNK, "zero", "late"]


def test_a_narrow_terminal_gets_the_branches_that_fit_and_the_others_below():
    lines = printed(example_rows(FIVE, levels=2), width=80).splitlines()
    heads = [line.split() for line in lines if line.startswith("level")]
    assert [name for head in heads for name in head[2:]] == [TRUNK, *FIVE] * 3
    assert all(head[:2] == ["level", "weights"] for head in heads)


def test_tables_are_rectangular():
    for table in results_tables(example_rows(FIVE, levels=4)):
        assert {len(row) for row in table.rows} == {len(table.header)} == {2 + 1 + len(FIVE)}


def test_a_value_that_is_not_finite_is_a_dash():
    end = results_tables([example_row(final_test_accuracy=float("nan"))])[-1]
    assert end.rows[0][-1].text == "–"


def test_no_rows():
    assert printed([]) == "No results yet.\n"


ROWS = st.lists(
    st.builds(
        example_row,
        branch=st.sampled_from([TRUNK, "reinit", "[red]", "a_branch_of_a_rather_long_name"]),
        level=st.integers(0, 40),
        replicate=st.integers(0, 4),
        draw=st.integers(0, 2),
        density=st.floats(0, 1),
        early_stop_step=st.integers(0, 10**9),
        early_stop_val_accuracy=st.floats(0, 1) | st.just(float("nan")),
        early_stop_test_accuracy=st.floats(0, 1) | st.just(float("nan")),
    ),
    max_size=12,
)


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(ROWS, st.integers(20, 200))
def test_any_rows_can_be_printed_at_any_width(rows, width):
    text = printed(rows, width=width)
    assert max(map(len, text.splitlines()), default=0) <= width
    assert all(row.branch in results_tables(rows)[0].header for row in rows)
