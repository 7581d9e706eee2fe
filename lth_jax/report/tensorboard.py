"""TensorBoard event files, derived from curves, rows and masks.

    tensorboard/<branch>/…03.lth_jax               level 3, the mean of a branch's networks
    tensorboard/<branch>/replicate_0/…03.lth_jax   level 3, one network

TensorBoard lists a folder as a run and overlays runs in one chart. So a folder is a branch, or one
replicate of it, whatever the number of levels: 600 networks are some 30 runs, and `^[^/]+$` in the
filter leaves the means. Levels are tags: `validation_accuracy/level_03` compares a ticket with its
controls, and the dashboard of custom scalars has all levels in one chart.

A file only grows while its level trains, and is no longer touched afterwards. One that was cut
off, or is a mean of fewer networks than there are now, is written anew from what the run directory
holds. No point is ever there twice.
"""

from __future__ import annotations

import contextlib
import math
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lth_jax.analysis.layers import FirstLayer, connections_by_pixel, kernel_tiles, short_name
from lth_jax.store import CurvePoint, RunDirectory, level_name
from lth_jax.store.table import column_of
from lth_jax.store.tables import TRUNK, ResultRow

FOLDER = "tensorboard"
# What TensorBoard takes for a file of events, in whose order it reads those of a folder.
FILE = "events.out.tfevents.{level:04d}.lth_jax"
OLD_FILE = "events.out.tfevents.0.lth_jax"  # of earlier versions, in a folder for each network
PIXELS = 224  # about the side of a mask's image
KERNELS = 64  # of a convolution's mask
# Tag -> field of a row; in tags, too, `accuracy` stands for the metric.
SCALARS = {
    "early_stop/step": "early_stop_step",
    "early_stop/validation_accuracy": "early_stop_val_accuracy",
    "early_stop/test_accuracy": "early_stop_test_accuracy",
    "end/validation_accuracy": "final_val_accuracy",
    "end/test_accuracy": "final_test_accuracy",
    "density": "density",
}
CURVES = {
    "validation_accuracy": "val_accuracy",
    "validation_loss": "val_loss",
    "train_loss": "train_loss",
}
# One event: its step and what it holds, serialized; the time when it was written is left out.
Written = tuple[int, bytes]


def write_events(store: RunDirectory, first: FirstLayer | None) -> None:
    """Brings every event file up to what the directory holds; what is complete is not touched.

    Args:
      store: the run directory; files go into its folder `tensorboard`.
      first: the layer that sees the image, whose mask is shown if it is known.
    """
    _remove_old(store.path / FOLDER)
    for branch, level in sorted({(row.branch, row.level) for row in store.rows.values()}):
        write_level(store, branch, level, first)


def write_level(
    store: RunDirectory, branch: str, level: int, first: FirstLayer | None = None
) -> None:
    """Brings the files of a branch's networks at a level up to its curves and rows."""
    folder, file = store.path / FOLDER / branch, FILE.format(level=level)
    metric = store.metric.column
    rows = {_network(r): r for r in store.rows.values() if (r.branch, r.level) == (branch, level)}
    curves: dict[str, list[CurvePoint]] = {}
    for point in sorted(store.curve(branch, level), key=lambda point: point[:3]):
        curves.setdefault(_network(point), []).append(point)
    for network in curves.keys() | rows.keys():
        events = _curve_events(level, curves.get(network, ()), metric)
        if row := rows.get(network):
            events.append(_event(level, _scalars([row], metric), _images(store, row, first)))
        _write(folder / network / file, events)
    options = store.spec().branch_spec(branch)
    draws = 1 if branch == TRUNK else options.draws
    # A mean over some of them would be another once the others come.
    if rows or len(curves) == store.spec().replicates * draws:
        _write(folder / file, _mean_events(branch, level, curves, rows, metric))


def _network(one: CurvePoint | ResultRow) -> str:
    draw = f"_draw_{one.draw}" if one.draw else ""
    return f"replicate_{one.replicate}{draw}"


def _curve_events(level: int, points: Iterable[CurvePoint], metric: str) -> list[Written]:
    """Returns an event for each evaluation; `metric` is how columns call it."""
    return [
        _event(
            point.step,
            {
                f"{column_of(tag, metric)}/{level_name(level)}": getattr(point, column)
                for tag, column in CURVES.items()
            },
        )
        for point in points
    ]


def _mean_events(
    branch: str,
    level: int,
    curves: Mapping[str, Sequence[CurvePoint]],
    rows: Mapping[str, ResultRow],
    metric: str,
) -> list[Written]:
    """Returns the events of the mean over networks, at the steps that all of them have reached."""
    networks = [curves[name] for name in curves if name in rows or not rows]
    by_step: dict[int, list[CurvePoint]] = {}
    for point in (point for points in networks for point in points):
        by_step.setdefault(point.step, []).append(point)
    means = [
        CurvePoint(
            0, 0, step, *(_mean(column) for column in zip(*(p[3:] for p in points), strict=True))
        )
        for step, points in sorted(by_step.items())
        if len(points) == len(networks)
    ]
    events = _curve_events(level, means, metric)
    if rows:
        events.append(_event(level, _scalars(list(rows.values()), metric)))
    if branch == TRUNK and not level:
        events.insert(0, _layout(metric))
    return events


def _mean(values: Iterable[float]) -> float:
    """Returns the mean of what is finite: a network that diverged has no loss."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def _scalars(rows: Sequence[ResultRow], metric: str) -> dict[str, float]:
    return {
        column_of(tag, metric): _mean(float(getattr(row, column)) for row in rows)
        for tag, column in SCALARS.items()
    }


def _images(store: RunDirectory, row: ResultRow, first: FirstLayer | None) -> dict[str, np.ndarray]:
    if row.branch != TRUNK or first is None:
        return {}
    arrays = store.load(row.replicate, level_name(row.level))
    if arrays is None:
        return {}
    return {f"mask/{short_name(first.name)}": mask_image(arrays[f"mask/{first.name}"], first)}


def mask_image(mask: np.ndarray, first: FirstLayer) -> np.ndarray:
    """Draws the first layer's mask in grey: uint8 `[height, width]`, white where most is kept."""
    if first.image is None:
        values = np.nan_to_num(kernel_tiles(mask, KERNELS), nan=0.25)
    else:
        counts = connections_by_pixel(mask, first.image)
        values = counts / max(int(counts.max()), 1)
    factor = max(1, round(PIXELS / max(values.shape)))
    return np.kron(np.round(255 * values).astype(np.uint8), np.ones((factor, factor), np.uint8))


def read_events(path: Path) -> list[Written]:
    """Returns the events of a file after its head; an empty list where it is missing or cut off."""
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

    content = path.read_bytes() if path.is_file() else b""
    at, found = 0, []
    while at + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        data = content[at + 12 : at + 12 + length]
        at += 12 + length + 4
        if at > len(content):
            return []
        found.append(data)
    events = []
    for data in found[1:]:
        event = Event()
        event.ParseFromString(data)
        events.append((event.step, event.summary.SerializeToString()))
    return events if at == len(content) else []


def _write(path: Path, events: Sequence[Written]) -> None:
    """Appends what a file lacks; writes it anew where it is not whole, or holds something else."""
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

    there = read_events(path)
    begun = bool(there)
    if begun and there == list(events[: len(there)]):
        events = events[len(there) :]
    elif begun and there[: len(events)] == list(events):
        return  # as after a kill: the curve is shorter, until it has caught up
    else:
        begun = False
    if not events:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    now = time.time()
    with path.open("ab" if begun else "wb") as out:
        if not begun:
            out.write(_record(Event(wall_time=now, file_version="brain.Event:2")))
        for step, summary in events:
            out.write(_record(Event(wall_time=now, step=step, summary=Summary.FromString(summary))))


def _record(event: Any) -> bytes:
    """Returns an event as a record: its length (uint64), their checksum, itself, its checksum."""
    from tensorboardX.record_writer import masked_crc32c

    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    sums = [struct.pack("<I", masked_crc32c(part)) for part in (length, data)]
    return length + sums[0] + data + sums[1]


def _event(
    step: int, scalars: Mapping[str, float], images: Mapping[str, np.ndarray] | None = None
) -> Written:
    """Returns the finite scalars and the images (uint8 `[height, width]`) of a step."""
    from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboardX.summary import image

    finite = {tag: value for tag, value in scalars.items() if math.isfinite(value)}
    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in finite.items()]
    for tag, pixels in (images or {}).items():
        values.extend(image(tag, pixels[..., None], dataformats="HWC").value)
    return step, Summary(value=values).SerializeToString()


def _layout(metric: str) -> Written:
    """Returns the event that says which charts the dashboard of custom scalars has.

    All levels of the runs that are chosen are in one chart.
    """
    from tensorboardX.summary import custom_scalars

    curves = [column_of(name, metric) for name in CURVES]
    accuracy = column_of("early_stop/test_accuracy", metric)
    results = {
        f"{accuracy.partition('/')[2].replace('_', ' ')} at early stop": accuracy,
        "step of the early stop": "early_stop/step",
        "weights left": "density",
    }
    layout = {
        "training, every level": {
            name.replace("_", " "): ["Multiline", [f"{name}/level_.*"]] for name in curves
        },
        "results by level": {name: ["Multiline", [tag]] for name, tag in results.items()},
    }
    return 0, custom_scalars(layout).SerializeToString()


def _remove_old(folder: Path) -> None:
    """Removes the files of earlier versions, which had a run for each network and level."""
    for file in folder.glob(f"*/*/*/{OLD_FILE}"):
        file.unlink()
        with contextlib.suppress(OSError):  # it holds something else
            file.parent.rmdir()
            file.parent.parent.rmdir()
