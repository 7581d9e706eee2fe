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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lth_jax.analysis.layers import FirstLayer, connections_by_pixel, kernel_tiles, short_name
from lth_jax.store import CurvePoint, RunDirectory, level_name
from lth_jax.store.results import TRUNK, ResultRow

FOLDER = "tensorboard"
FILE = "events.out.tfevents.0.lth_jax"
PIXELS = 224  # about the side of a mask's image
KERNELS = 64  # of a convolution's mask
SCALARS = {
    "early_stop/step": "early_stop_step",
    "early_stop/validation_accuracy": "early_stop_val_accuracy",
    "early_stop/test_accuracy": "early_stop_test_accuracy",
    "end/validation_accuracy": "final_val_accuracy",
    "end/test_accuracy": "final_test_accuracy",
    "density": "density",
}


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
        networks: dict[str, list[CurvePoint]] = {}
        for point in sorted(self._store.curve(branch, level), key=lambda point: point[:3]):
            networks.setdefault(_network(point), []).append(point)
        for network, points in networks.items():
            path = self._folder / branch / level_name(level) / network / FILE
            self._bring(path, points, _curve_record)

    def write_rows(self, first: FirstLayer | None) -> None:
        """Brings the files of results by level up to the finished runs.

        Args:
          first: the layer that sees the image, whose mask is shown if it is known.
        """
        networks: dict[Path, list[ResultRow]] = {}
        for row in sorted(self._store.rows.values(), key=lambda row: row.level):
            path = self._folder / row.branch / "by_level" / _network(row) / FILE
            networks.setdefault(path, []).append(row)
        for path, rows in networks.items():
            self._bring(path, rows, lambda row: self._row_record(row, first))

    def close_level(self, level: int) -> None:
        """Closes the files of networks that were trained at a level."""
        for path in [path for path in self._writers if path.parts[-3] == level_name(level)]:
            self._writers.pop(path).close()

    def close(self) -> None:
        """Closes all files; more may still be written, which begins them anew."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _row_record(self, row: ResultRow, first: FirstLayer | None) -> bytes:
        scalars = {tag: float(getattr(row, column)) for tag, column in SCALARS.items()}
        images = {}
        if row.branch == TRUNK and first is not None:
            arrays = self._store.load(row.replicate, level_name(row.level))
            if arrays is not None:
                mask = mask_image(arrays[f"mask/{first.name}"], first)
                images[f"mask/{short_name(first.name)}"] = mask
        return _record(row.level, scalars, images)

    def _bring(self, path: Path, items: Sequence[Any], record: Callable[[Any], bytes]) -> None:
        """Appends what a file lacks; a file of an earlier session is written anew for that."""
        if path not in self._written:
            self._written[path] = count_records(path)
        if self._written[path] >= len(items):
            return
        if path not in self._writers:
            self._writers[path] = _begin(path)
            self._written[path] = 0
        writer = self._writers[path]
        for item in items[self._written[path] :]:
            writer.write(record(item))
        writer.flush()
        self._written[path] = len(items)


def write_events(store: RunDirectory, first: FirstLayer | None) -> None:
    """Brings every event file up to what the directory holds; what is complete is not touched."""
    files = EventFiles(store)
    try:
        for branch, level in sorted({(row.branch, row.level) for row in store.rows.values()}):
            files.write_curves(branch, level)
        files.write_rows(first)
    finally:
        files.close()


def mask_image(mask: np.ndarray, first: FirstLayer) -> np.ndarray:
    """Draws the first layer's mask in grey: uint8 `[height, width]`, white where most is kept."""
    if first.image is None:
        values = np.nan_to_num(kernel_tiles(mask, KERNELS), nan=0.25)
    else:
        counts = connections_by_pixel(mask, first.image)
        values = counts / max(int(counts.max()), 1)
    factor = max(1, round(PIXELS / max(values.shape)))
    return np.kron(np.round(255 * values).astype(np.uint8), np.ones((factor, factor), np.uint8))


def count_records(path: Path) -> int:
    """Counts the records after the first of an event file; 0 where it is missing or cut off.

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


def _network(one: CurvePoint | ResultRow) -> str:
    draw = f"_draw_{one.draw}" if one.draw else ""
    return f"replicate_{one.replicate}{draw}"


def _curve_record(point: CurvePoint) -> bytes:
    scalars = {
        "validation/accuracy": point.val_accuracy,
        "validation/loss": point.val_loss,
        "train/loss": point.train_loss,
    }
    return _record(point.step, scalars, {})


def _begin(path: Path) -> Any:
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboardX.record_writer import RecordWriter

    path.parent.mkdir(parents=True, exist_ok=True)
    writer = RecordWriter(str(path))
    head = Event(wall_time=time.time(), file_version="brain.Event:2")
    writer.write(head.SerializeToString())
    return writer


def _record(step: int, scalars: Mapping[str, float], images: Mapping[str, np.ndarray]) -> bytes:
    """Returns one event: the finite scalars and the images (uint8 `[height, width]`) of a step."""
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboardX.summary import image

    summary = Summary(
        value=[
            Summary.Value(tag=tag, simple_value=value)
            for tag, value in scalars.items()
            if math.isfinite(value)
        ]
    )
    for tag, pixels in images.items():
        summary.value.extend(image(tag, pixels[..., None], dataformats="HWC").value)
    return Event(wall_time=time.time(), step=step, summary=summary).SerializeToString()
