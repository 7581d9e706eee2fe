"""Figures as files: PNG for looking and SVG for papers, each replaced at once or not at all.

The text of an SVG is text: it can be searched, and set in a paper's own font. A figure is laid out
and rendered once, however often it is used, and not changed after that.
"""

from __future__ import annotations

import io
import os
import re
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lth_jax.report.style import DPI, house_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Pixels of a page for each inch: letters about as large as the text, or just legible on a phone.
WIDE, NARROW = 115, 62

_svgs: weakref.WeakKeyDictionary[Figure, str] = weakref.WeakKeyDictionary()


def write_figures(figures: Mapping[str, Figure], directory: Path | str) -> list[Path]:
    """Writes each figure, by name, as PNG and SVG into `directory`; gives their paths.

    Each file is replaced atomically, and equal figures give equal files. Without figures nothing is
    written.

    Raises:
      OSError: the directory cannot be created or written.
    """
    directory = Path(directory)
    if figures:
        directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures.items():
        svg, png = svg_text(figure).encode("utf-8"), _png(figure)
        for path, content in ((f"{name}.png", png), (f"{name}.svg", svg)):
            _replace(directory / path, content)
            paths.append(directory / path)
    return paths


def svg_text(figure: Figure) -> str:
    """The figure as an SVG document."""
    if figure not in _svgs:
        out = io.BytesIO()
        with house_style():
            _lay_out(figure)
            figure.savefig(out, format="svg", metadata={"Date": None})
        _svgs[figure] = out.getvalue().decode("utf-8")
    return _svgs[figure]


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    with house_style():
        _lay_out(figure)
        figure.savefig(out, format="png", dpi=DPI)
    return out.getvalue()


def _lay_out(figure: Figure) -> None:
    """Finds the places of everything, once: half of the time of each rendering goes into that."""
    engine = figure.get_layout_engine()
    if engine is not None:
        figure.draw_without_rendering()
        engine.execute(figure)  # long labels have found their size only now
        figure.set_layout_engine("none")


def _replace(path: Path, content: bytes) -> None:
    """Write the content beside `path`, then in its place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def inline_svg(figure: Figure, name: str) -> str:
    """The figure as an SVG element for a page, as wide as its letters are legible.

    Args:
      figure: what to show.
      name: of the figure on that page; its ids begin with it.
    """
    svg = svg_text(figure)
    svg = svg[svg.index("<svg") :]
    most, least = (round(pixels * figure.get_figwidth()) for pixels in (WIDE, NARROW))
    size = f'style="max-width: {most}px; min-width: {least}px"'
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', rf"\1 {size}", svg, count=1)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    return re.sub(r"url\(#", f"url(#{name}-", svg)
