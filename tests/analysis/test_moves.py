"""What is said of masks that move."""

import pytest

from lth_jax.analysis.moves import mask_course
from lth_jax.store.tables import MASKS, MaskPoint

START, MOVED = MaskPoint(0, 0, 0, 20, 0, 0, 20, 100), MaskPoint(0, 0, 50, 20, 5, 5, 24, 100)


def test_shares_are_means_over_the_runs_that_have_a_step():
    other = MaskPoint(1, 0, 50, 10, 15, 5, 28, 100)
    course = mask_course([MOVED, START, other])
    assert course.steps.tolist() == [0, 50]
    assert course.density.tolist() == pytest.approx([0.2, 0.15])
    assert course.moved.tolist() == pytest.approx([0.0, (0.25 + 0.75) / 2])
    assert course.ever.tolist() == pytest.approx([0.2, 0.26])


def test_nothing_is_nothing():
    assert mask_course([]).steps.tolist() == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"ever": 19}, "ever 19"),
        ({"kept": 101}, "kept is 101"),
        ({"grown": 21}, "kept is 20"),
        ({"dropped": -1}, "dropped is negative"),
        ({"prunable": 0}, "of 0 prunable"),
    ],
)
def test_what_cannot_be_is_found_in_the_table(wrong, said):
    assert MASKS.from_csv(MASKS.to_csv([START, MOVED])) == [START, MOVED]
    with pytest.raises(ValueError, match=said):
        MASKS.from_csv(MASKS.to_csv([START, MOVED._replace(**wrong)]))
