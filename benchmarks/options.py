"""What the command lines of benchmarks share."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

# Without crops and flips; few validation images: an evaluation follows every turn, untimed.
OVERRIDES = ("data.crop=0", "data.flip=False", "data.validation_size=100", "eval.batch_size=100")


def parser_of(doc: str | None, rounds: int = 5) -> argparse.ArgumentParser:
    """Returns a parser with `--rounds`, described by the first paragraph of a module."""
    parser = argparse.ArgumentParser(
        description=(doc or "").split("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=rounds, help="how often each has its turn")
    return parser


def add_data(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say where the images come from."""
    parser.add_argument("--data", choices=("auto", "real", "synthetic"), default="auto")
    parser.add_argument("--data-dir", default="", help="prepared datasets; else $TFDS_DATA_DIR")


def add_steps(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say how long a turn is.

    A call of few steps is mostly first touches of memory; real training calls for hundreds.
    """
    parser.add_argument("--steps", type=int, default=20, help="training steps in a turn")
    parser.add_argument("--warmup", type=int, default=5, help="untimed steps before a turn")


def names_of(
    parser: argparse.ArgumentParser, field: str, text: str, known: Sequence[str]
) -> list[str]:
    """Returns the names that `text` gives by commas; an unknown one ends the program."""
    names = [name for name in text.split(",") if name]
    if unknown := set(names) - set(known):
        parser.error(f"--{field}: {', '.join(sorted(unknown))}; accepted: {', '.join(known)}")
    return names


def densities_of(parser: argparse.ArgumentParser, text: str) -> list[float]:
    """Returns the densities that `text` gives by commas; wrong ones end the program with a line."""
    try:
        densities = [float(density) for density in text.split(",")]
    except ValueError as error:
        parser.error(f"--densities: {error}; accepted: numbers from 0 to 1, by commas")
    if not all(0 <= density <= 1 for density in densities):
        parser.error(f"--densities: {text}; accepted: numbers from 0 to 1, by commas")
    return densities


def start(main: Callable[[], Any]) -> None:
    """Runs a benchmark, with kernels of NumPy's BLAS for this processor.

    `OPENBLAS_CORETYPE` makes it choose those of another one, and is read when NumPy is imported.
    """
    if os.environ.pop("OPENBLAS_CORETYPE", None):
        os.execv(sys.executable, sys.orig_argv)
    main()
