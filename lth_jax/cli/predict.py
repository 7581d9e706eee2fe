"""`lth-jax predict RUN --level=N IMAGE…`: what a trained network says of images."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lth_jax.analysis.summary import percent
from lth_jax.cli.command import Parser, add_own_rows, exit_status
from lth_jax.cli.output import check_file
from lth_jax.data import image_files
from lth_jax.disk.files import write_bytes
from lth_jax.errors import DataError, SpecError, StoreError
from lth_jax.store import RunDirectory
from lth_jax.store.tables import TRUNK, RunId
from lth_jax.system.streams import say

if TYPE_CHECKING:
    from lth_jax.config import Spec
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
    parser = Parser("predict", description=DESCRIPTION)
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
    add_own_rows(parser)
    return parser


def _predict(options: argparse.Namespace) -> None:
    if not options.images and not options.index:
        raise SpecError("nothing to predict; accepted: image files, or --index=I")
    if options.out:
        check_file(options.out, lambda content: content.startswith(b"\x89PNG"), "PNG")
    from lth_jax.training import backend  # which imports JAX

    with backend.prepared(lambda line: say(f"warning: {line}")):
        _answer(options)


def _answer(options: argparse.Namespace) -> None:
    # These import JAX and matplotlib, which takes seconds.
    from lth_jax.export.inference import inference_of
    from lth_jax.export.tickets import load_trained
    from lth_jax.lottery.custom import recall
    from lth_jax.report.prediction import Prediction, print_prediction
    from lth_jax.report.terminal import make_console

    store = RunDirectory.read(options.run)
    recall(
        options.run,
        store.record_of_spec(),
        store.spec(),
        "network",
        config=options.config,
        trust=options.trust,
    )
    _check_classes(options.run, store.spec())
    params, model_state = load_trained(options.run, options.level, options.replicate)
    inference = inference_of(store.spec())
    if len(inference.shape) != 3:
        raise SpecError(f"{options.run}: its inputs are no images; accepted: a run on images")
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


def _check_classes(run: Path, spec: Spec) -> None:
    from lth_jax.training.tasks import TASKS

    if spec.task in TASKS and not TASKS[spec.task].classes:
        raise SpecError(
            f"{run}: it was trained for config.task={spec.task!r}, which has no classes to "
            "predict; accepted: a run of a task with classes"
        )


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
        f"test {store.metric.name} {store.metric.text(row.final_test_accuracy)}"
    )


def _draw(
    options: argparse.Namespace, predictions: Sequence[Prediction], title: str
) -> Path | None:
    """Writes the figure and returns its path; None where nobody asked for one and it cannot be."""
    from lth_jax.report.prediction import prediction_png

    name = f"prediction_level_{options.level:02d}_replicate_{options.replicate}.png"
    path = options.out or options.run / "figures" / name
    content = prediction_png(predictions, title)
    try:
        write_bytes(path, content)
    except StoreError as error:
        if options.out:
            raise
        say(f"warning: no figure: {error}; --out=FILE.png puts it elsewhere")
        return None
    return path
