import dataclasses
import re

from hypothesis import given
from hypothesis import strategies as st

from lth_jax.analysis.summary import percent
from lth_jax.analysis.verdicts import Standard, below, judge, matching, of_branch
from lth_jax.report.verdict import verdict
from lth_jax.store.tables import TRUNK

from ..analysis.score_rows import score_row, score_rows


def levels(*accuracies: float) -> list[list[float]]:
    """Two replicates, a little apart, that differ from the dense network almost alike."""
    return [
        [accuracy - 0.01, accuracy + 0.01 + 1e-5 * index]
        for index, accuracy in enumerate(accuracies)
    ]


def test_says_how_far_the_ticket_matches_and_from_where_on_controls_are_below():
    rows = score_rows(
        {
            TRUNK: levels(0.95, 0.96, 0.97, 0.95, 0.90),
            "reinit": levels(0.95, 0.94, 0.93, 0.8),
            "random_mask": levels(0.94, 0.93, 0.92, 0.5),
        }
    )
    assert verdict(rows) == (
        "The ticket matches the dense network (within 0.2 points) down to 51.2% of the weights, "
        "and is below it at 41.0%; reinit is below it from 64.0% on, random_mask from 80.0% on. "
        "Best ticket by validation accuracy: 64.0% of the weights, test accuracy at early stop "
        "97.0% (dense 95.0%), above it by Holm's correction over 4 levels."
    )


def test_the_best_ticket_is_chosen_by_validation_and_not_by_test_accuracy():
    rows = [
        score_row(TRUNK, level, 0, accuracy, early_stop_test_accuracy=test)
        for level, (accuracy, test) in enumerate([(0.9, 0.9), (0.95, 0.91), (0.92, 0.99)])
    ]
    assert "80.0% of the weights, test accuracy at early stop 91.0% (dense 90.0%)" in verdict(rows)


def test_what_is_undecided_is_said_with_what_would_tell():
    rows = score_rows({TRUNK: [[0.9, 0.9], [0.9, 0.905]], "reinit": [[0.8, 0.95]]})
    assert re.match(
        r"Whether the ticket matches the dense network \(within 0\.2 points\) is undecided at "
        r"80\.0% \(about \d+ more replicates would tell\); reinit is undecided at 80\.0% \(about ",
        verdict(rows),
    )


def test_a_level_that_does_not_match_ends_the_sequence_whatever_follows():
    rows = score_rows({TRUNK: levels(0.9, 0.8, 0.9, 0.8), "reinit": levels(0.8, 0.9, 0.8)})
    assert verdict(rows).startswith(
        "The ticket is below the dense network at 80.0% of the weights already; from 51.2% on it "
        "is below; reinit is below it from 51.2% on."
    )


def test_every_level_matches():
    rows = score_rows({TRUNK: levels(0.9, 0.9, 0.9), "reinit": levels(0.9, 0.9)})
    assert verdict(rows).startswith(
        "The ticket matches the dense network (within 0.2 points) at every density tried, down to "
        "64.0% of the weights; reinit matches it at every density tried, down to 64.0%. "
    )


def test_only_the_dense_network():
    assert verdict([]) == "No results yet."
    assert verdict(score_rows({TRUNK: levels(0.9)})).startswith("Only the dense network is trained")


def test_one_replicate_says_nothing_of_matching():
    text = verdict(score_rows({TRUNK: [[0.9], [0.9]], "reinit": [[0.1]]}))
    assert text.startswith("One replicate says nothing about matching;")
    assert "config.replicates=5" in text
    assert "the ticket matches" not in text.lower()
    assert "below" not in text


def test_a_learning_speed_is_said_with_what_was_measured():
    rows = score_rows({TRUNK: levels(0.9, 0.9, 0.9)})
    faster = [
        dataclasses.replace(row, early_stop_step=(900, 500, 501)[row.level] + row.replicate)
        for row in rows
    ]
    assert (
        "Its early stop comes sooner than the dense network's at 80.0% to 64.0%, Holm's "
        "correction over 2 levels." in verdict(faster)
    )
    ended = [
        dataclasses.replace(row, early_stop_step=1000) if row.level == 0 else row for row in faster
    ]
    assert "The dense network's training ended before it would stop" in verdict(ended)


def test_networks_that_diverged_are_counted():
    rows = score_rows({TRUNK: levels(0.9, 0.9), "reinit": levels(0.9)})
    rows[-1] = dataclasses.replace(rows[-1], diverged=100)
    assert "1 network diverged and enters no mean, the first at level 1." in verdict(rows)
    rows = score_rows({TRUNK: [[0.9] * 3, [0.9] * 3]})
    rows[-1] = dataclasses.replace(rows[-1], diverged=100)
    assert "is undecided at 80.0% (a network diverged)" in verdict(rows)


def test_a_small_test_set_is_said_to_be_too_small():
    rows = score_rows({TRUNK: levels(0.9, 0.9)})
    said = "One test example is 0.34 points, more than a quarter of the margin of "
    assert f"{said}0.2 points" in verdict(rows, Standard(resolution=1 / 297))
    assert "and nothing matches" in verdict(rows, Standard(resolution=1 / 297))
    text = verdict(rows, Standard(margin=0.01, resolution=1 / 297))
    assert "the margin of 1 point: this" in text
    assert "and nothing matches" not in text
    assert "One test example" not in verdict(rows, Standard(resolution=1e-4))


def test_unfinished_levels_are_left_out_and_named():
    rows = score_rows({TRUNK: levels(0.9, 0.9, 0.9), "reinit": [[0.1]]})[:-2]
    rows += score_rows({"reinit": [[0.1]]})
    text = verdict(rows)
    assert "down to 80.0%" in text
    assert "reinit is not done for every replicate at any level" in text
    assert text.endswith("left out (levels 1 to 2).")


@given(
    st.dictionaries(
        st.sampled_from([TRUNK, "reinit", "random_mask"]),
        st.lists(st.lists(st.floats(0.895, 0.905), min_size=1, max_size=3), min_size=1, max_size=5),
    )
)
def test_never_claims_what_the_judgement_denies(accuracies):
    rows = score_rows(accuracies)
    judgements, text = judge(rows), verdict(rows)
    claim = re.search(r"^The ticket matches the dense network [^;]*?down to ([\d.]+%)", text)
    matched = matching(of_branch(judgements))
    assert (claim and claim[1]) == (percent(matched[-1].pair.density) if matched else None)
    for name in ("reinit", "random_mask"):
        fails = below(of_branch(judgements, name))
        fall = re.search(rf"{name} (?:is below it )?from ([\d.]+%) on", text)
        judged = bool(of_branch(judgements))
        expected = percent(fails[0].pair.density) if fails and judged else None
        assert (fall and fall[1]) == expected
