"""TensorBoard event files, derived from curves, rows and masks.

    tensorboard/<branch>/level_03/replicate_0    a network's training: scalars by step
    tensorboard/<branch>/by_level/replicate_0    results and the first layer's mask: by level

One file for each, which only grows: what it lacks is appended. A file that was cut off is written
anew from what the run directory holds: records of equal length, so that a TensorBoard that is
reading it goes on where it was. No point is ever there twice.
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
from lth_jax.store.tables import TRUNK, ResultRow

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


def write_events(store: RunDirectory, first: FirstLayer | None) -> None:
    """Brings every event file up to what the directory holds; what is complete is not touched.

    Args:
      store: the run directory; files go into its folder `tensorboard`.
      first: the layer that sees the image, whose mask is shown if it is known.
    """
    for branch, level in sorted({(row.branch, row.level) for row in store.rows.values()}):
        write_curves(store, branch, level)
    write_rows(store, first)


def write_curves(store: RunDirectory, branch: str, level: int) -> None:
    """Brings the files of a branch's networks at a level up to its curves."""
    folder = store.path / FOLDER / branch / level_name(level)
    networks: dict[str, list[CurvePoint]] = {}
    for point in sorted(store.curve(branch, level), key=lambda point: point[:3]):
        networks.setdefault(_network(point), []).append(point)
    for network, points in networks.items():
        _append(folder / network / FILE, points, _curve_event)


def write_rows(store: RunDirectory, first: FirstLayer | None) -> None:
    """Brings the files of results by level up to the finished runs; see `write_events`."""
    networks: dict[Path, list[ResultRow]] = {}
    for row in sorted(store.rows.values(), key=lambda row: row.level):
        path = store.path / FOLDER / row.branch / "by_level" / _network(row) / FILE
        networks.setdefault(path, []).append(row)
    for path, rows in networks.items():
        _append(path, rows, lambda row: _row_event(store, row, first))


def _network(one: CurvePoint | ResultRow) -> str:
    draw = f"_draw_{one.draw}" if one.draw else ""
    return f"replicate_{one.replicate}{draw}"


def _curve_event(point: CurvePoint) -> bytes:
    scalars = {
        "validation/accuracy": point.val_accuracy,
        "validation/loss": point.val_loss,
        "train/loss": point.train_loss,
    }
    return _event(point.step, scalars, {})


def _row_event(store: RunDirectory, row: ResultRow, first: FirstLayer | None) -> bytes:
    scalars = {tag: float(getattr(row, column)) for tag, column in SCALARS.items()}
    images = {}
    if row.branch == TRUNK and first is not None:
        arrays = store.load(row.replicate, level_name(row.level))
        if arrays is not None:
            mask = mask_image(arrays[f"mask/{first.name}"], first)
            images[f"mask/{short_name(first.name)}"] = mask
    return _event(row.level, scalars, images)


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
    """Counts the records after the first of an event file; -1 where it is missing or cut off."""
    content = path.read_bytes() if path.is_file() else b""
    at, records = 0, 0
    while at + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        at += 12 + length + 4
        records += 1
    return records - 1 if at == len(content) else -1


def _append(path: Path, items: Sequence[Any], event: Callable[[Any], bytes]) -> None:
    """Appends the events of the items that a file lacks; writes it anew where it is not whole."""
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

    count = count_records(path)
    if count >= len(items):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb" if count < 0 else "ab") as out:
        if count < 0:
            head = Event(wall_time=time.time(), file_version="brain.Event:2")
            out.write(_record(head.SerializeToString()))
        for item in items[max(count, 0) :]:
            out.write(_record(event(item)))


def _record(data: bytes) -> bytes:
    """Returns data as a record: their length (uint64), its checksum, the data, their checksum."""
    from tensorboardX.record_writer import masked_crc32c

    length = struct.pack("<Q", len(data))
    sums = [struct.pack("<I", masked_crc32c(part)) for part in (length, data)]
    return length + sums[0] + data + sums[1]


def _event(step: int, scalars: Mapping[str, float], images: Mapping[str, np.ndarray]) -> bytes:
    """Returns one event: the finite scalars and the images (uint8 `[height, width]`) of a step."""
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboardX.summary import image

    finite = {tag: value for tag, value in scalars.items() if math.isfinite(value)}
    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in finite.items()]
    for tag, pixels in images.items():
        values.extend(image(tag, pixels[..., None], dataformats="HWC").value)
    summary = Summary(value=values)
    return Event(wall_time=time.time(), step=step, summary=summary).SerializeToString()
