"""Reads image files so that they look like a dataset's images: shape, grey or colour, backdrop.

Handwriting is mostly dark on light paper, and MNIST is light on a dark, empty backdrop, every digit
scaled to the same box and centred by its mass (LeCun et al. 1998). Where a dataset's images stand
on such a backdrop, a file's are made like them; each step that changed something is told in a line.
"""

from __future__ import annotations

import stat
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lth_jax.errors import DataError, first_line

if TYPE_CHECKING:
    from PIL.Image import Image

_EMPTY = 0.1  # a backdrop's pixels differ from it by less, in a range of 1
_SHARE = 0.9  # of a dataset's corner pixels that are so
_INK = 0.3  # what stands out by more is ink


class Look(NamedTuple):
    """How the images of a dataset look.

    Attributes:
      shape: (height, width, channels).
      grey: whether their channels are equal.
      backdrop: 0.0 if they stand on black, 1.0 if on white, None if on neither.
      fill: the median share of the longer side that what stands on it takes up.
    """

    shape: tuple[int, int, int]
    grey: bool
    backdrop: float | None
    fill: float


class FileImage(NamedTuple):
    """The image of a file, made like a dataset's images.

    Attributes:
      image: float32 [height, width, channels] in [0, 1].
      notes: what was done to it, a phrase each.
    """

    image: np.ndarray
    notes: Sequence[str]


def look_of(images: np.ndarray) -> Look:
    """Returns how images look, float [n, height, width, channels] in [0, 1]."""
    _, height, width, channels = images.shape
    grey = channels == 1 or bool((images == images[..., :1]).all())
    planes = images.mean(-1)
    patch = max(1, min(height, width) // 8)
    ends = (slice(None, patch), slice(-patch, None))
    corners = np.concatenate([planes[:, r, c].ravel() for r in ends for c in ends])
    for backdrop in (0.0, 1.0):
        if (abs(corners - backdrop) < _EMPTY).mean() >= _SHARE:
            boxes = [_box(abs(plane - backdrop)) for plane in planes]
            sides = [max(box[1] - box[0], box[3] - box[2]) for box in boxes if box]
            fill = float(np.median(sides)) / max(height, width) if sides else 1.0
            return Look((height, width, channels), grey, backdrop, fill)
    return Look((height, width, channels), grey, None, 1.0)


def read(path: Path, look: Look) -> FileImage:
    """Reads an image file and makes it look like the dataset's images.

    Raises:
      DataError: there is no such file, it is no image, has too many pixels or some that are no
        finite numbers, or the dataset has other than 1 or 3 channels.
    """
    height, width, channels = look.shape
    if channels not in (1, 3):
        raise DataError(f"{path}: the network takes {channels} channels; accepted: --index")
    notes: list[str] = []
    try:
        picture = _opened(path, notes)
    except MemoryError:
        raise DataError(f"{path}: there is no memory for an image of its size") from None
    if look.grey:
        if picture.mode != "L":
            notes.append("made grey")
        picture = picture.convert("L")
    else:
        picture = picture.convert("RGB")
    plane_like = look.grey and look.backdrop is not None
    values = np.asarray(picture, np.float32) / 255
    if plane_like:
        values = _on_backdrop(values, look, notes)
    else:
        values = _fitted(values, (height, width), notes)
    values = values if values.ndim == 3 else np.repeat(values[..., None], channels, -1)
    return FileImage(np.clip(values, 0, 1).astype(np.float32), notes)


def _opened(path: Path, notes: list[str]) -> Image:
    """Opens the first frame, upright, without transparency, of eight bits a channel."""
    from PIL import Image, ImageOps

    try:
        # To open a pipe or a device may take forever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(f"{path} is no file; accepted: an image file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata, which nobody asked for
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                picture = ImageOps.exif_transpose(file)
                picture.load()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (DataError, MemoryError):
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise DataError(
            f"{path} has too many pixels; accepted: at most {Image.MAX_IMAGE_PIXELS:,}"
        ) from None
    except Exception as error:  # Pillow's plugins raise of every kind
        raise DataError(f"{path} is no image that can be read: {first_line(error)}") from None
    if picture.mode.startswith(("I", "F")):
        return _from_deep(picture, path, notes)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        ink = np.asarray(picture, np.float32)
        weight = ink[..., 3].sum()
        light = weight > 0 and (ink[..., :3].mean(-1) * ink[..., 3]).sum() / weight > 127
        canvas = Image.new("RGBA", picture.size, "black" if light else "white")
        picture = Image.alpha_composite(canvas, picture).convert("RGB")
    return picture


def _from_deep(picture: Image, path: Path, notes: list[str]) -> Image:
    """Brings the range of an image of integers or floats to 0–255.

    Files of 16 bits often come from sensors of 10 or 12: the range is that of the bits in use.

    Raises:
      DataError: some pixels are no finite numbers.
    """
    from PIL import Image

    values = np.asarray(picture, np.float64)
    if not np.isfinite(values).all():
        raise DataError(f"{path} has pixels that are no finite numbers; accepted: finite ones")
    least, most = float(values.min()), float(values.max())
    if picture.mode.startswith("I;16") or (picture.mode == "I" and least >= 0 and most < 2**16):
        bits = max(8, int(most).bit_length())
        least, most = 0.0, 2.0**bits - 1
        if bits < 16:
            notes.append(f"{bits} of its 16 bits are in use: stretched to their range")
    scaled = (values - least) / max(most - least, 1e-12)
    return Image.fromarray(np.round(255 * scaled).astype(np.uint8))


def _on_backdrop(values: np.ndarray, look: Look, notes: list[str]) -> np.ndarray:
    """Puts a grey image [h, w] on the dataset's backdrop, its ink as large and central as there."""
    backdrop = look.backdrop or 0.0
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    ground = float(np.median(border))
    if abs(ground - backdrop) > 0.5:
        values, ground = 1 - values, 1 - ground
        told = {0.0: "dark on light, the training images are light on dark: inverted"}
        notes.append(
            told.get(backdrop, "light on dark, the training images are dark on light: inverted")
        )
    if values.shape == look.shape[:2]:
        return values
    ink = abs(values - ground)
    strongest = float(np.quantile(ink, 0.999))
    box = _box(ink / strongest) if strongest > _EMPTY else None
    if box is None:
        notes.append("blank: nothing stands out in it")
        return np.full(look.shape[:2], backdrop, np.float32)
    if ground != backdrop or strongest < 1 - _EMPTY:
        notes.append("contrast stretched")
    ink = np.clip(ink / strongest, 0, 1)
    ink = np.where(ink < _EMPTY, 0, ink)[box[0] : box[1], box[2] : box[3]]
    notes.append(
        f"its ink ({ink.shape[1]}×{ink.shape[0]} pixels) scaled to {look.fill:.0%} of the image "
        "and centred, as in the training images"
    )
    placed = _placed(ink, look)
    return placed if backdrop == 0 else 1 - placed


def _placed(ink: np.ndarray, look: Look) -> np.ndarray:
    """Scales ink [h, w] to the look's fill, its centre of mass in the middle of the image."""
    height, width = look.shape[:2]
    scale = look.fill * max(height, width) / max(ink.shape)
    scale = min(scale, height / ink.shape[0], width / ink.shape[1])
    small = _resized(ink, [max(1, round(side * scale)) for side in ink.shape])
    out = np.zeros((height, width), np.float32)
    starts = []
    for axis, (side, room) in enumerate(zip(small.shape, (height, width), strict=True)):
        mass = small.sum(1 - axis)
        center = float((np.arange(side) + 0.5) @ mass / mass.sum())
        starts.append(int(np.clip(round(room / 2 - center), 0, room - side)))
    top, left = starts
    out[top : top + small.shape[0], left : left + small.shape[1]] = small
    return out


def _fitted(values: np.ndarray, sides: tuple[int, int], notes: list[str]) -> np.ndarray:
    """Takes the largest middle part that has the proportions of `sides`, and scales it to them."""
    height, width = values.shape[:2]
    scale = max(sides[0] / height, sides[1] / width)
    wanted = [
        min(round(side / scale), have) for side, have in zip(sides, (height, width), strict=True)
    ]
    if wanted != [height, width]:
        notes.append(f"its middle {wanted[1]}×{wanted[0]} pixels")
    top, left = (height - wanted[0]) // 2, (width - wanted[1]) // 2
    return _resized(values[top : top + wanted[0], left : left + wanted[1]], sides)


def _resized(values: np.ndarray, sides: Sequence[int]) -> np.ndarray:
    """Resizes floats [h, w] or [h, w, channels]; every pixel counts."""
    from PIL import Image

    if values.ndim == 3:
        return np.stack([_resized(plane, sides) for plane in np.moveaxis(values, -1, 0)], -1)
    if values.shape == tuple(sides):
        return values
    picture = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(picture.resize((sides[1], sides[0]), Image.Resampling.BILINEAR))


def _box(ink: np.ndarray) -> tuple[int, int, int, int] | None:
    """Returns (top, bottom, left, right) around what stands out of an image [h, w], if anything."""
    rows, columns = (np.flatnonzero((ink > _INK).any(axis)) for axis in (1, 0))
    if not len(rows):
        return None
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
