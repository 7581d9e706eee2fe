"""What is shown of a prediction, as text and as a figure."""

import io

import numpy as np
import pytest
from rich.console import Console

from lth_jax.report.prediction import Prediction, picture_text, prediction_figure, print_prediction

IMAGE = np.linspace(0, 1, 64).reshape(8, 8, 1)
SHARES = np.array([0.0002, 0.02, 0.9798])
ONE = Prediction("test example 3", IMAGE, SHARES, ("cat", "dog", "frog"), 1, ("made grey",))


def shown(prediction, **options):
    out = io.StringIO()
    print_prediction(Console(file=out, width=80, legacy_windows=False, **options), prediction)
    return out.getvalue()


def test_a_prediction_names_the_likeliest_class_and_the_true_one():
    assert ONE.heading() == "test example 3: frog (98.0%), but it is dog"
    assert ONE._replace(label=2).heading() == "test example 3: frog (98.0%), which is right"
    assert ONE._replace(label=None).heading() == "test example 3: frog (98.0%)"


def test_a_terminal_without_colours_gets_characters():
    text = shown(ONE)
    assert "\x1b" not in text
    assert "  made grey" in text.splitlines()
    assert " cat " in text
    assert "<0.1%" in text
    assert "frog ████" in text
    assert " 2.0%  true class" in text
    assert " 98.0%\n" in "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def test_a_terminal_with_colours_gets_two_rows_of_pixels_a_line():
    text = picture_text(IMAGE.repeat(4, 0).repeat(4, 1), colours=True)
    assert text.plain == "\n".join(["▀" * 32] * 16)
    first = text.spans[0].style
    assert first.color.name == first.bgcolor.name == "#000000"
    assert "38;2;255;255;255" in shown(ONE, force_terminal=True, color_system="truecolor")


@pytest.mark.parametrize(
    ("shape", "size"), [((8, 8, 1), (16, 8)), ((7, 5, 3), (10, 7)), ((96, 64, 3), (21, 16))]
)
def test_pictures_of_any_size_fit(shape, size):
    lines = picture_text(np.ones(shape), colours=False).plain.splitlines()
    assert (len(lines[0]), len(lines)) == size
    assert set("".join(lines)) == {"@"}


def test_of_many_classes_the_likeliest_ten_are_shown():
    shares = np.arange(100) / np.arange(100).sum()
    many = Prediction("x", IMAGE, shares, tuple(f"class{i}" for i in range(100)))
    assert many.shown() == list(range(99, 89, -1))
    assert "class90" in shown(many)
    assert "class89" not in shown(many)


def test_the_figure_shows_every_image_and_its_bars():
    figure = prediction_figure([ONE, ONE._replace(label=None)], "a network")
    assert len(figure.axes) == 4
    bars = [patch.get_width() for patch in figure.axes[1].patches]
    np.testing.assert_allclose(bars, 100 * SHARES)
    labels = [tick.get_text() for tick in figure.axes[1].get_yticklabels()]
    assert labels == ["cat", "dog", "frog"]
    texts = [text.get_text() for text in figure.axes[1].texts]
    assert texts == ["<0.1%", "2.0%  true class", "98.0%"]
    assert figure.axes[0].images[0].get_array().shape == (8, 8)
