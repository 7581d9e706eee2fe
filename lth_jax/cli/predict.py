"""`python -m lth_jax predict RUN --level=N IMAGE…`: what a trained network says of images."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lth_jax.analysis.summary import percent
from lth_jax.cli.command import Parser, exit_status
from lth_jax.data import image_files
from lth_jax.disk.files import write_bytes
from lth_jax.errors import DataError, SpecError, StoreError
from lth_jax.store import RunDirectory
from lth_jax.store.tables import TRUNK, RunId

if TYPE_CHECKING:
    from lth_jax.export.inference import Inference
    from lth_jax.report.prediction import Prediction

DESCRIPTION = """Asks the trained network of a level (after its last step) for the class of images:
files of any size, or examples of the run's test set. Shows what the network saw and its
probabilities, here and in a PNG."""


class Example(NamedTuple):
    """An image to be predicted.

    Attributes:
      title: whose image it is.
      stored: the image as the dataset stores it, uint8 [height, width, channels].
      label: the true class, if it is known.
      notes: what was done to it before, a phrase each.
    """

    title: str
    stored: np.ndarray
    label: int | None = None
    notes: Sequence[str] = ()


def main(arguments: Sequence[str]) -> int:
    """Prints and draws the predictions; returns the exit status."""
    return exit_status(lambda: _predict(_parser().parse(arguments)))


def _parser() -> Parser:
    parser = Parser(prog="python -m lth_jax predict", description=DESCRIPTION)
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="the run directory")
    add("images", type=Path, nargs="*", metavar="IMAGE", help="image files")
    add("--level", type=int, required=True, metavar="N", help="which level's network")
    add("--replicate", type=int, default=0, metavar="R", help="of which replicate (0)")
    add(
        "--index",
        type=int,
        action="append",
        default=[],
        metavar="I",
        help="example I of the test set, from 0; may be given several times",
    )
    add(
        "--out",
        type=Path,
        metavar="FILE.png",
        help="the figure (RUN/figures/prediction_level_NN_replicate_R.png)",
    )
    return parser


def _predict(options: argparse.Namespace) -> None:
    if not options.images and not options.index:
        raise SpecError("nothing to predict; accepted: image files, or --index=I")
    if options.out and options.out.is_dir():
        raise SpecError(f"--out={options.out}: a folder is there; accepted: the name of a file")
    # These import JAX and matplotlib, which takes seconds.
    from lth_jax.config.custom import recall
    from lth_jax.export.inference import inference_of
    from lth_jax.export.tickets import load_trained
    from lth_jax.report.prediction import Prediction, print_prediction
    from lth_jax.report.terminal import make_console

    store = RunDirectory.read(options.run)
    recall(store.record_of_spec())
    params, model_state = load_trained(options.run, options.level, options.replicate)
    inference = inference_of(store.spec())
    examples = [*_from_files(options.images, inference), *_from_tests(options.index, inference)]
    images = np.stack([example.stored for example in examples])
    found = inference.probabilities({"params": params, **model_state}, images)
    scale = np.float32(inference.pixels.scale)
    predictions = [
        Prediction(one.title, one.stored * scale, shares, inference.names, one.label, one.notes)
        for one, shares in zip(examples, found, strict=True)
    ]
    title = _title(store, options)
    written = _draw(options, predictions, title)  # first: whoever reads the text may stop reading
    console = make_console()
    console.print(title, soft_wrap=True)
    console.print()
    for prediction in predictions:
        print_prediction(console, prediction)
    if written:
        console.print(f"figure {written}", soft_wrap=True)


def _from_files(paths: Sequence[Path], inference: Inference) -> Iterator[Example]:
    """Yields image files as the dataset would have stored them."""
    if not paths:
        return
    look, scale = look_of(inference), inference.pixels.scale
    for path in paths:
        found = image_files.read(path, look)
        stored = np.zeros(inference.shape, inference.images.dtype)
        stored[inference.unpadded] = np.round(found.image / scale).astype(stored.dtype)
        yield Example(path.name, stored, notes=found.notes)


def look_of(inference: Inference) -> image_files.Look:
    """Returns how the dataset's images look, as far as a thousand of them tell."""
    images = inference.images[(slice(1000), *inference.unpadded)]
    return image_files.look_of(images.astype(np.float32) * np.float32(inference.pixels.scale))


def _from_tests(indices: Sequence[int], inference: Inference) -> Iterator[Example]:
    last = len(inference.labels) - 1
    for index in indices:
        if not 0 <= index <= last:
            raise DataError(f"--index={index}: accepted: 0 to {last:,}, the run's test examples")
        label = int(inference.labels[index])
        yield Example(f"test example {index}", inference.images[index], label)


def _title(store: RunDirectory, options: argparse.Namespace) -> str:
    spec = store.spec()
    row = store.rows.get(RunId(TRUNK, options.level, options.replicate, 0))
    title = f"{spec.model.name} trained on {spec.data.name}, level {options.level}"
    if row is None:
        return f"{title}, replicate {options.replicate}"
    return (
        f"{title} ({percent(row.density)} of the weights), replicate {options.replicate}, "
        f"test accuracy {100 * row.final_test_accuracy:.2f}%"
    )


def _draw(
    options: argparse.Namespace, predictions: Sequence[Prediction], title: str
) -> Path | None:
    """Writes the figure and returns its path; None where nobody asked for one and it cannot be."""
    from lth_jax.report.prediction import prediction_figure

    name = f"prediction_level_{options.level:02d}_replicate_{options.replicate}.png"
    path = options.out or options.run / "figures" / name
    out = io.BytesIO()
    prediction_figure(predictions, title).savefig(out, format="png", dpi=150)
    try:
        write_bytes(path, out.getvalue())
    except StoreError as error:
        if options.out:
            raise
        print(f"warning: no figure: {error}; --out=FILE.png puts it elsewhere", file=sys.stderr)
        return None
    return path
