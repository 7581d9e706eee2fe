"""What is said of an experiment is wrong no more often than it promises, whatever is true.

Thousands of experiments are simulated whose true differences to the dense network are known. A
replicate shares its dense network over all levels, so that levels err together, as they do in
experiments.
"""

import numpy as np
import pytest

from lth_jax.analysis.intervals import holm, one_sided, p_above
from lth_jax.analysis.paired import Paired
from lth_jax.analysis.verdicts import (
    Judgement,
    Standard,
    Verdict,
    above,
    below,
    matching,
    verdict_of,
)

STANDARD = Standard(margin=0.002, confidence=0.95)
EXPERIMENTS = 4000
REPLICATES = (2, 3, 5, 10)
LEVELS = (1, 5, 25)
# Experiments of many levels are fewer: each level of each is judged in Python.
FEW = {1: EXPERIMENTS, 5: EXPERIMENTS // 2, 25: EXPERIMENTS // 5}


def most(experiments):
    """Four standard errors above a true rate of 5% over so many experiments."""
    return 0.05 + 4 * np.sqrt(0.05 * 0.95 / experiments)


MOST = most(EXPERIMENTS)


def experiments(truth, replicates, deviation=0.001, seed=0):
    """Differences to the dense network, [experiments, levels, replicates]."""
    random = np.random.default_rng((seed, replicates, len(truth)))
    dense = random.normal(0, deviation, (EXPERIMENTS, 1, replicates))
    own = random.normal(0, deviation, (EXPERIMENTS, len(truth), replicates))
    return np.asarray(truth)[None, :, None] + own - dense


def judged(differences):
    """The levels of one experiment after another, as they are judged."""
    lows, highs = one_sided(differences, STANDARD.confidence, STANDARD.resolution)
    for low, high, values in zip(lows, highs, differences, strict=True):
        yield [
            Judgement(
                Paired("ticket", level, 0.8**level, (), tuple(of), 0.0, 0.0, 0.0),
                *ends,
                verdict_of(*ends, STANDARD),
            )
            for level, (*ends, of) in enumerate(zip(low, high, values, strict=True), start=1)
        ]


@pytest.mark.parametrize("replicates", REPLICATES)
@pytest.mark.parametrize("deviation", [0.0003, 0.001, 0.01])
def test_a_level_is_rarely_called_what_it_is_not(replicates, deviation):
    for truth, wrong in ((0.0, Verdict.BELOW), (-STANDARD.margin, Verdict.MATCHES)):
        ends = one_sided(experiments([truth], replicates, deviation), STANDARD.confidence)
        said = [
            verdict_of(low, high, STANDARD) for low, high in zip(*map(np.ravel, ends), strict=True)
        ]
        assert np.mean([one is wrong for one in said]) <= MOST


@pytest.mark.parametrize("replicates", REPLICATES)
@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("good", [0, 3])
def test_down_to_rarely_reaches_a_level_worse_than_the_margin(replicates, levels, good):
    truth = [0.001] * min(good, levels - 1) + [-STANDARD.margin] * (levels - min(good, levels - 1))
    first_bad = min(good, levels - 1)
    differences = experiments(truth, replicates, seed=1)[: FEW[levels]]
    wrong = [len(matching(one)) > first_bad for one in judged(differences)]
    assert np.mean(wrong) <= most(FEW[levels])


@pytest.mark.parametrize("replicates", REPLICATES)
@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("bad", [0, 3])
def test_from_which_level_on_it_is_below_rarely_includes_one_that_is_not(replicates, levels, bad):
    bad = min(bad, levels - 1)
    truth = [0.0] * (levels - bad) + [-0.01] * bad
    differences = experiments(truth, replicates, seed=2)[: FEW[levels]]
    wrong = [len(below(one)) > bad for one in judged(differences)]
    assert np.mean(wrong) <= most(FEW[levels])


@pytest.mark.parametrize("replicates", REPLICATES)
@pytest.mark.parametrize("levels", LEVELS)
def test_picking_among_levels_rarely_finds_one_above_where_none_is(replicates, levels):
    few = 3000 // levels
    differences = experiments([0.0] * levels, replicates, seed=3)[:few]
    wrong = [bool(above(one, STANDARD)) for one in judged(differences)]
    assert np.mean(wrong) <= most(few)


@pytest.mark.parametrize(("replicates", "least"), [(2, 0.15), (5, 0.9), (10, 0.99)])
def test_five_replicates_tell_what_is_true(replicates, least):
    """A promise that is kept by saying nothing would be worthless."""
    equal, worse = ([0.0] * 5, Verdict.MATCHES), ([-0.01] * 5, Verdict.BELOW)
    for truth, said in (equal, worse):
        found = judged(experiments(truth, replicates, deviation=0.0007, seed=4)[: FEW[5]])
        assert np.mean([one[0].verdict is said for one in found]) >= least


@pytest.mark.parametrize("replicates", REPLICATES)
@pytest.mark.parametrize("deviation", [0.0003, 0.002, 0.01])
@pytest.mark.parametrize(("images", "margin"), [(297, 0.01), (10_000, 0.002)])
def test_whole_images_are_judged_as_carefully(images, margin, deviation, replicates):
    """Accuracies are shares of a test set's images, rounded to one or the other at random."""
    random = np.random.default_rng((images, replicates))
    standard = Standard(margin, 0.95, 1 / images)
    for truth, wrong in ((0.0, Verdict.BELOW), (-margin, Verdict.MATCHES)):
        exact = experiments([truth], replicates, deviation)[:, 0] * images
        whole = np.floor(exact + random.uniform(size=exact.shape)) / images
        lows, highs = one_sided(whole, 0.95, standard.resolution)
        said = [verdict_of(*ends, standard) for ends in zip(lows, highs, strict=True)]
        assert np.mean([one is wrong for one in said]) <= MOST


def test_values_that_agree_by_chance_are_known_to_a_step_alone():
    """Accuracies of a small test set are often equal; that is no certainty."""
    low, _ = one_sided(np.zeros(3), 0.95, resolution=1 / 360)
    assert low < -0.0019
    low, high = one_sided(np.zeros(2), 0.95, resolution=1 / 360)
    assert verdict_of(low, high, STANDARD) is Verdict.UNDECIDED
    assert one_sided(np.zeros(2), 0.95) == (0.0, 0.0)


def test_one_replicate_says_nothing():
    assert verdict_of(*one_sided(np.array([0.5]), 0.95), STANDARD) is Verdict.UNDECIDED
    assert p_above([0.5]) == 1.0


def test_holm_is_the_step_down_of_his_paper():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
