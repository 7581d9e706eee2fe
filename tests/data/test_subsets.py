"""Class subsets, parts, sides and channels: which examples are where, and how they look."""

import itertools
import re

import numpy as np
import pytest

from lth_jax.data import Dataset, check_classes, check_images, load, padded, reshaped, split
from lth_jax.errors import DataError

CLASSES = 5
VALIDATION = 60


@pytest.fixture(scope="module")
def numbered():
    """300 training and 100 test examples of five classes; two pixels are an example's number."""

    def images(count):
        return np.stack(np.divmod(np.arange(count), 256), axis=1).astype(np.uint8)

    random = np.random.default_rng(0)
    return Dataset(
        name="numbered",
        train_images=images(300).reshape(300, 1, 2, 1),
        train_labels=random.integers(0, CLASSES, 300).astype(np.int32),
        test_images=images(100).reshape(100, 1, 2, 1),
        test_labels=random.integers(0, CLASSES, 100).astype(np.int32),
        num_classes=CLASSES,
        scale=1 / 255,
        origin="made up",
    )


def numbers(part):
    high, low = part.images.reshape(-1, 2).astype(int).T
    return high * 256 + low


def cut(dataset, **options):
    return split(dataset, validation_size=VALIDATION, **options)


# --- Classes --------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [(0, 1), (4, 2, 0), (3,)])
@pytest.mark.parametrize("remap", [True, False])
def test_only_the_classes_are_kept_in_every_split(numbered, classes, remap):
    whole, some = cut(numbered), cut(numbered, classes=classes, remap=remap)
    labels = (numbered.train_labels, numbered.train_labels, numbered.test_labels)
    for part, all_, old in zip(some, whole, labels, strict=True):
        kept = [n for n in numbers(all_) if old[n] in classes]
        assert numbers(part).tolist() == kept, "others, or in another order"
        shown = [classes.index(old[n]) if remap else old[n] for n in kept]
        assert part.labels.tolist() == shown
        assert part.labels.dtype == np.int32


def test_a_test_split_of_a_size_is_of_the_classes(numbered):
    some = cut(numbered, classes=(1, 2), test_size=10).test
    assert len(some.labels) == 10
    assert set(numbered.test_labels[numbers(some)]) == {1, 2}


@pytest.mark.parametrize("classes", [(5,), (-1,), (1, 1), (0, 7)])
def test_classes_that_are_not_there_are_refused(numbered, classes):
    for refuse in (
        lambda: cut(numbered, classes=classes),
        lambda: check_classes("numbered", CLASSES, classes),
    ):
        with pytest.raises(DataError) as error:
            refuse()
        assert str(error.value) == (
            f"config.data.classes={classes}: numbered has 5 classes; "
            "accepted: different numbers from 0 to 4"
        )


@pytest.mark.parametrize("what", ["training", "validation", "test"])
def test_a_subset_that_leaves_nothing_is_refused(numbered, what):
    train, test = numbered.train_labels, numbered.test_labels
    held = np.isin(np.arange(300), numbers(cut(numbered).validation))
    empty = {
        "training": numbered._replace(train_labels=np.where(~held & (train == 4), 3, train)),
        "validation": numbered._replace(train_labels=np.where(held & (train == 4), 3, train)),
        "test": numbered._replace(test_labels=np.where(test == 4, 3, test)),
    }[what]
    with pytest.raises(DataError, match=rf"classes=\(4,\): no {what} example is left; accepted: "):
        cut(empty, classes=(4,))


# --- Parts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_parts_share_out_the_training_set_class_by_class(numbered, parts):
    whole = cut(numbered)
    splits = [cut(numbered, part=f"{part}/{parts}") for part in range(1, parts + 1)]
    trained = [numbers(one.train).tolist() for one in splits]
    everything = sorted(itertools.chain.from_iterable(trained))
    assert everything == sorted(numbers(whole.train)), "disjoint, and everything"
    for one in splits:
        for kept, all_ in zip(one[1:], whole[1:], strict=True):
            assert numbers(kept).tolist() == numbers(all_).tolist(), "only training is shared out"
    counts = np.array([np.bincount(one.train.labels, minlength=CLASSES) for one in splits])
    assert (counts.max(axis=0) - counts.min(axis=0)).max() <= 1


def test_parts_of_classes_and_of_a_size(numbered):
    one, other = (cut(numbered, classes=(1, 3), part=f"{part}/2") for part in (1, 2))
    both = {*numbers(one.train), *numbers(other.train)}
    assert both == set(numbers(cut(numbered, classes=(1, 3)).train))
    small = cut(numbered, classes=(1, 3), part="1/2", train_size=20)
    assert numbers(small.train).tolist() == numbers(one.train)[:20].tolist()


# --- Invariant 6 ----------------------------------------------------------------------------

TRAININGS = [
    {}, {"part": "1/2"}, {"part": "2/2"}, {"part": "2/3"}, {"classes": (0, 1, 2)},
    {"classes": (3, 4), "remap": False}, {"train_size": 50}, {"classes": (4,), "part": "1/2"},
]  # fmt: skip


@pytest.mark.parametrize("options", TRAININGS, ids=str)
def test_no_validation_example_meets_any_experiment_s_training(numbered, options):
    """So that no ticket has seen, on its source, what it is judged by on its target."""
    trained = set(numbers(cut(numbered, **options).train))
    for other in TRAININGS:
        parts = cut(numbered, **other)
        assert not trained & set(numbers(parts.validation))
        assert set(numbers(parts.validation)) <= set(numbers(cut(numbered).validation))


def test_digits_have_examples_of_every_class_in_every_part():
    digits = load("digits")
    for half in ("1/2", "2/2"):
        parts = split(digits, validation_size=200, part=half)
        for part in parts:
            assert set(part.labels) == set(range(10))
        assert 645 <= len(parts.train.labels) <= 655


# --- Side and channels ----------------------------------------------------------------------


def test_zeros_leave_the_images_as_they_are(numbered):
    assert reshaped(numbered) is numbered
    assert reshaped(numbered, channels=1) is numbered
    digits = load("digits")
    assert reshaped(digits, side=8) is digits


def test_a_side_scales_to_square_images_of_the_same_brightness():
    digits = load("digits")
    large = reshaped(digits, side=28)
    assert large.train_images.shape == (1500, 28, 28, 1)
    assert large.test_images.shape == (297, 28, 28, 1)
    assert large.train_images.dtype == np.uint8
    assert (large.name, large.num_classes) == (digits.name, 10)
    np.testing.assert_array_equal(large.train_labels, digits.train_labels)
    bright = [d.train_images * d.scale for d in (digits, large)]
    assert bright[1].min() >= 0
    assert bright[1].max() <= 1
    means = [images.mean(axis=(1, 2, 3)) for images in bright]
    np.testing.assert_allclose(*means, atol=0.02)
    # The image itself, not another or a turned one: its blocks are the old pixels.
    blocks = large.train_images[:20, :, :, 0].reshape(20, 4, 7, 4, 7).mean(axis=(2, 4)) / 255
    old = bright[0][:20, :, :, 0].reshape(20, 4, 2, 4, 2).mean(axis=(2, 4))
    assert np.corrcoef(blocks.ravel(), old.ravel())[0, 1] > 0.98


def test_a_constant_image_stays_constant():
    digits = load("digits")
    flat = digits._replace(train_images=np.full_like(digits.train_images[:2], 8))
    large = reshaped(flat, side=12)
    np.testing.assert_allclose(large.train_images * large.scale, 8 * digits.scale, atol=1 / 255)


def test_float_images_are_scaled_in_the_range_they_have():
    digits = load("digits")
    factor = np.float32(-1e4)
    floats = digits._replace(
        train_images=digits.train_images.astype(np.float32) * factor,
        test_images=digits.test_images.astype(np.float32) * factor,
        scale=1.0,
    )
    bytes_, found = reshaped(digits, side=5), reshaped(floats, side=5)
    assert found.scale == 1
    assert found.test_images.dtype == np.float32
    for one, other in ((bytes_[1], found[1]), (bytes_[3], found[3])):  # the images of both splits
        np.testing.assert_allclose(other / factor / 16, one * bytes_.scale, atol=1.5 / 255)


def test_grey_is_repeated_to_colour():
    digits = load("digits")
    colour = reshaped(digits, channels=3)
    assert colour.train_images.shape == (1500, 8, 8, 3)
    for channel in range(3):
        np.testing.assert_array_equal(colour.train_images[..., [channel]], digits.train_images)
        np.testing.assert_array_equal(colour.test_images[..., [channel]], digits.test_images)
    assert colour.scale == digits.scale
    assert reshaped(digits, side=16, channels=3).test_images.shape == (297, 16, 16, 3)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_colour_becomes_nothing_else(numbered, channels):
    colour = reshaped(numbered, channels=3)
    with pytest.raises(DataError) as error:
        reshaped(colour, channels=channels)
    assert str(error.value) == (
        f"config.data.channels={channels}: numbered has 3 channels; accepted: 0 or 3"
    )


def test_padding_puts_black_around_every_image(tiny):
    found = padded(tiny, (8, 7))
    assert found.train_images.shape == (6, 8, 7, 1)
    assert found.test_images.shape == (4, 8, 7, 1)
    np.testing.assert_array_equal(found.train_images[:, 1:6, 1:6], tiny.train_images)
    assert found.train_images.sum() == tiny.train_images.sum()
    assert padded(tiny, (5, 5)) is tiny


def test_padding_puts_zeros_around_floats(tiny):
    floats = tiny._replace(train_images=tiny.train_images * np.float32(-0.1))
    found = padded(floats, (8, 7)).train_images
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[:, 1:6, 1:6], floats.train_images)
    assert (found != 0).sum() == (floats.train_images != 0).sum()


# --- What can be done to images -------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((8, 6, 1), {"crop": 6}, "crop=6: x has images of 8×6; accepted: 0 to 5"),
        ((8, 6, 1), {"crop": 4, "side": 4}, "crop=4: x has images of 8×6, scaled to 4×4; accepted"),
        ((8, 6, 3), {"channels": 1}, "channels=1: x has 3 channels; accepted: 0 or 3"),
        ((1, 6, 1), {"flip": True}, "flip=True: x has images of 1×6, features; accepted: False"),
        ((6, 1, 1), {"side": 6}, "side=6: x has images of 6×1, features; accepted: 0"),
        ((1, 6, 1), {"crop": 1}, "crop=1: x has images of 1×6, features; accepted: 0"),
    ],
)
def test_what_cannot_be_done_to_images_is_refused(shape, options, message):
    with pytest.raises(DataError, match=f"config.data.{re.escape(message)}"):
        check_images("x", shape, **options)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((8, 6, 1), {"crop": 5, "flip": True, "channels": 3}),
        ((8, 6, 3), {"crop": 8, "side": 9, "channels": 3}),
        ((1, 6, 1), {"channels": 3}),
    ],
)
def test_what_can_be_done_to_images_is_not(shape, options):
    check_images("x", shape, **options)
