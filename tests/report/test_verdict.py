import dataclasses
import re

from hypothesis import given
from hypothesis import strategies as st

from lth_jax.analysis.summary import judge, percent, summarize
from lth_jax.report.verdict import verdict
from lth_jax.store.tables import TRUNK

from ..analysis.score_rows import score_row, score_rows


def levels(*accuracies: float) -> list[list[float]]:
    """Two replicates, a little apart: the dense deviation is 0.0014."""
    return [[accuracy - 0.001, accuracy + 0.001] for accuracy in accuracies]


def test_says_how_far_the_ticket_matches_and_where_controls_fall():
    rows = score_rows(
        {
            TRUNK: levels(0.95, 0.96, 0.97, 0.95, 0.90),
            "reinit": levels(0.95, 0.94, 0.93, 0.8),
            "random_mask": levels(0.94, 0.93, 0.92, 0.5),
        }
    )
    rows = [
        dataclasses.replace(row, early_stop_test_accuracy=0.98)
        if (row.branch, row.level) == (TRUNK, 2)
        else row
        for row in rows
    ]
    assert verdict(rows) == (
        "The ticket matches the dense network down to 51.2% of the weights; "
        "reinit falls below it at 64.0%, random_mask at 80.0%. "
        "Best ticket by validation accuracy: 64.0% of the weights, "
        "test accuracy at early stop 98.0% (dense 50.0%)."
    )


def test_the_best_ticket_is_chosen_by_validation_and_not_by_test_accuracy():
    rows = [
        score_row(TRUNK, level, 0, accuracy, test=test)
        for level, (accuracy, test) in enumerate([(0.9, 0.9), (0.95, 0.91), (0.92, 0.99)])
    ]
    assert "80.0% of the weights, test accuracy at early stop 91.0% (dense 90.0%)" in verdict(rows)


def test_gaps_are_named():
    rows = score_rows({TRUNK: levels(0.9, 0.8, 0.9, 0.8), "reinit": levels(0.8, 0.9, 0.8)})
    assert verdict(rows).startswith(
        "The ticket matches the dense network down to 64.0% of the weights (though not at 80.0%); "
        "reinit falls below it at 80.0% (but matches again at 64.0%)."
    )


def test_every_level_matches():
    rows = score_rows({TRUNK: levels(0.9, 0.9, 0.9), "reinit": levels(0.9, 0.9)})
    assert verdict(rows).startswith(
        "The ticket matches the dense network at every density tried, down to 64.0% of the "
        "weights; reinit matches it at every density tried, down to 64.0%. No ticket's"
    )


def test_no_level_matches():
    rows = score_rows({TRUNK: levels(0.9, 0.8, 0.7)})
    assert verdict(rows).startswith(
        "The ticket matches the dense network at no density tried (80.0% to 64.0% of the weights)."
    )
    assert "(80.0% of the weights)" in verdict([row for row in rows if row.level < 2])


def test_only_the_dense_network():
    assert verdict([]) == "No results yet."
    assert verdict(score_rows({TRUNK: [[0.9]]})).startswith("Only the dense network is trained")


def test_one_replicate_is_said_to_give_no_error_bar():
    assert "no error bar" in verdict(score_rows({TRUNK: [[0.9], [0.9]]}))
    assert "no error bar" not in verdict(score_rows({TRUNK: levels(0.9, 0.9)}))


def test_a_control_tried_at_few_levels_says_so():
    rows = score_rows({TRUNK: levels(0.9, 0.9, 0.9, 0.9), "late": levels(0.8)}, first=3)
    assert "late falls below it at 51.2% (the densest it was tried at)" in verdict(rows)


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
        st.lists(st.lists(st.floats(0.88, 0.92), min_size=1, max_size=3), min_size=1, max_size=5),
    )
)
def test_never_claims_a_match_that_the_definition_denies(accuracies):
    rows = score_rows(accuracies)
    matches = judge(summarize(rows))
    text = verdict(rows)
    claim = re.search(r"^The ticket matches the dense network[^;]*?down to ([\d.]+%)", text)
    matched = [0.8**level for (branch, level), ok in matches.items() if branch == TRUNK and ok]
    assert (claim and claim[1]) == (percent(min(matched)) if len(matched) > 1 else None)
    for name in ("reinit", "random_mask"):
        judged = [level for branch, level in matches if branch == name and level > 0]
        failed = [level for level in judged if not matches[name, level]]
        fall = re.search(rf"{name} (?:falls below it )?at ([\d.]+%)", text)
        assert (fall and fall[1]) == (percent(0.8 ** min(failed)) if failed else None) or (
            TRUNK not in accuracies
        )
        assert (f"{name} matches it at every" in text) == bool(judged and not failed)
