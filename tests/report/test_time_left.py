"""The time left, of experiments whose every second is known."""

import itertools

import pytest

from lth_jax.lottery.observer import PlannedLevel
from lth_jax.report.time_left import TimeLeft, Trained, seconds_left

LEVELS = 13
NIGHT = 8 * 3600.0


def lenet(density):
    """Seconds of a step with native code, in times of a dense one: as was measured."""
    points = [(1.0, 1.0), (0.41, 0.95), (0.33, 0.8), (0.21, 0.62), (0.036, 0.18), (0.005, 0.14)]
    for (above, slow), (below, fast) in itertools.pairwise(points):
        if density >= below:
            return fast + (slow - fast) * (density - below) / (above - below)
    return points[-1][1]


def planned(density):
    """What `NativeCode.expected` reckons."""
    return 1.0 if density > 0.45 else 0.12 + 0.88 * density / 0.45


def experiment(planned, *, runs=9, first=3, steps=1000, compiled=(0, 4, 8), done=0):
    """A plan of levels, `done` of which an earlier session finished."""
    levels = []
    for level in range(LEVELS):
        total = steps * (runs if level else first)
        finished = total if level < done else 0
        levels.append(
            PlannedLevel(
                level, total, finished, planned(0.8**level), int(level in {*compiled, done})
            )
        )
    return levels


def predictions(
    levels, step_seconds, *, compiling=6.0, between=2.0, first=2.0, pause=None, chunks=20
):
    """(level, share of it done, predicted, true) at each news; `pause` is (level, chunk)."""
    now, told = 100.0, []
    left = TimeLeft(levels, now)
    for one in levels:
        if one.done == one.steps:
            continue
        now += first if one.level == 1 else between
        left.level_started(one.level, 0, now)
        if one.programs:
            left.compiling(now)
            now += compiling
            left.advanced(1, now)
        for chunk in range(chunks):
            idle = NIGHT if (one.level, chunk) == pause else 0.0
            now += step_seconds(0.8**one.level) * one.steps / chunks + idle
            left.advanced(one.steps / chunks, now)
            told.append((one.level, (chunk + 1) / chunks, left.seconds(), now, idle))
        left.level_ended()
    return [
        (level, share, told_left, now - when - sum(later[4] for later in told[index + 1 :]))
        for index, (level, share, told_left, when, _) in enumerate(told)
    ]


def wrong(told, first=1):
    """The largest error from a level on, as a share of the truth; of the last seconds nothing."""
    start = next(true for level, _, _, true in told if level == first)
    return max(
        abs(predicted / true - 1)
        for level, _, predicted, true in told
        if level >= first and true > 0.03 * start
    )


@pytest.mark.parametrize(
    ("step_seconds", "levels"),
    [
        (lambda density: 4e-3, experiment(lambda density: 1.0)),
        (lambda density: 4e-3 * lenet(density), experiment(planned)),
        (lambda density: 4e-4 * lenet(density), experiment(planned)),  # compiles as long as it runs
        (lambda density: 4e-3 * lenet(density), experiment(planned, first=1, compiled=(0,))),
        (lambda density: 2e-2 * (0.25 + 0.75 * lenet(density)), experiment(planned)),
        (lambda density: 4e-3 * lenet(density), experiment(planned, done=3)),
    ],
    ids=["xla", "lenet", "short", "one_replicate", "half_native", "resumed"],
)
def test_it_is_near_the_truth_from_the_second_level_on(step_seconds, levels):
    # Longer than a small network's level no break is, but for the first.
    told = predictions(levels, step_seconds, between=min(2.0, 400 * step_seconds(1.0)))
    first = next(one.level for one in levels if one.done < one.steps) + 1
    assert wrong(told, first) < 0.3


def test_the_first_figures_say_nothing_of_the_next_ones():
    """They take longer than a level of a small network does."""
    levels = experiment(lambda density: 1.0, compiled=(0,))
    told = predictions(levels, lambda density: 2e-4, between=0.3, first=12.0)
    assert wrong(told) < 0.3


def test_a_night_in_the_background_is_no_training():
    levels = experiment(planned)

    def seconds(density):
        return 4e-3 * lenet(density)

    told = predictions(levels, seconds, pause=(5, 10))
    assert wrong([one for one in told if one[:2] > (5, 11 / 20)], 5) < 0.3
    assert predictions(levels, seconds, pause=(0, 0))[0][2] is None
    assert max(left for _, _, left, _ in told if left) < 3600


def test_before_there_is_news_nothing_is_said():
    left = TimeLeft(experiment(planned), 0.0)
    assert left.seconds() is None
    left.level_started(0, 0, 1.0)
    left.compiling(1.0)
    left.advanced(1, 20.0)
    assert left.seconds() is None
    left.advanced(100, 21.0)
    left.advanced(100, 22.0)
    assert 0 < left.seconds() < 36_000


def test_what_is_known_of_a_level_counts_by_how_much_and_how_recent_it_is():
    costs, left = {0: 10.0, 1: 10.0, 2: 10.0}, {2: 10.0}
    whole = {0: Trained(1.0, 10.0), 1: Trained(1.0, 30.0)}
    assert seconds_left(left, costs, whole) == pytest.approx(10 * (0.25 + 3) / 1.25)
    begun = {0: Trained(1.0, 10.0), 1: Trained(0.25, 7.5)}
    assert seconds_left(left, costs, begun) == pytest.approx(10 * (0.25 + 0.75) / 0.5)
    apart = seconds_left(
        left, costs, {0: Trained(1.0, 10.0)}, compilations=2, compiling=[5.0], breaks=3, between=[1]
    )
    assert apart == 10 + 2 * 5 + 3
    assert seconds_left(left, costs, {}) is None


def test_levels_that_will_not_be_trained_are_taken_off():
    levels = experiment(lambda density: 1.0, first=9)
    left = TimeLeft(levels, 0.0)
    left.level_started(0, 0, 0.0)
    for now in (1.0, 2.0):
        left.advanced(4500, now)
    left.level_ended()
    assert left.seconds() == pytest.approx(2.0 * (LEVELS - 1))
    assert left.share_done() == pytest.approx(1 / LEVELS)
    left.shortened(9000 * (LEVELS - 1) // 3)
    assert left.seconds() == pytest.approx(2.0 * (LEVELS - 1) * 2 / 3)
    left.shortened(9000 * LEVELS)
    assert left.seconds() == 0.0
    assert left.share_done() == 1.0
