"""Published results beside ours: by hand."""

import math

import numpy as np
import pytest

from lth_jax.analysis.references import CUT_SHORT, NOT_RUN, Within, compare, reproduced
from lth_jax.store.tables import TRUNK

from .score_rows import score_row

ACCURACY = "ticket.early_stop_test_accuracy"


def rows_of(accuracies, steps=None, **changes):
    """Rows of (branch, level) -> a value for each replicate."""
    return [
        score_row(
            branch, level, replicate, value, **changes
            | ({"early_stop_step": steps[branch, level][replicate]} if steps else {})
        )
        for (branch, level), values in accuracies.items()
        for replicate, value in enumerate(values)
    ]  # fmt: skip


def claim(kind, at, value, **more):
    return {"claims": ({"says": "it is so", "kind": kind, "at": at, "value": value, **more},)}


def only(rows, reference):
    (one,) = compare(rows, reference)
    return one


LEVELS = {(TRUNK, 0): [0.9, 0.91], (TRUNK, 1): [0.92, 0.94], ("reinit", 1): [0.89, 0.90]}
# Student's two-sided 95% quantile of one degree of freedom.
T1 = 12.7062


def test_a_point_is_held_against_the_mean_at_its_density():
    one = only(rows_of(LEVELS), {ACCURACY: ((0.79, 0.935, 0.001),)})
    assert (one.density, one.note) == (0.8, "")
    assert one.ours == pytest.approx(0.93)
    assert one.difference == pytest.approx(-0.005)
    half = T1 * 0.01 * math.sqrt(2) / math.sqrt(2)
    assert (one.low, one.high) == pytest.approx((0.93 - half, 0.93 + half), abs=1e-6)
    assert one.within is Within.YES


@pytest.mark.parametrize(
    ("value", "uncertainty", "within"),
    [(0.934, 0, "yes"), (0.9346, 0, "no"), (0.9346, 0.0002, "yes"), (0.92, 0.005, "no")],
)
def test_within_is_a_point_in_common(value, uncertainty, within):
    """Of eleven replicates, whose interval is 0.93 ± 0.0045."""
    rows = rows_of({(TRUNK, 0): [0.9] * 11, (TRUNK, 1): [0.915] + [0.93] * 9 + [0.945]})
    one = only(rows, {ACCURACY: ((0.8, value, uncertainty),)})
    assert one.low == pytest.approx(0.93 - 2.22814 * math.sqrt(2 * 0.015**2 / 10 / 11), abs=1e-7)
    assert one.within is Within(within)


def test_one_replicate_is_a_point_without_an_interval():
    rows = rows_of({(TRUNK, 0): [0.9], (TRUNK, 1): [0.93]})
    assert only(rows, {ACCURACY: ((0.8, 0.931, 0.002),)}).within is Within.YES
    assert only(rows, {ACCURACY: ((0.8, 0.931, 0.0005),)}).within is Within.NO
    bound = claim("gain", (0.8, 0.5), 0.031, relation="over")
    assert only(rows, bound).within is Within.NO
    bound["claims"][0]["uncertainty"] = 0.002
    assert only(rows, bound).within is Within.YES
    assert math.isnan(only(rows, {ACCURACY: ((0.8, 0.931),)}).low)


@pytest.mark.parametrize("density", [0.5, 0.89, 0.72])
def test_what_is_near_no_level_was_not_run(density):
    one = only(rows_of(LEVELS), {ACCURACY: ((density, 0.9),)})
    assert (one.note, one.within) == (NOT_RUN, None)


def test_what_not_every_replicate_has_was_not_run():
    rows = rows_of(LEVELS)
    assert only(rows[:-1], claim("gain", 0.8, 0.0, branch="reinit")).note == NOT_RUN
    assert only(rows, claim("gain", 0.8, 0.0, against="random_mask")).note == NOT_RUN


def test_a_gain_is_a_paired_difference():
    rows = rows_of(LEVELS)
    assert only(rows, claim("gain", 0.8, 0.025)).ours == pytest.approx(0.025)
    assert only(rows, claim("gain", 0.8, 0.03, against="reinit")).ours == pytest.approx(0.035)
    half = T1 * 0.005
    assert only(rows, claim("gain", 0.8, 0.025)).high == pytest.approx(0.025 + half, abs=1e-6)


STEPS = {(TRUNK, 0): [400, 400], (TRUNK, 1): [100, 400], ("reinit", 1): [800, 200]}


def test_factors_of_steps_are_averaged_as_factors():
    """Four times as fast and as fast: twice as fast."""
    rows = rows_of(LEVELS, STEPS)
    assert only(rows, claim("times", 0.8, 2)).ours == pytest.approx(2)
    assert only(rows, claim("sooner", 0.8, 0.5)).ours == pytest.approx(0.5)
    assert only(rows, claim("times", 0.8, 2, against="reinit")).ours == pytest.approx(2)
    same = rows_of(LEVELS, {key: [200, 200] for key in STEPS})
    assert only(same, claim("sooner", 0.8, 0.01, uncertainty=0.01)).within is Within.YES


def test_a_network_whose_training_ended_too_soon_is_not_compared():
    rows = rows_of(LEVELS, STEPS, last_step=800)
    assert only(rows, claim("times", 0.8, 2)).within is not None
    one = only(rows, claim("times", 0.8, 2, against="reinit"))
    assert (one.note, one.within) == (CUT_SHORT, None)
    column = {"reinit.early_stop_step": ((0.8, 500),)}
    assert only(rows, column).note == CUT_SHORT


def test_a_range_is_as_good_as_its_worst_level():
    values = {(TRUNK, 0): [0.9, 0.9, 0.9], (TRUNK, 1): [0.92, 0.921, 0.922]}
    values[TRUNK, 2] = [0.908, 0.909, 0.91]
    values[TRUNK, 3] = [0.88, 0.881, 0.882]
    rows = rows_of(values)

    def over(at, value=0.0):
        return only(rows, claim("gain", at, value, relation="over"))

    good = over((0.8, 0.64))
    assert (good.density, good.within) == (pytest.approx(0.64), Within.YES)
    bad = over((0.95, 0.5))
    assert (bad.density, bad.within) == (pytest.approx(0.512), Within.NO)
    assert over((0.8, 0.64), 0.014).within is Within.NO
    # A level is of a range but for rounding: 51.2% is not of one down to 55%.
    assert over((0.95, 0.55)).within is Within.YES
    assert over((0.95, 0.515)).within is Within.NO


def test_a_bound_that_lies_in_the_interval_is_neither_shown_nor_denied():
    """Gains of 0.009 ± 0.0025 and 0.021 ± 0.0025 (t = 4.303, s = 0.001, three replicates)."""
    values = {(TRUNK, 0): [0.9, 0.9, 0.9], (TRUNK, 1): [0.92, 0.921, 0.922]}
    values[TRUNK, 2] = [0.908, 0.909, 0.91]
    rows = rows_of(values)
    for value, uncertainty, within in (
        (0.006, 0.0, "yes"), (0.008, 0.0, "open"), (0.011, 0.0, "open"), (0.008, 0.002, "yes"),
    ):  # fmt: skip
        at = claim("gain", 0.64, value, uncertainty=uncertainty, relation="over")
        assert only(rows, at).within is Within(within), value
    # An open level counts for less than a smaller gain that is shown.
    steady = rows_of({**values, (TRUNK, 1): [0.89, 0.92, 0.95]})
    one = only(steady, claim("gain", (0.8, 0.64), 0.0, relation="over"))
    assert (one.density, one.within) == (pytest.approx(0.8), Within.OPEN)


@pytest.mark.parametrize(
    ("kind", "value", "within"),
    [("gain", 0.02, "open"), ("gain", 0.0, "yes"), ("sooner", 0.4, "open"), ("times", 1.5, "open"),
     ("times", 1.02, "yes")],
)  # fmt: skip
def test_an_effect_is_open_where_none_is_as_likely(kind, value, within):
    """Two replicates, whose intervals hold nearly everything, no effect among it."""
    steps = {(TRUNK, 0): [400, 500], (TRUNK, 1): [200, 450], ("reinit", 1): [800, 200]}
    one = only(rows_of(LEVELS, steps), claim(kind, 0.8, value, uncertainty=0.03 * value))
    assert one.within is Within(within)
    # Of an accuracy nothing is denied but other accuracies.
    point = only(rows_of(LEVELS, steps), {ACCURACY: ((0.8, 0.93),)})
    assert point.within is Within.YES


def test_a_claim_of_many_levels_that_is_true_is_seldom_denied():
    """Denied level by level, one true claim of ten levels would be in a fifth of experiments."""
    drawn, levels, experiments = np.random.default_rng(0), range(1, 11), 150
    denied = 0
    for _ in range(experiments):
        noise = drawn.normal(0, 0.01, (len(levels), 3))
        values = {(TRUNK, level): list(0.9 + noise[level - 1]) for level in levels}
        rows = rows_of({(TRUNK, 0): [0.9] * 3, **values})
        one = only(rows, claim("gain", (0.9, 0.1), 0.0, relation="over"))
        denied += one.within is Within.NO
    assert 0 < denied <= 0.05 * experiments


def test_where_a_branch_falls_is_where_every_sparser_level_is_below():
    dense = [0.9, 0.9, 0.9]
    shifts = [0.01, -0.0005, 0.0005, -0.0005, -0.01]
    values = {(TRUNK, 0): dense} | {
        (TRUNK, level): [0.9 + shift + noise for noise in (-0.001, 0, 0.001)]
        for level, shift in enumerate(shifts, start=1)
    }
    one = only(rows_of(values), claim("falls", 0.4, 0.4))
    assert one.ours == pytest.approx(0.8**4)
    assert (one.low, one.high) == pytest.approx((0.8**5, 0.8**2))
    assert one.within is Within.YES
    assert only(rows_of(values), claim("falls", 0.9, 0.9)).within is Within.NO
    assert only(rows_of(values), claim("falls", 0.1, 0.1)).note == NOT_RUN
    never = {key: [0.9, 0.91, 0.92] if key[1] else [0.8, 0.8, 0.8] for key in values}
    nowhere = only(rows_of(never), claim("falls", 0.4, 0.4))
    assert (nowhere.ours, nowhere.within) == (0.0, Within.NO)


def test_what_could_not_be_compared_is_not_counted():
    reference = {ACCURACY: ((0.8, 0.93), (0.8, 0.1), (0.1, 0.9))}
    assert reproduced(compare(rows_of(LEVELS), reference)) == (1, 0, 2)
    assert compare(rows_of(LEVELS), {"title": "them"}) == []
    assert all(one.note == NOT_RUN for one in compare([], reference))
