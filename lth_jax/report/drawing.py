"""What all figures share: how they look, what their points say, and how they become PNG and SVG.

Matplotlib's object interface alone is used, without pyplot: no display is needed, and no figure
outlives its caller. Only figure modules import this one, and are themselves imported when the first
figure is drawn: importing Matplotlib takes seconds on a cold disk.
"""

from __future__ import annotations

import contextlib
import io
import math
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import matplotlib
import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.lines import Line2D
from matplotlib.text import Text
from numpy.typing import ArrayLike

from lth_jax.analysis.paired import Paired
from lth_jax.analysis.summary import Stat, percent
from lth_jax.store.tables import TRUNK
from lth_jax.system.streams import printable


class Style(NamedTuple):
    """How a line is drawn: told apart by marker and dashes where colours cannot be."""

    colour: str
    marker: str
    dashes: str | tuple[int, tuple[int, ...]]


# The colours of Okabe & Ito (2008), safe for colour-blind readers, of distinct lightness where
# possible; the ticket's blue and the first control's vermilion are the furthest apart.
STYLES = (
    Style("#0072B2", "o", "-"),
    Style("#D55E00", "s", "--"),
    Style("#009E73", "^", "-."),
    Style("#CC79A7", "D", ":"),
    Style("#E69F00", "v", (0, (5, 1, 1, 1, 1, 1))),
    Style("#56B4E9", "P", (0, (3, 1))),
    Style("#000000", "X", (0, (1, 2))),
    # Colours are at their end; ten methods in one figure are not.
    Style("#D55E00", "<", (0, (5, 1, 1, 1, 1, 1))),
    Style("#009E73", ">", (0, (3, 1))),
    Style("#CC79A7", "p", "--"),
    Style("#E69F00", "h", ":"),
    Style("#56B4E9", "*", "-."),
)
TICKET_STYLE, *CONTROL_STYLES = STYLES
DENSE_COLOUR = "#555555"
IMAGE_COLOURS = "cividis"  # of one hue order for every eye, and legible in grey
DPI = 200
POINTS_PER_INCH = 72  # the unit of Matplotlib's SVG
REACH = 16  # how near to a point a pointer must be, in points
LEGEND_LINE = 0.19  # inches

_SETTINGS: dict[Any, Any] = {
    "font.family": "sans-serif",  # DejaVu Sans, which is Matplotlib's own
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: it can be searched, and set in a paper's own font
    "svg.hashsalt": "lth_jax",  # equal figures are equal files
    "text.parse_math": False,  # a $ in a name is a $
}


_drawing = threading.RLock()


@contextlib.contextmanager
def house_style() -> Iterator[None]:
    """Sets Matplotlib up for what is drawn and rendered inside, whatever the user's settings."""
    with _drawing, matplotlib.rc_context():  # its settings are the whole process's
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


class Figure(matplotlib.figure.Figure):
    """A figure of the report.

    Attributes:
      caption: what is to be seen, for below it.
      notes: what its points say under a pointer, see `note` and `image`.
    """

    def __init__(self, title: str, size: tuple[float, float], caption: str):
        super().__init__(figsize=size, dpi=DPI, layout="constrained")
        self.suptitle(title, fontsize=10)
        self.caption = caption
        self.notes: list[Note] = []

    def _repr_png_(self) -> bytes:
        """Returns the image that a notebook shows."""
        return png(self)

    def panels(self, count: int, columns: int, **options: Any) -> list[Axes]:
        """Makes axes for `count` panels, at most `columns` side by side (see `grid_of`)."""
        axes = self.subplots(*grid_of(count, columns), squeeze=False, **options)
        for ax in axes.flat[count:]:
            ax.set_visible(False)
        return list(axes.flat[:count])

    def add_legend(self, entries: Sequence[tuple[Any, str]]) -> None:
        """Puts a legend of (artist, label) below the figure; several lines make that taller."""
        longest = max((len(label) for _, label in entries), default=0)
        fitting = int(self.get_figwidth() / (0.6 + 0.075 * longest))
        rows = -(-len(entries) // max(fitting, 1)) or 1
        self.set_figheight(self.get_figheight() + LEGEND_LINE * (rows - 1))
        self.legend(
            [artist for artist, _ in entries],
            [label for _, label in entries],
            loc="outside lower center",
            ncols=-(-len(entries) // rows) or 1,  # as even as can be
            columnspacing=1.4,
        )


def label_text(name: str) -> str:
    """Returns a name for the label of a line, an artist or a tick, whatever is in it.

    Matplotlib leaves labels that begin with an underscore out of legends.
    """
    return printable(f" {name}" if name.startswith("_") else name, line=True)


def grid_of(count: int, columns: int) -> tuple[int, int]:
    """Returns (rows, columns) that hold `count` panels, at most `columns` side by side."""
    wide = min(count, columns)
    return -(-count // wide), wide


def legend_entries(ax: Axes) -> list[tuple[Any, str]]:
    """Returns (artist, label) of everything with a label in `ax`, the ticket first."""
    entries = zip(*ax.get_legend_handles_labels(), strict=True)
    return sorted(entries, key=lambda entry: entry[1] != TRUNK)


def legend_entry(colour: str, marker: str, dashes: Any, label: str) -> tuple[Any, str]:
    """Returns a legend's entry that stands for several lines."""
    line = Line2D([], [], color=colour, marker=marker, linestyle=dashes, linewidth=1.6)
    line.set_markersize(4.5)
    return line, label


def level_colours(count: int) -> list[Any]:
    """Returns a colour for each of `count` levels, dark for the densest, none too light."""
    colours = matplotlib.colormaps["viridis"]
    return [colours(0.82 * index / max(count - 1, 1)) for index in range(count)]


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """Returns at most `count` of the items, evenly spaced from the first to the last."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


# What is drawn


def points(
    ax: Axes,
    densities: Sequence[float],
    stats: Sequence[Stat | Paired],
    texts: Sequence[str],
    *,
    bars: Sequence[tuple[float, float]],
    scale: float,
    label: str,
    style: Style,
    width: float = 1.2,
    size: float = 4.5,
    zorder: float = 3,
) -> None:
    """Draws means against densities, joined by a line, each with a bar.

    Args:
      ax: where.
      densities: fractions, drawn as percent.
      stats: what to draw, one for each density.
      texts: what each point says under a pointer.
      bars: the two ends of each bar; NaN draws none.
      scale: what the values are multiplied by to be in the unit of the axis.
      label: what a legend calls the line.
      style, width, size, zorder: how it looks.
    """
    x, y = [100 * density for density in densities], [scale * stat.mean for stat in stats]
    lengths = [(s.mean - low, high - s.mean) for s, (low, high) in zip(stats, bars, strict=True)]
    ax.errorbar(
        x,
        y,
        yerr=scale * np.nan_to_num(np.array(lengths)).reshape(-1, 2).T,
        label=label_text(label),
        color=style.colour,
        marker=style.marker,
        linestyle=style.dashes,
        linewidth=width,
        markersize=size,
        elinewidth=0.9,
        capsize=2,
        zorder=zorder,
    )
    note(ax, x, y, texts)


def image(
    ax: Axes,
    values: np.ndarray,
    text: Callable[[int, int, float], str],
    *,
    cmap: str,
    nothing: str = "",
    **options: Any,
) -> Any:
    """Draws a matrix as an image, NaN in white.

    Args:
      ax: where, with nothing else in it.
      values: float `[rows, columns]`.
      text: takes (row, column, value), gives what that cell says under a pointer.
      cmap: the name of its colours.
      nothing: what NaN says.
      **options: of `imshow`.
    """
    colours = matplotlib.colormaps[cmap].with_extremes(bad="#ffffff")
    shown = ax.imshow(values, cmap=colours, interpolation="none", **options)
    ax.grid(visible=False)
    rows, columns = np.indices(values.shape)
    texts = [
        text(row, column, value) if math.isfinite(value) else nothing
        for (row, column), value in np.ndenumerate(values)
    ]
    note(ax, columns.ravel(), rows.ravel(), texts, cells=True)
    return shown


def set_density_axis(ax: Axes, densities: Iterable[float], labels: int = 8) -> None:
    """Makes a logarithmic x axis from 100 downwards, a tick at each level, labels where they fit.

    Args:
      ax: the axes.
      densities: of the levels, fractions above 0.
      labels: about how many fit.
    """
    values = sorted({100 * density for density in densities}, reverse=True)
    left, right = max(values[0], 100) * 1.15, min(values[-1] / 1.15, 60)
    ax.set_xscale("log")
    ax.set_xlim(left, right)
    spacing = math.log(left / right) / labels
    labelled: list[float] = []
    for value in values:
        if not labelled or math.log(labelled[-1] / value) >= spacing:
            labelled.append(value)
    ax.set_xticks(labelled, [percent(value / 100).rstrip("%") for value in labelled])
    ax.set_xticks(values, [""] * len(values), minor=True)
    ax.grid(visible=False, axis="x", which="minor")
    ax.set_xlabel("weights left, %")


def set_level_ticks(axis: Axis, densities: Sequence[float], labels: int) -> None:
    """Labels the cells of an image, one for each level, by the weights left; every nth if many."""
    step = -(-len(densities) // labels)
    texts = [percent(density).rstrip("%") for density in densities]
    axis.set_ticks(range(0, len(densities), step), texts[::step])
    axis.set_label_text("weights left, %")


def thousands(value: float, _position: float = 0) -> str:
    """Writes a step for an axis: `4,000`."""
    return f"{value:,.0f}"


def label_decades(axis: Axis) -> None:
    """Labels 1, 2 and 5 of each decade of a logarithmic axis."""
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")


# What is said under a pointer


class Note(NamedTuple):
    """Texts of points in the units of their axes, or of cells of side 1 around them."""

    ax: Axes
    points: np.ndarray
    texts: Sequence[str]
    cells: bool


def note(
    ax: Axes, x: ArrayLike, y: ArrayLike, texts: Sequence[str], *, cells: bool = False
) -> None:
    """Lets the points (x, y) of a `Figure` say `texts` under a pointer."""
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    figure.notes.append(Note(ax, np.array([x, y], float).T, texts, cells))


def marks(figure: Figure) -> list[list[Any]]:
    """Returns [x, y, half a width, half a height, text] of all that was noted, for JSON.

    Places are in the units of the figure's SVG, so that it must have been rendered before. What
    lies outside its axes, or has no text, is left out.
    """
    found: list[list[Any]] = []
    figure.dpi, before = POINTS_PER_INCH, figure.dpi
    height = figure.get_figheight() * POINTS_PER_INCH
    for ax, places, texts, cells in figure.notes:
        box = ax.get_window_extent()
        # A cell's corner tells its size; the axes of an image are linear.
        half = abs(ax.transData.transform((0.5, 0.5)) - ax.transData.transform((0, 0)))
        reach = [round(float(side), 1) for side in half] if cells else [REACH, REACH]
        for (x, y), text in zip(ax.transData.transform(places), texts, strict=True):
            if text and math.isfinite(x) and math.isfinite(y) and box.contains(x, y):
                found.append([round(float(x), 1), round(height - float(y), 1), *reach, text])
    figure.dpi = before
    return found


# Files


@contextlib.contextmanager
def _any_letters(figure: matplotlib.figure.Figure) -> Iterator[None]:
    """Lets the texts of a figure have any letters: one that no font has is drawn as a box."""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if (shown := printable(text.get_text())) != text.get_text():
            text.set_text(shown)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def svg(figure: Figure) -> str:
    """Renders the figure as an SVG document."""
    with _any_letters(figure):
        return _svg(figure)


def _svg(figure: Figure) -> str:
    # Laid out once for all renderings, which takes half of the time of each. The second pass is
    # needed because long labels find their size in the first.
    engine = figure.get_layout_engine()
    if engine is not None:
        figure.draw_without_rendering()
        engine.execute(figure)
        figure.set_layout_engine("none")
    out = io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(out, format="svg", metadata=nothing)
    return printable(out.getvalue().decode("utf-8"))


def png(figure: matplotlib.figure.Figure, dpi: int = DPI) -> bytes:
    """Renders the figure as PNG; one of the report was rendered as SVG before."""
    out = io.BytesIO()
    with _any_letters(figure):
        figure.savefig(out, format="png", dpi=dpi)
    return out.getvalue()
