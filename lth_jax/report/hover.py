"""What the points of a figure say when one points at them, and where they lie in its SVG.

A figure function notes texts beside what it draws. Once the figure is laid out, their places in the
SVG's own units are known, and a page's few lines of script find the nearest.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS_PER_INCH = 72  # an SVG of Matplotlib's is in points


class _Points(NamedTuple):
    ax: Axes
    x: Sequence[float]
    y: Sequence[float]
    texts: Sequence[str]


class _Grid(NamedTuple):
    ax: Axes
    values: np.ndarray
    text: str
    names: tuple[Sequence[str], Sequence[str]]


_notes: weakref.WeakKeyDictionary[Figure, list[_Points | _Grid]] = weakref.WeakKeyDictionary()


def note_points(ax: Axes, x: Iterable[float], y: Iterable[float], texts: Iterable[str]) -> None:
    """Notes what points at (x, y), in the units of the axes, say."""
    _of(ax).append(_Points(ax, list(x), list(y), list(texts)))


def note_grid(
    ax: Axes,
    values: np.ndarray,
    text: str,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
) -> None:
    """Notes what the cells of an image that `imshow` drew say.

    Args:
      ax: the axes, with nothing but the image in them.
      values: float [rows, columns]; NaN says nothing.
      text: with `{row}`, `{column}` and `{value}` in it.
      rows, columns: what to call them; their numbers, counted from 0, by default.
    """
    height, width = values.shape
    names = rows or [str(i) for i in range(height)], columns or [str(i) for i in range(width)]
    _of(ax).append(_Grid(ax, values, text, names))


def _of(ax: Axes) -> list[_Points | _Grid]:
    figure = ax.get_figure(root=True)
    assert figure is not None, "axes of a figure"
    return _notes.setdefault(figure, [])


def places(figure: Figure) -> dict[str, list[Any]]:
    """What was noted, with places in the units of the figure's SVG, ready for JSON.

    Call it after the figure was saved as SVG, which lays it out.

    Returns:
      `points`: [x, y, text] each; `grids`: `box` [x, y, width, height], `values`, `text`, `rows`
      and `columns` each. What lies outside its axes is left out.
    """
    points: list[Any] = []
    grids: list[Any] = []
    before = figure.dpi
    figure.dpi = POINTS_PER_INCH
    try:
        height = figure.get_figheight() * POINTS_PER_INCH
        for note in _notes.get(figure, ()):
            if isinstance(note, _Points):
                points += _placed(note, height)
            else:
                grids.append(_boxed(note, height))
    finally:
        figure.dpi = before
    return {"points": points, "grids": grids}


def _placed(note: _Points, height: float) -> list[list[Any]]:
    data = np.column_stack([np.asarray(note.x, float), np.asarray(note.y, float)])
    box = note.ax.get_window_extent()
    placed = []
    for (x, y), text in zip(note.ax.transData.transform(data), note.texts, strict=True):
        if math.isfinite(x) and math.isfinite(y) and box.contains(x, y):
            placed.append([round(float(x), 1), round(height - float(y), 1), text])
    return placed


def _boxed(note: _Grid, height: float) -> dict[str, Any]:
    rows, columns = note.values.shape
    corners = [(-0.5, -0.5), (columns - 0.5, rows - 0.5)]
    (left, top), (right, bottom) = note.ax.transData.transform(corners)
    values = [
        [float(f"{value:.4g}") if math.isfinite(value) else None for value in row]
        for row in note.values.tolist()
    ]
    box = [left, height - top, right - left, top - bottom]
    return {
        "box": [round(float(number), 1) for number in box],
        "values": values,
        "text": note.text,
        "rows": list(note.names[0]),
        "columns": list(note.names[1]),
    }
