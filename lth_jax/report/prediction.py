"""What a network says of an image: the image and its probabilities, as text and as a figure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from lth_jax.report.drawing import TICKET_STYLE, house_style, label_text, png

SHOWN = 10  # classes, the likeliest first where there are more
COLUMNS = 32  # of the terminal, for a picture
BAR = 30
WRAP = 44  # characters of a line beside a picture
SHADES = " .:-=+*#%@"
_OTHERS = "#b8b8b8"


class Prediction(NamedTuple):
    """What a network says of one image.

    Attributes:
      title: whose image it is.
      image: float [height, width, channels] in [0, 1].
      probabilities: float [classes].
      names: of the classes.
      label: the true class, if it is known.
      notes: what was done to the image before, a phrase each.
    """

    title: str
    image: np.ndarray
    probabilities: np.ndarray
    names: Sequence[str]
    label: int | None = None
    notes: Sequence[str] = ()

    @property
    def best(self) -> int:
        """The likeliest class."""
        return int(np.argmax(self.probabilities))

    def shown(self) -> list[int]:
        """Returns the classes to show: all in order, or the likeliest of many."""
        if len(self.names) <= SHOWN:
            return list(range(len(self.names)))
        return np.argsort(-self.probabilities, kind="stable")[:SHOWN].tolist()

    def heading(self) -> str:
        """Returns such as `test example 3: 7 (99.2%), which is right`."""
        text = f"{self.title}: {self.names[self.best]} ({_percent(self.probabilities[self.best])})"
        if self.label is None:
            return text
        right = self.label == self.best
        return text + (", which is right" if right else f", but it is {self.names[self.label]}")


def print_prediction(console: Console, prediction: Prediction) -> None:
    """Prints the image in half blocks (in characters where there are no colours) beside bars."""
    console.print(Text(prediction.heading(), style="bold"), soft_wrap=True)
    for note in prediction.notes:
        console.print(Text(f"  {note}"), soft_wrap=True)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    colours = _shows_blocks(console) and console.color_system in ("256", "truecolor")
    grid.add_row(picture_text(prediction.image, colours), _bars(prediction, console))
    console.print(grid)
    console.print()


def picture_text(image: np.ndarray, colours: bool) -> Text:
    """Returns an image `[height, width, channels]` in [0, 1] as text, two rows of pixels a line."""
    small = _small(image)
    small = np.pad(small, ((0, len(small) % 2), (0, 0), (0, 0)), mode="edge")
    pixels = np.round(255 * np.clip(small, 0, 1)).astype(int)
    if pixels.shape[-1] != 3:
        pixels = np.repeat(pixels.mean(-1, keepdims=True).astype(int), 3, -1)
    lines = []
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        line = Text()
        for above, below in zip(upper, lower, strict=True):
            if colours:
                line.append("▀", Style(color=_rgb(above), bgcolor=_rgb(below)))
            else:
                shade = (above.mean() + below.mean()) / 2 / 255
                line.append(SHADES[min(int(shade * len(SHADES)), len(SHADES) - 1)])
        lines.append(line)
    return Text("\n").join(lines)


@house_style()
def prediction_png(predictions: Sequence[Prediction], title: str) -> bytes:
    """Draws the images, and beside each the bars of its probabilities, as PNG."""
    return png(prediction_figure(predictions, title), dpi=150)


@house_style()
def prediction_figure(predictions: Sequence[Prediction], title: str) -> Figure:
    """Draws the images, and beside each the bars of its probabilities."""
    rows = len(predictions)
    figure = Figure(figsize=(6.4, 0.6 + 2.5 * rows), layout="constrained")
    figure.suptitle(title, fontsize=9)
    axes = figure.subplots(rows, 2, squeeze=False, width_ratios=[1.0, 1.5])
    for (left, right), one in zip(axes, predictions, strict=True):
        image = one.image if one.image.shape[-1] == 3 else one.image.mean(-1)
        left.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        left.set_axis_off()
        left.set_title(textwrap.fill(one.title, WRAP), fontsize=8)
        notes = "\n".join(textwrap.fill(note, WRAP) for note in one.notes)
        left.text(0.5, -0.03, notes, transform=left.transAxes, ha="center", va="top", fontsize=6)

        shown = one.shown()
        shares = [float(one.probabilities[index]) for index in shown]
        colours = [TICKET_STYLE.colour if index == one.best else _OTHERS for index in shown]
        right.barh(range(len(shown)), [100 * share for share in shares], color=colours)
        right.set_yticks(range(len(shown)), [label_text(one.names[index]) for index in shown])
        for place, (index, share) in enumerate(zip(shown, shares, strict=True)):
            text = _percent(share) + ("  true class" if index == one.label else "")
            right.text(100 * share + 1, place, text, va="center", fontsize=7)
        right.invert_yaxis()
        right.grid(axis="y", visible=False)
        right.set_xlabel("probability, %")
        right.set_xlim(0, 125)
        right.set_xticks(range(0, 101, 25))
    return figure


def _bars(prediction: Prediction, console: Console) -> Text:
    block = "█" if _shows_blocks(console) else "#"
    shown = prediction.shown()
    width = max(len(prediction.names[index]) for index in shown)
    bar = max(5, min(BAR, console.width - width - COLUMNS - 24))
    lines = []
    for index in shown:
        share = float(prediction.probabilities[index])
        best = index == prediction.best
        line = Text(f"{prediction.names[index]:>{width}} ", "bold" if best else "")
        line.append(f"{block * round(bar * share):<{bar}}", "blue" if best else "bright_black")
        line.append(f" {_percent(share):>6}", "bold" if best else "")
        line.append("  true class" if index == prediction.label else "")
        lines.append(line)
    return Text("\n").join(lines)


def _shows_blocks(console: Console) -> bool:
    return (console.encoding or "").lower().startswith("utf")


def _small(image: np.ndarray) -> np.ndarray:
    """Scales the image for the terminal: whole pixels larger, or means of pixels smaller."""
    longest = max(image.shape[:2])
    if longest <= COLUMNS // 2:
        times = COLUMNS // 2 // longest
        return image.repeat(times, 0).repeat(times, 1)
    step = -(-longest // COLUMNS)
    height, width = (max(1, side // step) for side in image.shape[:2])
    cut = image[: height * step, : width * step]
    return cut.reshape(height, -1, width, cut.shape[1] // width, image.shape[-1]).mean((1, 3))


def _rgb(pixel: np.ndarray) -> str:
    return "#" + "".join(f"{value:02x}" for value in pixel)


def _percent(share: float) -> str:
    return "<0.1%" if 0 < share < 0.0005 else f"{100 * share:.1f}%"
