"""TensorBoard event files, derived from curves, rows and masks.

    tensorboard/<branch>/level_03/replicate_0    a network's training: scalars by step
    tensorboard/<branch>/by_level/replicate_0    results and the first layer's mask: by level

One file for each, which only grows. A session that finds a file shorter than it should be, or cut
off, writes it anew from what the run directory holds: records of equal length, so that a
TensorBoard that is reading it goes on where it was. No point is ever there twice.
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lth_jax.analysis.layers import FirstLayer, connections_by_pixel, short_name
from lth_jax.report.first_layer import mosaic
from lth_jax.store import CurvePoint, RunDirectory, level_name
from lth_jax.store.results import TRUNK, ResultRow

FOLDER = "tensorboard"
FILE = "events.out.tfevents.0.lth_jax"
PIXELS = 224  # about the side of a mask's image
SCALARS = {
    "early_stop/step": "early_stop_step",
    "early_stop/validation_accuracy": "early_stop_val_accuracy",
    "early_stop/test_accuracy": "early_stop_test_accuracy",
    "end/validation_accuracy": "final_val_accuracy",
    "end/test_accuracy": "final_test_accuracy",
    "density": "density",
}


class Moment(NamedTuple):
    """What is told of one step.

    Attributes:
      step: of training, or a level.
      scalars: tag -> value; those that are not finite are left out.
      images: tag -> a function that gives uint8 [height, width], or None where there is none.
    """

    step: int
    scalars: Mapping[str, float]
    images: Mapping[str, Callable[[], np.ndarray | None]] = {}


def curve_moments(points: Iterable[CurvePoint]) -> dict[str, list[Moment]]:
    """The training of each network of a branch at a level, by `replicate_0` or `…_draw_1`."""
    found: dict[str, list[Moment]] = {}
    for point in sorted(points, key=lambda point: point[:3]):
        scalars = {
            "validation/accuracy": point.val_accuracy,
            "validation/loss": point.val_loss,
            "train/loss": point.train_loss,
        }
        found.setdefault(_network(point), []).append(Moment(point.step, scalars))
    return found


def row_moments(
    rows: Iterable[ResultRow], store: RunDirectory, first: FirstLayer | None
) -> dict[tuple[str, str], list[Moment]]:
    """The results of each network by level: (branch, `replicate_0`) -> its moments.

    Args:
      rows: of `results.csv`.
      store: where masks are loaded from when they are needed.
      first: the layer that sees the image.
    """
    found: dict[tuple[str, str], list[Moment]] = {}
    for row in sorted(rows, key=lambda row: row.level):
        scalars = {tag: float(getattr(row, column)) for tag, column in SCALARS.items()}
        images = {}
        if row.branch == TRUNK and first is not None:
            images = {f"mask/{short_name(first.name)}": _mask_loader(store, row, first)}
        found.setdefault((row.branch, _network(row)), []).append(Moment(row.level, scalars, images))
    return found


def _network(one: CurvePoint | ResultRow) -> str:
    draw = f"_draw_{one.draw}" if one.draw else ""
    return f"replicate_{one.replicate}{draw}"


def _mask_loader(
    store: RunDirectory, row: ResultRow, first: FirstLayer
) -> Callable[[], np.ndarray | None]:
    def load() -> np.ndarray | None:
        arrays = store.load(row.replicate, level_name(row.level))
        return None if arrays is None else mask_image(arrays[f"mask/{first.name}"], first)

    return load


def mask_image(mask: np.ndarray, first: FirstLayer) -> np.ndarray:
    """The first layer's mask in grey, uint8 [height, width]: white is the most that is kept."""
    if first.image is None:
        values = np.nan_to_num(mosaic(mask)[0], nan=0.25)
    else:
        counts = connections_by_pixel(mask, first.image)
        values = counts / max(int(counts.max()), 1)
    factor = max(1, round(PIXELS / max(values.shape)))
    return np.kron(np.round(255 * values).astype(np.uint8), np.ones((factor, factor), np.uint8))


class EventFiles:
    """The event files of one run directory.

    Args:
      store: the run directory; files go into its folder `tensorboard`.
    """

    def __init__(self, store: RunDirectory):
        self._store = store
        self._folder = store.path / FOLDER
        self._writers: dict[Path, Any] = {}
        self._written: dict[Path, int] = {}

    def write_curves(self, branch: str, level: int) -> None:
        """Brings the files of a branch's networks at a level up to its curves."""
        points = self._store.curve(branch, level)
        for network, moments in curve_moments(points).items():
            self._bring(self._folder / branch / level_name(level) / network / FILE, moments)

    def write_rows(self, first: FirstLayer | None) -> None:
        """Brings the files of results by level up to the finished runs."""
        rows = self._store.sorted_rows()
        for (branch, network), moments in row_moments(rows, self._store, first).items():
            self._bring(self._folder / branch / "by_level" / network / FILE, moments)

    def write_all(self, first: FirstLayer | None) -> None:
        """Brings every file up to what the directory holds; what is complete is not touched."""
        done = {(row.branch, row.level) for row in self._store.rows.values()}
        for branch, level in sorted(done):
            self.write_curves(branch, level)
        self.write_rows(first)

    def close_level(self, level: int) -> None:
        """Closes the files of networks that were trained at a level."""
        for path in [p for p in self._writers if p.parts[-3] == level_name(level)]:
            self._writers.pop(path).close()

    def close(self) -> None:
        """Closes all files; more may still be written, which begins them anew."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _bring(self, path: Path, moments: Sequence[Moment]) -> None:
        """Appends what a file lacks; a file of an earlier session is written anew for that."""
        if path not in self._written:
            self._written[path] = count_moments(path)
        if self._written[path] >= len(moments):
            return
        if path not in self._writers:
            self._writers[path] = _begin(path)
            self._written[path] = 0
        writer = self._writers[path]
        for moment in moments[self._written[path] :]:
            writer.write(_event(moment))
        writer.flush()
        self._written[path] = len(moments)


def _begin(path: Path) -> Any:
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboardX.record_writer import RecordWriter

    path.parent.mkdir(parents=True, exist_ok=True)
    writer = RecordWriter(str(path))
    head = Event(wall_time=time.time(), file_version="brain.Event:2")
    writer.write(head.SerializeToString())
    return writer


def _event(moment: Moment) -> bytes:
    """One record: a summary of all that a moment tells."""
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboardX.summary import image

    summary = Summary(
        value=[
            Summary.Value(tag=tag, simple_value=value)
            for tag, value in moment.scalars.items()
            if math.isfinite(value)
        ]
    )
    for tag, load in moment.images.items():
        pixels = load()
        if pixels is not None:
            summary.value.extend(image(tag, pixels[..., None], dataformats="HWC").value)
    return Event(wall_time=time.time(), step=moment.step, summary=summary).SerializeToString()


def count_moments(path: Path) -> int:
    """How many records follow the first of an event file; 0 where it is missing or cut off.

    A record is its length (uint64), a checksum of that, the data, and a checksum of those.
    """
    try:
        content = path.read_bytes()
    except OSError:
        return 0
    at, records = 0, 0
    while at + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        at += 12 + length + 4
        records += 1
    return max(records - 1, 0) if at == len(content) else 0
