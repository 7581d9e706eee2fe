"""How figures look: colours, markers and dashes, and Matplotlib's settings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # importing matplotlib takes seconds on a cold disk
    from matplotlib.figure import Figure


class Style(NamedTuple):
    """How a branch is drawn: told apart by marker and dashes where colours cannot be."""

    colour: str
    marker: str
    dashes: str | tuple[int, tuple[int, ...]]


# The colours of Okabe & Ito (2008), safe for colour-blind readers, of distinct lightness where
# possible; the ticket's blue and the first control's vermilion are the furthest apart.
TICKET_STYLE = Style("#0072B2", "o", "-")
BRANCH_STYLES = (
    Style("#D55E00", "s", "--"),
    Style("#009E73", "^", "-."),
    Style("#CC79A7", "D", ":"),
    Style("#E69F00", "v", (0, (5, 1, 1, 1, 1, 1))),
    Style("#56B4E9", "P", (0, (3, 1))),
    Style("#000000", "X", (0, (1, 2))),
)
DENSE_COLOUR = "#555555"
DPI = 200
# Of several runs in one figure: a run has a colour and a marker, a branch its dashes.
RUN_STYLES = (TICKET_STYLE, *BRANCH_STYLES)
BRANCH_DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (3, 1)), (0, (1, 2)))
LEVEL_COLOURS = "viridis"

_RC: dict[Any, Any] = {
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
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "lth_jax",  # equal figures are equal files
}


@contextlib.contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib's settings for what is drawn inside, whatever the user's own are."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        yield


def new_figure(title: str, rows: int, columns: int) -> tuple[Figure, Any]:
    """A figure and its axes, shape `[rows, columns]`, sharing x by column and y by row."""
    size = (max(2.0 + 2.8 * columns, 5.6), 3.4 + 0.9 * (rows - 1))
    figure = blank_figure(title, size)
    axes = figure.subplots(
        rows, columns, squeeze=False, sharex=True, sharey="row", height_ratios=[3.0, 1.0][:rows]
    )
    return figure, axes


def blank_figure(title: str, size: tuple[float, float]) -> Figure:
    """A figure of that many inches without axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=10)
    return figure


def grid_of(count: int, columns: int) -> tuple[int, int]:
    """(rows, columns) that hold `count` panels, at most `columns` side by side."""
    wide = max(1, min(count, columns))
    return -(-max(count, 1) // wide), wide


def level_colours(count: int) -> list[Any]:
    """A colour for each of `count` levels, dark for the densest, none too light to be seen."""
    import matplotlib

    return [matplotlib.colormaps[LEVEL_COLOURS](0.82 * i / max(count - 1, 1)) for i in range(count)]
