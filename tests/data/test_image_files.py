"""Image files as a dataset's images: size, grey, backdrop, and a line for each thing done."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lth_jax.data import image_files, load
from lth_jax.data.image_files import Look
from lth_jax.errors import DataError

DIGITS = Look((28, 28, 1), True, 0.0, 20 / 28)  # as MNIST looks
PHOTOS = Look((8, 8, 3), False, None, 1.0)


def stroke(path, size=(200, 100), ground=255, ink=0, mode="L"):
    """A vertical bar, 20 pixels wide and 60 high, left of the middle."""
    picture = Image.new(mode, size, ground)
    ImageDraw.Draw(picture).rectangle((40, 20, 59, 79), fill=ink)
    picture.save(path)
    return path


def test_digits_stand_on_black_and_noise_on_nothing():
    whole = load("digits")
    look = image_files.look_of(whole.test_images * whole.scale)
    assert look == Look((8, 8, 1), True, 0.0, 1.0)
    assert image_files.look_of(1 - whole.test_images * whole.scale).backdrop == 1.0
    noise = np.random.default_rng(0).random((20, 8, 8, 3))
    assert image_files.look_of(noise) == Look((8, 8, 3), False, None, 1.0)
    assert image_files.look_of(np.repeat(noise[..., :1], 3, -1)).grey
    framed = np.pad(np.ones((3, 20, 10, 1)), ((0, 0), (4, 4), (9, 9), (0, 0)))
    assert image_files.look_of(framed).fill == 20 / 28


def test_dark_on_light_is_inverted_scaled_and_centred_as_the_training_images(tmp_path):
    picture = image_files.read(stroke(tmp_path / "bar.png"), DIGITS)
    assert picture.image.shape == (28, 28, 1)
    assert picture.image.dtype == np.float32
    rows, columns = (np.flatnonzero(picture.image[..., 0].max(axis)) for axis in (1, 0))
    assert (rows[0], rows[-1]) == (4, 23)  # 20 of 28 pixels, in the middle
    assert columns[-1] - columns[0] + 1 == 7
    assert abs(columns.mean() - 13.5) <= 0.5
    assert picture.image.max() == 1
    assert "dark on light, the training images are light on dark: inverted" in picture.notes
    assert "its ink (20×60 pixels) scaled to 71% of the image" in picture.notes[-1]


def test_the_same_stroke_comes_out_alike_however_it_was_drawn(tmp_path):
    black = image_files.read(stroke(tmp_path / "a.png"), DIGITS)
    white = image_files.read(stroke(tmp_path / "b.png", ground=0, ink=255), DIGITS)
    large = Image.open(tmp_path / "a.png").resize((1000, 500), Image.Resampling.NEAREST)
    large.save(tmp_path / "c.bmp")
    faint = stroke(tmp_path / "d.png", ground=(200, 200, 200), ink=(90, 90, 90), mode="RGB")
    clear = stroke(tmp_path / "e.png", ground=(0, 0, 0, 0), ink=(0, 0, 0, 255), mode="RGBA")
    for file in ("b.png", "c.bmp", faint, clear):
        found = image_files.read(tmp_path / file, DIGITS)
        np.testing.assert_allclose(found.image, black.image, atol=0.02)
    assert not any("inverted" in note for note in white.notes)
    assert "contrast stretched" in image_files.read(faint, DIGITS).notes
    assert "made grey" in image_files.read(faint, DIGITS).notes


def test_sixteen_bits_and_a_turned_camera_are_understood(tmp_path):
    deep = Image.fromarray(np.full((8, 8), 32768, np.uint16))
    deep.save(tmp_path / "deep.png")
    grey = Look((8, 8, 1), True, None, 1.0)
    np.testing.assert_allclose(image_files.read(tmp_path / "deep.png", grey).image, 0.5, atol=0.01)
    wide = Image.new("L", (16, 8))
    wide.paste(255, (0, 0, 8, 8))
    exif = wide.getexif()
    exif[0x0112] = 6  # to be turned by 90°: the left half is above
    wide.save(tmp_path / "turned.png", exif=exif)
    turned = image_files.read(tmp_path / "turned.png", Look((16, 8, 1), True, None, 1.0)).image
    assert turned[:8].min() == 1
    assert turned[8:].max() == 0


def test_an_image_of_the_datasets_own_size_is_only_inverted(tmp_path):
    values = np.zeros((28, 28), np.uint8)
    values[2:9, 3:5] = 128  # neither centred nor at full contrast
    Image.fromarray(values).save(tmp_path / "own.png")
    picture = image_files.read(tmp_path / "own.png", DIGITS)
    np.testing.assert_array_equal(np.round(picture.image[..., 0] * 255), values)
    assert picture.notes == []


def test_a_photo_keeps_its_middle_and_its_colours(tmp_path):
    picture = Image.new("RGB", (100, 40), (255, 0, 0))
    picture.paste((0, 0, 255), (30, 0, 70, 40))
    picture.save(tmp_path / "photo.png")
    found = image_files.read(tmp_path / "photo.png", PHOTOS)
    assert found.image.shape == (8, 8, 3)
    np.testing.assert_allclose(found.image, np.broadcast_to([0, 0, 1], (8, 8, 3)), atol=1e-6)
    assert found.notes == ["its middle 40×40 pixels"]


def test_grey_images_of_three_channels_stay_equal_in_them(tmp_path):
    look = DIGITS._replace(shape=(28, 28, 3))
    found = image_files.read(stroke(tmp_path / "bar.png"), look).image
    assert found.shape == (28, 28, 3)
    assert (found == found[..., :1]).all()


def test_blank_paper_is_said_to_be_blank(tmp_path):
    Image.new("L", (50, 60), 250).save(tmp_path / "blank.png")
    picture = image_files.read(tmp_path / "blank.png", DIGITS)
    assert picture.image.max() == 0
    assert picture.notes[-1] == "blank: nothing stands out in it"


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DataError, match=r"text\.png is no image that can be read"):
        image_files.read(tmp_path / "text.png", DIGITS)
    with pytest.raises(DataError, match=r"none\.png: no such file"):
        image_files.read(tmp_path / "none.png", DIGITS)
    whole = stroke(tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.png is no image that can be read"):
        image_files.read(tmp_path / "cut.png", DIGITS)
    with pytest.raises(DataError, match="takes 13 channels; accepted: --index"):
        image_files.read(tmp_path / "cut.png", DIGITS._replace(shape=(8, 8, 13)))


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_bits_that_a_deep_file_leaves_out_make_it_no_darker(bits, tmp_path):
    values = np.full((60, 60), 2**bits - 1, np.uint16)
    values[10:50, 27:33] = 0
    Image.fromarray(values).save(tmp_path / "deep.png")
    found = image_files.read(tmp_path / "deep.png", DIGITS)
    reference = image_files.read(stroke(tmp_path / "bar.png"), DIGITS)
    assert found.image.max() == reference.image.max() > 0.9
    said = f"{bits} of its 16 bits are in use: stretched to their range"
    assert (said in found.notes) == (bits < 16)
    assert not any("blank" in note for note in found.notes)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_no_numbers_are_refused(value, tmp_path):
    values = np.ones((8, 8), np.float32)
    values[3, 3] = value
    Image.fromarray(values).save(tmp_path / "float.tiff")
    with pytest.raises(DataError, match=r"float\.tiff has pixels that are no finite numbers"):
        image_files.read(tmp_path / "float.tiff", DIGITS)


def test_only_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", tmp_path, Path("/dev/zero")):
        with pytest.raises(DataError, match=r" is no file; accepted: an image file$"):
            image_files.read(path, DIGITS)


@pytest.mark.parametrize("times", [1.5, 3])
def test_a_bomb_is_refused_before_it_is_unpacked(times, tmp_path, monkeypatch):
    """Pillow only warns of less than twice its limit."""
    Image.new("1", (100, 100)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(10_000 / times))
    monkeypatch.setattr(Image.Image, "load", None)
    said = f"bomb.png has too many pixels; accepted: at most {int(10_000 / times):,}"
    with pytest.raises(DataError, match=said):
        image_files.read(tmp_path / "bomb.png", DIGITS)
