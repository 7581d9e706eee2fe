"""`python -m lth_jax predict RUN --level=N IMAGE…`: what a trained network says of images."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lth_jax.cli.command import Parser, exit_status
from lth_jax.errors import DataError, SpecError, StoreError

if TYPE_CHECKING:
    import numpy as np

    from lth_jax.data.image_files import Look
    from lth_jax.export.views import View
    from lth_jax.pruning.trees import PyTree
    from lth_jax.report.prediction import Prediction

DESCRIPTION = """Asks the trained network of a level (after its last step) for the class of images:
files of any size, or examples of the run's test set. Shows what the network saw and its
probabilities, here and in a PNG."""


def main(arguments: Sequence[str]) -> int:
    """Prints and draws the predictions; gives the exit status."""
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
        help="the picture (RUN/figures/prediction_level_NN_replicate_R.png)",
    )
    return parser


def _predict(options: argparse.Namespace) -> None:
    if not options.images and not options.index:
        raise SpecError("nothing to predict; accepted: image files, or --index=I")
    if options.out and options.out.is_dir():
        raise SpecError(f"--out={options.out}: a folder is there; accepted: the name of a file")
    from lth_jax.config.custom import recall
    from lth_jax.export.tickets import load_trained
    from lth_jax.export.views import view
    from lth_jax.report.prediction import print_prediction
    from lth_jax.report.terminal import make_console
    from lth_jax.store import RunDirectory

    store = RunDirectory.read(options.run)
    recall(store.record_of_spec())
    trained = load_trained(options.run, options.level, options.replicate)
    seen = view(store.spec())
    predictions = _predictions(options, seen, trained)
    title = _title(store, options)
    written = _draw(options, predictions, title)  # first: whoever reads the text may stop reading
    console = make_console()
    console.print(title, soft_wrap=True)
    console.print()
    for prediction in predictions:
        print_prediction(console, prediction)
    if written:
        console.print(f"picture {written}", soft_wrap=True)


def _predictions(
    options: argparse.Namespace, seen: View, trained: tuple[PyTree, PyTree]
) -> list[Prediction]:
    """What the network says of the files and the test examples, in this order."""
    import jax
    import numpy as np

    from lth_jax.report.prediction import Prediction

    found = [*_files(options.images, seen), *_examples(options.index, seen)]
    params, model_state = trained

    @jax.jit
    def probabilities(stored: jax.Array) -> jax.Array:
        variables = {"params": params, **model_state}
        logits, _ = seen.model.apply(variables, seen.pixels.prepared(stored), False, {})
        return jax.nn.softmax(logits)

    values = np.asarray(probabilities(np.stack([stored for _, stored, _, _ in found])))
    return [
        Prediction(title, stored * np.float32(seen.pixels.scale), shares, seen.names, label, notes)
        for (title, stored, label, notes), shares in zip(found, values, strict=True)
    ]


Found = tuple[str, "np.ndarray", int | None, Sequence[str]]  # title, stored pixels, label, notes


def _files(paths: Sequence[Path], seen: View) -> list[Found]:
    """Image files as the dataset would have stored them."""
    if not paths:
        return []
    import numpy as np

    from lth_jax.data.image_files import read

    look, (top, left) = _look_and_edges(seen)
    found = []
    for path in paths:
        picture = read(path, look)
        stored = np.zeros(seen.shape, seen.images.dtype)
        pixels = np.round(picture.image / seen.pixels.scale).astype(stored.dtype)
        stored[top : top + seen.drawn[0], left : left + seen.drawn[1]] = pixels
        found.append((path.name, stored, None, picture.notes))
    return found


def _look_and_edges(seen: View) -> tuple[Look, tuple[int, int]]:
    """How the dataset's images look, and the black rows above and columns left of them."""
    import numpy as np

    from lth_jax.data.image_files import look_of

    top, left = (
        (have - drawn) // 2 for have, drawn in zip(seen.shape[:2], seen.drawn, strict=False)
    )
    inner = seen.images[:1000, top : top + seen.drawn[0], left : left + seen.drawn[1]]
    return look_of(inner.astype(np.float32) * np.float32(seen.pixels.scale)), (top, left)


def _examples(indices: Sequence[int], seen: View) -> list[Found]:
    last = len(seen.labels) - 1
    for index in indices:
        if not 0 <= index <= last:
            raise DataError(f"--index={index}: accepted: 0 to {last:,}, the run's test examples")
    return [
        (f"test example {index}", seen.images[index], int(seen.labels[index]), ())
        for index in indices
    ]


def _title(store, options: argparse.Namespace) -> str:
    from lth_jax.analysis.summary import percent
    from lth_jax.store.tables import TRUNK, RunId

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
    """Writes the picture; gives its path, or None where nobody asked for one and it cannot be."""
    from lth_jax.disk.files import write_bytes
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
        print(f"warning: no picture: {error}; --out=FILE.png puts it elsewhere", file=sys.stderr)
        return None
    return path
