"""The figures of a report. To add one, write a module with a `draw` and give it a row in `FIGURES`.

A figure's module holds all of it: what it shows, its numbers (from `analysis`), how it is drawn,
and its caption.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from lth_jax.errors import UserError
from lth_jax.report.contents import Contents
from lth_jax.report.drawing import Figure, house_style, marks, png, svg
from lth_jax.report.figures import (
    accuracy,
    curvature,
    curves,
    early_stop,
    first_layer_mask,
    initial_weights,
    layer_density,
    mask_distances,
    mask_moves,
    mask_overlap,
    mask_overlap_levels,
    methods,
    paired_difference,
    paths,
)


class Row(NamedTuple):
    """A figure that a report can have.

    Attributes:
      heading: what stands over it on the page; `{}` is the metric.
      draw: gives the figure of experiments by their names, or None where there is nothing to draw.
      overlays: whether it can show several experiments; the others take exactly one.
      masks: whether it needs masks and weights, which are slow to load.
    """

    heading: str
    draw: Callable[[Mapping[str, Contents]], Figure | None]
    overlays: bool = False
    masks: bool = False


# By the names of their files, in the order of the page.
FIGURES: dict[str, Row] = {
    "accuracy": Row("{}", accuracy.draw, overlays=True),
    "early_stop": Row("Early stop", early_stop.draw, overlays=True),
    "paired_difference": Row(
        "Ticket against control, paired", paired_difference.draw, overlays=True
    ),
    "methods": Row("Methods against one another", methods.draw),
    "curves": Row("Training curves", curves.draw, overlays=True),
    "paths": Row("Between two networks", paths.draw),
    "curvature": Row("Curvature of the loss", curvature.draw),
    "mask_moves": Row("Masks on their way", mask_moves.draw),
    "mask_distances": Row("Early birds", mask_distances.draw),
    "layer_density": Row("Layers", layer_density.draw),
    "first_layer_mask": Row("The first layer's mask", first_layer_mask.draw, masks=True),
    "initial_weights": Row("Which initial weights survive", initial_weights.draw, masks=True),
    "mask_overlap": Row("Do replicates find the same mask?", mask_overlap.draw, masks=True),
    "mask_overlap_levels": Row("Masks of levels", mask_overlap_levels.draw, masks=True),
}


class Rendered(NamedTuple):
    """A figure as the page and its files hold it.

    Attributes:
      name: of its files.
      heading: what stands over it.
      caption: what stands below it.
      width: in inches.
      svg: the document.
      png: the file's content.
      marks: what its points say under a pointer, see `drawing.marks`.
    """

    name: str
    heading: str
    caption: str
    width: float
    svg: str
    png: bytes
    marks: list[list[object]]


def render_figures(
    runs: Mapping[str, Contents], notes: list[str], *, files: bool = True
) -> list[Rendered]:
    """Draws what can be drawn; a figure that fails is named in `notes`, and takes no other with it.

    Args:
      runs: what to call each experiment -> what its directory holds; several are overlaid.
      notes: takes a line for each figure that fails.
      files: whether the figures are to be files, too; if not, those of masks are left out.
    """
    found = []
    for name, row in FIGURES.items():
        if (len(runs) > 1 and not row.overlays) or (row.masks and not files):
            continue
        try:
            with house_style():
                figure = row.draw(runs)
                if figure is not None:
                    heading = row.heading.format(next(iter(runs.values())).metric.name.capitalize())
                    found.append(rendered(name, heading, figure, files=files))
        except Exception as error:  # the report of a long run is worth more than one figure
            why = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            notes.append(f"figure {name} is left out: {why}")
    return found


def rendered(name: str, heading: str, figure: Figure, *, files: bool = True) -> Rendered:
    """Returns a figure as a page and its files hold it; the files' content only where `files`."""
    document = svg(figure)  # first, for that finds the places of everything
    content = png(figure) if files else b""
    width = figure.get_figwidth()
    return Rendered(name, heading, figure.caption, width, document, content, marks(figure))
