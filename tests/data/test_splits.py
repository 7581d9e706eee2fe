"""Which examples are where, and what a wrong size says."""

import numpy as np
import pytest

from lth_jax.data import Dataset, split
from lth_jax.data.dataset import fixed_permutation
from lth_jax.errors import DataError


@pytest.fixture
def numbered():
    """200 training and 50 test examples whose label is their number."""
    return Dataset(
        name="numbered",
        train_images=np.arange(200, dtype=np.uint8).reshape(200, 1, 1, 1),
        train_labels=np.arange(200, dtype=np.int32),
        test_images=np.arange(50, dtype=np.uint8).reshape(50, 1, 1, 1),
        test_labels=np.arange(50, dtype=np.int32),
        num_classes=200,
        scale=1 / 255,
        origin="made up",
    )


def test_train_and_validation_are_disjoint_and_together_are_everything(numbered):
    parts = split(numbered, validation_size=30)
    train, validation = set(parts.train.labels.tolist()), set(parts.validation.labels.tolist())
    assert len(validation) == 30
    assert not train & validation
    assert train | validation == set(range(200))


def test_images_stay_with_their_labels(numbered):
    for part in split(numbered, validation_size=30, train_size=100, test_size=20):
        np.testing.assert_array_equal(part.images[:, 0, 0, 0], part.labels)


def test_no_test_example_is_dropped(numbered):
    np.testing.assert_array_equal(split(numbered, validation_size=1).test.labels, np.arange(50))


def test_train_size_changes_neither_validation_nor_what_a_smaller_split_holds(numbered):
    whole = split(numbered, validation_size=30)
    small = split(numbered, validation_size=30, train_size=40)
    np.testing.assert_array_equal(small.validation.labels, whole.validation.labels)
    np.testing.assert_array_equal(small.train.labels, whole.train.labels[:40])


def test_a_smaller_test_split_is_part_of_a_larger_one(numbered):
    small = split(numbered, validation_size=1, test_size=7).test.labels
    large = split(numbered, validation_size=1, test_size=20).test.labels
    np.testing.assert_array_equal(small, large[:7])
    assert len(set(large.tolist())) == 20


def test_the_fixed_shuffle_is_the_one_of_every_earlier_run():
    np.testing.assert_array_equal(fixed_permutation(10), GOLDEN_PERMUTATION)


GOLDEN_PERMUTATION = [4, 6, 7, 3, 9, 8, 2, 0, 5, 1]


def test_a_training_set_sorted_by_class_gives_splits_of_all_classes(numbered):
    # 20 of each class; a tenth of each is 3, give or take.
    parts = split(numbered, validation_size=30, train_size=60, test_size=20)
    assert np.bincount(parts.validation.labels // 20, minlength=10).min() >= 1
    assert np.bincount(parts.train.labels // 20, minlength=10).min() >= 2
    assert np.bincount(parts.test.labels // 10, minlength=5).min() >= 1


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            {"validation_size": 200},
            "config.data.validation_size=200: numbered has 200 training images; accepted: 1 to 199",
        ),
        (
            {"validation_size": 0},
            "config.data.validation_size=0: numbered has 200 training images; accepted: 1 to 199",
        ),
        (
            {"validation_size": 30, "train_size": 171},
            "config.data.train_size=171: numbered has 200 training images, "
            "30 of them for validation; accepted: 0 to 170 (0 is all)",
        ),
        (
            {"validation_size": 30, "test_size": -1},
            "config.data.test_size=-1: numbered has 50 test images; accepted: 0 to 50 (0 is all)",
        ),
    ],
)
def test_an_impossible_size_names_field_value_and_what_is_accepted(numbered, sizes, message):
    with pytest.raises(DataError) as error:
        split(numbered, **sizes)
    assert str(error.value) == message
