import math
import random
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lth_jax.analysis.summary import (
    Stat,
    branch_order,
    judge,
    lowest_matching_density,
    matching_threshold,
    mean_curve,
    percent,
    summarize,
)
from lth_jax.store import CurvePoint
from lth_jax.store.tables import TRUNK

from .score_rows import score_row, score_rows

ACCURACY = st.floats(0, 1)


def judged(rows):
    return judge(summarize(rows))


@given(st.lists(ACCURACY, min_size=2, max_size=9))
def test_stat_agrees_with_the_standard_library(values):
    stat = Stat.of(values)
    assert stat.minimum == min(values) <= stat.mean <= max(values) == stat.maximum
    assert stat.mean == pytest.approx(statistics.fmean(values), abs=1e-15)
    assert stat.std == pytest.approx(statistics.stdev(values), abs=1e-9)


@given(ACCURACY, st.integers(1, 60))
def test_equal_values_have_exactly_their_own_mean_and_no_deviation(value, count):
    assert Stat.of([value] * count) == Stat(value, value, value, 0.0)


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


def test_matching_is_the_dense_mean_minus_its_sample_deviation():
    dense = [0.90, 0.92, 0.94]  # mean 0.92, sample deviation 0.02
    rows = score_rows({TRUNK: [dense, [0.9001] * 3, [0.8999] * 3], "reinit": [[0.95] * 3]})
    assert matching_threshold(summarize(rows)) == pytest.approx(0.90)
    assert judged(rows) == {
        (TRUNK, 0): True,
        (TRUNK, 1): True,
        (TRUNK, 2): False,
        ("reinit", 1): True,
    }
    assert lowest_matching_density(rows) == 0.8
    assert lowest_matching_density(rows, "random_mask") is None


def test_one_replicate_has_no_deviation():
    rows = score_rows({TRUNK: [[0.9], [0.9], [0.8999]]})
    assert judged(rows) == {(TRUNK, 0): True, (TRUNK, 1): True, (TRUNK, 2): False}


def test_a_level_without_every_replicate_is_not_judged():
    rows = score_rows({TRUNK: [[0.9, 0.9, 0.9], [0.99, 0.99]], "reinit": [[0.1]]})
    assert judged(rows) == {(TRUNK, 0): True}
    assert [summary.whole for summary in summarize(rows)] == [True, False, False]


def test_a_dense_network_without_every_replicate_judges_nothing():
    rows = score_rows({TRUNK: [[0.9], [0.9, 0.9]]})
    assert judged(rows) == {}
    assert lowest_matching_density(rows) is None


def test_uneven_draws_are_not_judged():
    rows = score_rows({TRUNK: [[0.9, 0.9]], "reinit": [[0.9, 0.9]]})
    assert ("reinit", 1) in judged(rows)
    assert ("reinit", 1) not in judged([*rows, score_row("reinit", 1, 0, 0.9, draw=1)])


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
