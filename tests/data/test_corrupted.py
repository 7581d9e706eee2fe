"""Random labels and permuted pixels: of training examples alone, and the same in every run."""

import numpy as np
import pytest

from lth_jax.data import Dataset, split
from lth_jax.errors import DataError

CLASSES = 5


@pytest.fixture(scope="module")
def pictures():
    random = np.random.default_rng(0)
    return Dataset(
        name="pictures",
        train_images=random.integers(0, 256, (600, 6, 5, 3)).astype(np.uint8),
        train_labels=random.integers(0, CLASSES, 600).astype(np.int32),
        test_images=random.integers(0, 256, (100, 6, 5, 3)).astype(np.uint8),
        test_labels=random.integers(0, CLASSES, 100).astype(np.int32),
        num_classes=CLASSES,
        scale=1 / 255,
        origin="made up",
    )


def cut(dataset, **options):
    return split(dataset, validation_size=60, **options)


@pytest.mark.parametrize("options", [{"random_labels": True}, {"permuted_pixels": True}])
def test_training_examples_alone_are_corrupted(pictures, options):
    whole, corrupted = cut(pictures), cut(pictures, **options)
    for one, other in zip(whole[1:], corrupted[1:], strict=True):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)
    assert (whole.train.labels.tobytes() == corrupted.train.labels.tobytes()) is (
        "random_labels" not in options
    )
    assert (whole.train.images.tobytes() == corrupted.train.images.tobytes()) is (
        "permuted_pixels" not in options
    )


def test_random_labels_know_nothing_of_the_true_ones(pictures):
    whole, corrupted = cut(pictures).train, cut(pictures, random_labels=True).train
    assert corrupted.labels.dtype == np.int32
    shares = np.bincount(corrupted.labels, minlength=CLASSES) / len(corrupted.labels)
    np.testing.assert_allclose(shares, 1 / CLASSES, atol=4 * np.sqrt(0.16 / 540))
    agree = np.mean(whole.labels == corrupted.labels)
    assert agree == pytest.approx(1 / CLASSES, abs=4 * np.sqrt(0.16 / 540))


def test_random_labels_are_of_the_kept_classes(pictures):
    some = cut(pictures, classes=(4, 1), random_labels=True).train
    assert set(some.labels) == {0, 1}
    assert set(cut(pictures, classes=(4, 1), remap=False, random_labels=True).train.labels) == {
        1,
        4,
    }


def test_an_example_keeps_its_random_label_in_a_smaller_training_set(pictures):
    large, small = (cut(pictures, random_labels=True, train_size=n).train for n in (0, 100))
    np.testing.assert_array_equal(large.labels[:100], small.labels)


def test_each_image_keeps_its_pixels_in_an_order_of_its_own(pictures):
    whole, permuted = cut(pictures).train, cut(pictures, permuted_pixels=True).train
    assert permuted.images.dtype == np.uint8
    orders = []
    for before, after in zip(whole.images[:20], permuted.images[:20], strict=True):
        one, other = (image.reshape(-1, 3).tolist() for image in (before, after))
        assert sorted(one) == sorted(other), "channels of a pixel stay together"
        orders.append(tuple(one.index(pixel) for pixel in other))
    assert len(set(orders)) == 20
    np.testing.assert_array_equal(permuted.labels, whole.labels)


def test_the_dataset_stays_as_it_is(pictures):
    before = pictures.train_images.copy(), pictures.train_labels.copy()
    cut(pictures, random_labels=True, permuted_pixels=True)
    np.testing.assert_array_equal(before[0], pictures.train_images)
    np.testing.assert_array_equal(before[1], pictures.train_labels)


def test_what_has_no_class_or_is_no_image_is_refused(pictures):
    features = pictures._replace(
        train_images=np.zeros((600, 7), np.float32), test_images=np.zeros((100, 7), np.float32)
    )
    with pytest.raises(DataError, match=r"config\.data\.pixels='permuted'.*accepted: original"):
        cut(features, permuted_pixels=True)
    numbers = features._replace(
        train_labels=np.zeros(600, np.float32), test_labels=np.zeros(100, np.float32), num_classes=0
    )
    with pytest.raises(DataError, match=r"config\.data\.labels='random'.*accepted: 'remapped'"):
        cut(numbers, random_labels=True)
