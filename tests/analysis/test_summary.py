import dataclasses
import math
import random
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lth_jax.analysis.summary import (
    RANGE,
    Stat,
    branch_order,
    mean_curve,
    percent,
    running_mean,
    summarize,
)
from lth_jax.store import CurvePoint
from lth_jax.store.tables import TRUNK

from .score_rows import score_row, score_rows

ACCURACY = st.floats(0, 1)


@given(st.lists(ACCURACY, min_size=2, max_size=9))
def test_stat_agrees_with_the_standard_library(values):
    stat = Stat.of(values)
    assert stat.minimum == min(values) <= stat.mean <= max(values) == stat.maximum
    assert stat.mean == pytest.approx(statistics.fmean(values), abs=1e-15)
    assert stat.std == pytest.approx(statistics.stdev(values), abs=1e-9)


@given(ACCURACY, st.integers(1, 60))
def test_equal_values_have_exactly_their_own_mean_and_no_deviation(value, count):
    stat = Stat.of([value] * count)
    assert (stat.mean, stat.minimum, stat.maximum, stat.std) == (value, value, value, 0.0)
    assert stat.low == pytest.approx(value, nan_ok=True) or count == 1
    assert math.isnan(stat.low) == (count == 1)


def test_a_value_that_is_not_finite_leaves_no_statistics():
    assert all(map(math.isnan, [Stat.of([0.5, math.inf]).mean, Stat.of([math.nan, 1]).maximum]))


def test_a_control_is_averaged_over_draws_and_replicates():
    rows = [score_row(TRUNK, level, replicate, 0.9) for level in (0, 1) for replicate in (0, 1)]
    rows += [
        score_row("reinit", 1, replicate, 0.5 + 0.1 * replicate + 0.01 * draw, draw=draw)
        for replicate in (0, 1)
        for draw in (0, 1, 2)
    ]
    reinit = summarize(rows)[-1]
    assert (reinit.branch, reinit.runs, reinit.replicates, reinit.whole) == ("reinit", 6, 2, True)
    assert reinit.early_stop_val_accuracy.mean == pytest.approx(0.56)
    assert reinit.early_stop_val_accuracy.minimum == 0.5
    assert reinit.early_stop_val_accuracy.maximum == pytest.approx(0.62)
    half = 12.706205 * 0.05  # of two replicates' means, 0.51 and 0.61
    assert reinit.early_stop_val_accuracy.bar() == pytest.approx((0.56 - half, 0.56 + half))


def test_an_interval_is_of_the_mean_over_replicates_whatever_the_draws():
    """Draws of one replicate see the same batches: more of them are no more replicates."""
    values, replicates = [0.5, 0.52, 0.6, 0.62, 0.7, 0.72], [0, 0, 1, 1, 2, 2]
    stat = Stat.of(values, replicates)
    means = [0.51, 0.61, 0.71]
    half = 4.302653 * statistics.stdev(means) / math.sqrt(3)
    assert stat.bar() == pytest.approx((0.61 - half, 0.61 + half))
    assert stat.bar(RANGE) == (0.5, 0.72)


def test_a_run_that_diverged_is_counted_and_enters_no_mean():
    rows = score_rows({TRUNK: [[0.9, 0.92, 0.1]]})
    rows[2] = dataclasses.replace(rows[2], diverged=100, final_test_accuracy=math.nan)
    (summary,) = summarize(rows)
    assert (summary.runs, summary.diverged, summary.whole) == (3, 1, True)
    assert summary.early_stop_test_accuracy.mean == pytest.approx(0.91)
    assert summary.final_test_accuracy.mean == pytest.approx(0.91)


def test_a_level_is_whole_without_the_replicates_whose_tickets_ended():
    rows = score_rows({TRUNK: [[0.9, 0.9, 0.9], [0.9, 0.9]], "reinit": [[0.8, 0.8]]})
    assert [summary.whole for summary in summarize(rows)] == [True, False, False]
    rows[2] = dataclasses.replace(rows[2], diverged=5)
    assert [summary.whole for summary in summarize(rows)] == [True, True, True]


def test_an_early_stop_at_the_last_evaluation_is_censored():
    rows = score_rows({TRUNK: [[0.9, 0.9], [0.9, 0.9]]})
    rows[3] = dataclasses.replace(rows[3], early_stop_step=1000)
    assert [summary.censored for summary in summarize(rows)] == [False, True]
    late = [dataclasses.replace(row, last_step=1500, early_stop_step=1000) for row in rows]
    assert not any(summary.censored for summary in summarize(late))


@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_judgement(rng: random.Random):
    rows = score_rows({TRUNK: [[0.9, 0.91, 0.95], [0.9, 0.93, 0.9], [0.7, 0.8, 0.95]]})
    shuffled = list(rows)
    rng.shuffle(shuffled)
    assert summarize(shuffled) == summarize(rows)


def test_branches_come_as_they_appear_after_the_trunk():
    rows = score_rows({"zero": [[0.1]], TRUNK: [[0.9], [0.9]], "reinit": [[0.1]]})
    assert branch_order(rows) == [TRUNK, "zero", "reinit"]
    assert [(s.level, s.branch) for s in summarize(rows)] == [
        (0, TRUNK),
        (1, TRUNK),
        (1, "zero"),
        (1, "reinit"),
    ]


@pytest.mark.parametrize(
    ("density", "text"),
    [
        (1, "100%"),
        (0.99999, "99.9%"),
        (0.8, "80.0%"),
        (0.2114, "21.1%"),
        (0.0356, "3.6%"),
        (0.0052, "0.5%"),
        (0.00052, "0.052%"),
        (0.0000012, "0.00012%"),
        (0, "0%"),
    ],
)
def test_percent_reads_like_the_papers(density, text):
    assert percent(density) == text


@given(st.lists(ACCURACY, min_size=1, max_size=30), st.sampled_from([1, 3, 7]))
def test_a_running_mean_is_of_as_many_on_either_side(values, width):
    found = running_mean(np.array(values), width)
    for place, mean in enumerate(found):
        reach = min(width // 2, place, len(values) - 1 - place)
        assert mean == pytest.approx(statistics.fmean(values[place - reach : place + reach + 1]))
    line = np.arange(len(values), dtype=float)
    np.testing.assert_allclose(running_mean(line, width), line, atol=1e-9)


def test_a_mean_curve_is_over_the_runs_that_have_the_step():
    accuracies = {0: [0.2, 0.4, 0.9], 1: [0.4, 0.8]}
    curve = mean_curve(
        CurvePoint(replicate, 0, 100 * index, 0.5, accuracy, 0.5)
        for replicate, values in accuracies.items()
        for index, accuracy in enumerate(values)
    )
    assert curve.steps.tolist() == [0, 100, 200]
    np.testing.assert_allclose(curve.mean, [0.3, 0.6, 0.9])
    np.testing.assert_allclose(curve.low, [0.2, 0.4, 0.9])
    np.testing.assert_allclose(curve.high, [0.4, 0.8, 0.9])
    assert curve.runs == 2
