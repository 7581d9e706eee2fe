"""Pixels: what a network sees, in training and in evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.training.pixels import Pixels, statistics

IMAGES = np.random.default_rng(0).integers(1, 256, (40, 6, 5, 3), np.uint8)


def augmented(seed=0, **options):
    pixels = Pixels(1.0, **options)
    return np.asarray(jax.jit(pixels.augmented)(jnp.asarray(IMAGES), jax.random.key(seed)))


def test_without_options_every_bit_is_the_same():
    np.testing.assert_array_equal(augmented(), IMAGES)


def test_half_of_the_images_are_mirrored():
    found = augmented(flip=True)
    mirrored = [
        bool((one == other[:, ::-1]).all()) for one, other in zip(found, IMAGES, strict=True)
    ]
    kept = [bool((one == other).all()) for one, other in zip(found, IMAGES, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 10 < sum(mirrored) < 30


def test_a_crop_moves_an_image_and_black_follows():
    found = augmented(crop=2)
    border = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2), (0, 0)))
    moves = set()
    for one, large in zip(found, border, strict=True):
        here = [
            (y, x) for y in range(5) for x in range(5) if (one == large[y : y + 6, x : x + 5]).all()
        ]
        assert len(here) == 1
        moves.add(here[0])
    assert len(moves) > 12
    assert found.dtype == np.uint8


@pytest.mark.parametrize("options", [{"flip": True}, {"crop": 3}])
def test_augmentation_is_a_function_of_its_key(options):
    same, again, other = (augmented(seed, **options) for seed in (0, 0, 1))
    np.testing.assert_array_equal(same, again)
    assert (same != other).any()


def test_flips_do_not_depend_on_crops():
    both, crop = augmented(flip=True, crop=1), augmented(crop=1)
    flip = augmented(flip=True)
    unmirrored = (flip == IMAGES).all((1, 2, 3))
    np.testing.assert_array_equal(both[unmirrored], crop[unmirrored])


def test_prepared_pixels_have_mean_zero_and_deviation_one():
    mean, deviation = statistics(IMAGES, 1 / 255)
    found = np.asarray(Pixels(1 / 255, mean, deviation).prepared(jnp.asarray(IMAGES)))
    np.testing.assert_allclose(found.mean((0, 1, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(found.std((0, 1, 2)), 1, atol=1e-3)
    np.testing.assert_allclose(
        Pixels(1 / 255).prepared(jnp.asarray(IMAGES)), IMAGES / np.float32(255), rtol=1e-6
    )


def test_statistics_are_those_of_the_pixels():
    mean, deviation = statistics(IMAGES, 1 / 255)
    floats = IMAGES / 255
    np.testing.assert_allclose(mean, floats.mean((0, 1, 2)), atol=1e-4)
    np.testing.assert_allclose(deviation, floats.std((0, 1, 2)), atol=1e-4)


@pytest.mark.parametrize(("factor", "offset"), [(1, 0), (1e-6, 0), (1e3, -1e5)])
def test_floats_of_any_range_are_standardized(factor, offset):
    floats = (IMAGES * factor + offset).astype(np.float32)
    mean, deviation = statistics(floats, 1.0)
    found = np.asarray(Pixels(1.0, mean, deviation).prepared(jnp.asarray(floats)))
    np.testing.assert_allclose(found.mean((0, 1, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(found.std((0, 1, 2)), 1, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_channel_that_is_the_same_everywhere_becomes_zero(dtype):
    images = IMAGES.astype(dtype)
    images[..., 1] = 255
    mean, deviation = statistics(images, 1 / 255)
    assert (mean[1], deviation[1]) == (1, 1)
    found = np.asarray(Pixels(1 / 255, mean, deviation).prepared(jnp.asarray(images)))
    np.testing.assert_allclose(found[..., 1], 0, atol=1e-6)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("options", [{}, {"flip": True}, {"crop": 2}])
def test_floats_are_augmented_like_bytes(options):
    pixels, key = Pixels(1.0, **options), jax.random.key(0)
    floats = np.asarray(pixels.augmented(jnp.asarray(IMAGES, jnp.float32), key))
    assert floats.dtype == np.float32
    np.testing.assert_array_equal(floats, pixels.augmented(jnp.asarray(IMAGES), key))
