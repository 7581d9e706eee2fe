"""The paired difference of ticket and control, and its interval."""

import math

import pytest

from lth_jax.analysis.paired import paired_differences
from lth_jax.store.tables import TRUNK

from .score_rows import score_row

METRIC = "early_stop_val_accuracy"


def rows(ticket, control, draws=1):
    found = [score_row(TRUNK, 1, replicate, value) for replicate, value in enumerate(ticket)]
    return found + [
        score_row("reinit", 1, index // draws, value, draw=index % draws)
        for index, value in enumerate(control)
    ]


def test_differences_are_taken_within_a_replicate_first():
    """Replicates far apart, differences alike: an unpaired error would be many times as large."""
    (pair,) = paired_differences(rows([0.9, 0.7, 0.5], [0.8, 0.61, 0.39]), METRIC)
    assert (pair.branch, pair.level) == ("reinit", 1)
    assert pair.density == pytest.approx(0.8)
    assert pair.differences == pytest.approx((0.1, 0.09, 0.11))
    assert pair.mean == pytest.approx(0.1)
    half = 4.302653 * 0.01 / math.sqrt(3)
    assert (pair.low, pair.high) == pytest.approx((0.1 - half, 0.1 + half))


def test_a_control_with_draws_enters_by_their_mean():
    (pair,) = paired_differences(rows([0.9, 0.8], [0.7, 0.9, 0.7, 0.7], draws=2), METRIC)
    assert pair.differences == pytest.approx((0.1, 0.1))


def test_only_replicates_that_both_have_are_compared():
    (pair,) = paired_differences(rows([0.9, 0.8], [0.7]), METRIC)
    assert pair.replicates == (0,)
    assert math.isnan(pair.low), "one difference has no interval"
    assert paired_differences(rows([], [0.7]), METRIC) == []
    assert paired_differences(rows([0.7], []), METRIC) == []


def test_what_is_not_finite_makes_no_number():
    (pair,) = paired_differences(rows([0.9, math.nan], [0.7, 0.7]), METRIC)
    assert math.isnan(pair.mean)
