"""How a level is judged: by its paired difference to the dense network."""

import dataclasses
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lth_jax.analysis.verdicts import (
    JUDGED,
    Standard,
    Verdict,
    below,
    examples_of_test,
    judge,
    lowest_matching_density,
    matching,
    of_branch,
    sooner,
)
from lth_jax.config import from_config
from lth_jax.store.tables import TRUNK
from lth_jax.training.metrics import Metric

from .score_rows import score_row, score_rows

STANDARD = Standard(margin=0.002)
DENSE = [0.90, 0.95, 0.92]  # far apart: only differences tell


def shifted(*by):
    """A level whose replicates differ from the dense network by about so much each."""
    return [dense + by[0] + wobble for dense, wobble in zip(DENSE, (-1e-4, 0, 1e-4), strict=True)]


def verdicts(rows, branch=TRUNK):
    return [one.verdict for one in of_branch(judge(rows, STANDARD), branch)]


def test_a_level_is_judged_by_differences_within_replicates():
    rows = score_rows({TRUNK: [DENSE, shifted(0.0), shifted(-0.01), [0.95, 0.90, 0.92]]})
    assert verdicts(rows) == [Verdict.MATCHES, Verdict.BELOW, Verdict.UNDECIDED]
    one = judge(rows, STANDARD)[TRUNK, 1]
    assert one.pair.differences == pytest.approx((-1e-4, 0, 1e-4))
    half = 2.919986 * 1e-4 / math.sqrt(3)  # Student's 95% quantile for two degrees of freedom
    assert (one.low, one.high) == pytest.approx((-half, half))


def test_a_loss_within_the_margin_matches_even_where_it_is_certain():
    rows = score_rows({TRUNK: [DENSE, shifted(-0.001)]})
    assert verdicts(rows) == [Verdict.MATCHES]
    assert judge(rows, STANDARD)[TRUNK, 1].high < 0


def test_draws_are_averaged_within_their_replicate():
    rows = score_rows({TRUNK: [DENSE, DENSE]})
    rows += [
        score_row("reinit", 1, replicate, dense + noise - 0.01, draw=draw)
        for replicate, dense in enumerate(DENSE)
        for draw, noise in enumerate((-0.05, 0.05))
    ]
    assert verdicts(rows, "reinit") == [Verdict.BELOW]


def test_nothing_is_said_with_one_replicate():
    assert judge(score_rows({TRUNK: [[0.9], [0.5]]}), STANDARD) == {}


def test_only_whole_levels_are_judged():
    rows = score_rows({TRUNK: [DENSE, shifted(0)[:2]], "reinit": [[0.1]]})
    assert judge(rows, STANDARD) == {}
    assert judge(score_rows({TRUNK: [DENSE[:1], DENSE]}), STANDARD) == {}
    rows = score_rows({TRUNK: [DENSE, DENSE], "reinit": [DENSE]})
    assert set(judge(rows, STANDARD)) == {(TRUNK, 1), ("reinit", 1)}
    uneven = [*rows, score_row("reinit", 1, 0, 0.9, draw=1)]
    assert set(judge(uneven, STANDARD)) == {(TRUNK, 1)}


def test_a_level_that_lost_a_replicate_matches_nothing():
    """Those that are left are no fair sample: what diverged may be what the level is like."""
    rows = score_rows({TRUNK: [DENSE, shifted(0.0), shifted(0.0)[:2]], "reinit": [shifted(-0.1)]})
    rows[5] = dataclasses.replace(rows[5], diverged=10, early_stop_test_accuracy=0.1)
    rows[-1] = dataclasses.replace(rows[-1], diverged=10)
    found = judge(rows, STANDARD)
    for key, verdict in {
        (TRUNK, 1): Verdict.UNDECIDED,
        (TRUNK, 2): Verdict.UNDECIDED,  # its ticket ended
        ("reinit", 1): Verdict.BELOW,
    }.items():
        assert found[key].pair.replicates == (0, 1)
        assert (found[key].verdict, found[key].missing, found[key].more) == (verdict, 1, None)


def test_nothing_matches_where_one_image_is_more_than_the_margin():
    rows = score_rows({TRUNK: [DENSE, shifted(0.05)]})
    assert verdicts(rows) == [Verdict.MATCHES]
    coarse = STANDARD._replace(resolution=0.003)
    assert judge(rows, coarse)[TRUNK, 1].verdict is Verdict.UNDECIDED


def test_down_to_ends_at_the_first_level_that_does_not_match():
    rows = score_rows({TRUNK: [DENSE, shifted(0), shifted(0), shifted(-0.01), shifted(0)]})
    levels = of_branch(judge(rows, STANDARD))
    assert [one.pair.level for one in matching(levels)] == [1, 2]
    assert lowest_matching_density(rows, STANDARD) == pytest.approx(0.64)
    assert below(levels) == []
    assert lowest_matching_density(score_rows({TRUNK: [DENSE]}), STANDARD) is None


def test_below_begins_at_the_sparsest_level():
    rows = score_rows({TRUNK: [DENSE, shifted(-0.01), shifted(0), shifted(-0.01), shifted(-0.02)]})
    assert [one.pair.level for one in below(of_branch(judge(rows, STANDARD)))] == [3, 4]


def test_an_undecided_level_says_how_many_replicates_would_tell():
    """With as many as it says, at this mean and spread, it is decided; with one less it is not."""
    values = [0.003, -0.004, 0.001]
    dense = [0.9, 0.9, 0.9]
    rows = score_rows({TRUNK: [dense, [d + v for d, v in zip(dense, values, strict=True)]]})
    more = judge(rows, STANDARD)[TRUNK, 1].more
    assert more is not None

    def decided(total):
        import statistics

        from lth_jax.analysis.intervals import t_quantile

        error = statistics.stdev(values) / math.sqrt(total)
        return statistics.fmean(values) - t_quantile(total, 0.95) * error > -STANDARD.margin

    assert decided(3 + more)
    assert not decided(3 + more - 1)


def test_a_difference_exactly_between_is_never_decided():
    rows = score_rows({TRUNK: [[0.5, 0.5], [0.4, 0.596]]})
    one = judge(rows, STANDARD)[TRUNK, 1]
    assert (one.verdict, one.more) == (Verdict.UNDECIDED, None)


def test_an_earlier_early_stop_is_said_where_it_is_no_accident():
    rows = [
        score_row(TRUNK, level, replicate, 0.9, early_stop_step=step + 10 * replicate)
        for level, step in enumerate((500, 300, 500))
        for replicate in range(3)
    ]
    assert [pair.level for pair in sooner(rows, STANDARD)] == [1]
    # Two that agree to an evaluation are no certainty.
    few = [row for row in rows if row.replicate < 2 and row.level < 2]
    close = [dataclasses.replace(row, early_stop_step=500 - 20 * row.level) for row in few]
    assert sooner(close, STANDARD) == []
    late = [
        dataclasses.replace(row, early_stop_step=1000) if row.level == 1 else row for row in rows
    ]
    assert sooner(late, STANDARD) == []


def test_the_standard_is_the_spec_s():
    standard = Standard.of(from_config({"analysis": {"margin": 0.5, "confidence": 0.9}}))
    assert standard == Standard(0.005, 0.9, 1 / 297)
    assert standard.coarse
    assert not Standard.of(from_config({"data": {"name": "mnist"}})).coarse


@pytest.mark.parametrize(
    ("data", "images"),
    [
        ({"name": "mnist"}, 10_000),
        ({"name": "mnist", "test_size": 500}, 500),
        ({"name": "mnist", "classes": (0, 1)}, 2_000),
        ({"name": "anything", "test_size": 7}, 7),
        ({"name": "anything"}, None),
    ],
)
def test_the_size_of_the_test_set_is_known_before_it_is_loaded(data, images):
    assert examples_of_test(from_config({"data": data})) == images


@given(
    st.lists(st.lists(st.floats(0.88, 0.92), min_size=2, max_size=4), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
def test_the_order_of_rows_changes_no_judgement(accuracies, rng: random.Random):
    rows = score_rows({TRUNK: accuracies})
    shuffled = list(rows)
    rng.shuffle(shuffled)
    found = judge(rows, STANDARD)
    assert judge(shuffled, STANDARD) == found
    assert all(one.pair.differences for one in found.values())
    assert JUDGED == "early_stop_test_accuracy"


def test_where_less_is_better_a_smaller_value_is_ahead():
    """An error of a tenth more is below, a tenth less matches; the margin is in its own unit."""
    error = Metric("absolute error", higher_is_better=False)
    less, more = ([value + by for value in DENSE] for by in (-0.1, 0.1))
    rows = score_rows({TRUNK: [DENSE, less, more]})
    first, second = of_branch(judge(rows, Standard(margin=0.002, metric=error)))
    assert (first.verdict, second.verdict) == (Verdict.MATCHES, Verdict.BELOW)
    assert first.pair.mean == pytest.approx(0.1)
