"""Draws the picture of `concepts.md`: `python -m docs.draw_concepts`.

One layer of 8 × 8 weights goes once around the loop, pruned by the package's own functions.
"""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import lth_jax

TARGET = Path(__file__).parent / "figures" / "concepts.svg"
SIDE = 8
FRACTION = 0.5


def layer() -> dict[str, jax.Array]:
    """Returns the pictures' weights by name, f32[SIDE, SIDE] each; pruned ones are NaN."""
    first, change, fresh, order = jax.random.split(jax.random.key(3), 4)
    initial = jax.random.normal(first, (SIDE, SIDE))
    trained = initial + 0.8 * jax.random.normal(change, (SIDE, SIDE))
    mask = lth_jax.prune(jnp.abs(trained), lth_jax.ones_mask(trained), FRACTION)
    other = jax.random.permutation(order, mask, independent=True)
    return {
        "initial": initial,
        "trained": trained,
        "pruned": jnp.where(mask, trained, jnp.nan),
        "ticket": jnp.where(mask, initial, jnp.nan),
        "reinit": jnp.where(mask, jax.random.normal(fresh, (SIDE, SIDE)), jnp.nan),
        "random_mask": jnp.where(other, initial, jnp.nan),
    }


PLACES = {  # left edge and bottom, in units of the figure's size
    "initial": (0.02, 0.50),
    "trained": (0.235, 0.50),
    "pruned": (0.45, 0.50),
    "ticket": (0.665, 0.50),
    "reinit": (0.865, 0.635),
    "random_mask": (0.865, 0.19),
}
SIZE = {"reinit": 0.11, "random_mask": 0.11}
CAPTIONS = {
    "initial": "initial weights",
    "trained": "trained weights",
    "pruned": "the smallest half pruned (gray)",
    "ticket": "ticket: rewound",
    "reinit": "reinit: its mask,\nfresh weights",
    "random_mask": "random_mask: another\nmask, initial weights",
}


def draw() -> Figure:
    """Returns the picture."""
    figure = Figure(figsize=(11, 3.9), facecolor="white")
    canvas = figure.add_axes((0, 0, 1, 1))
    canvas.set_axis_off()
    canvas.set_xlim(0, 1)
    canvas.set_ylim(0, 1)
    for name, weights in layer().items():
        left, bottom = PLACES[name]
        width = SIZE.get(name, 0.14)
        height = width * 11 / 3.9
        axes = figure.add_axes((left, bottom, width, height))
        axes.set_facecolor("0.8")  # pruned, told from a weight near zero, which is white
        axes.imshow(weights, cmap="RdBu", vmin=-2.5, vmax=2.5)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel(CAPTIONS[name], fontsize=10)
    arrows(canvas)
    return figure


def arrows(canvas: Axes) -> None:
    """Draws the loop train, prune, rewind, and the branches from the ticket."""
    loop = {"arrowstyle": "-|>", "lw": 1.8, "color": "black", "shrinkA": 0, "shrinkB": 0}
    for step, left in (("train", 0.165), ("prune", 0.38), ("rewind", 0.595)):
        canvas.annotate("", (left + 0.065, 0.7), (left, 0.7), arrowprops=loop)
        canvas.text(left + 0.0325, 0.73, step, ha="center", weight="bold")
    canvas.plot([0.305, 0.735], [0.16, 0.16], color="black", lw=1.8)
    canvas.plot([0.735, 0.735], [0.16, 0.39], color="black", lw=1.8)
    canvas.annotate("", (0.305, 0.39), (0.305, 0.16), arrowprops=loop)
    canvas.text(0.52, 0.19, "train again: the next level", ha="center", weight="bold")
    branch = {**loop, "lw": 1.2, "color": "dimgray", "linestyle": "--"}
    canvas.annotate("", (0.86, 0.79), (0.81, 0.72), arrowprops=branch)
    canvas.annotate("", (0.86, 0.36), (0.81, 0.60), arrowprops=branch)
    canvas.text(0.79, 0.36, "branches", ha="center", color="dimgray", fontsize=10)


def main() -> None:
    """Writes the picture, the same bytes each time."""
    matplotlib.rcParams["svg.hashsalt"] = "lth_jax"
    draw().savefig(TARGET, metadata={"Date": None})


if __name__ == "__main__":
    main()
