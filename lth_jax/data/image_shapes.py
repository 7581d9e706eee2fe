"""Brings the images of a dataset to the side, channels and border that a network takes."""

from __future__ import annotations

import numpy as np

from lth_jax.data.dataset import Dataset, is_stored
from lth_jax.errors import DataError


def reshaped(dataset: Dataset, *, side: int = 0, channels: int = 0) -> Dataset:
    """Returns the dataset with square images of `side` pixels and `channels` channels.

    Pixels are scaled bilinearly (uint8 are brought to 0–255 first), and grey is repeated to make
    colour. Dtypes stay. Zero keeps the side, or the channels, as they are.

    Raises:
      DataError: colour would have to become grey, or another number of channels.
    """
    shape = dataset.train_images.shape[1:]
    if len(shape) != 3:  # no images
        return dataset
    height, width, depth = shape
    _check_channels(dataset.name, depth, channels)
    if is_stored(dataset.train_images):
        train, test = (
            i.of_side(side or height) for i in (dataset.train_images, dataset.test_images)
        )
        return dataset._replace(train_images=train, test_images=test)
    if side and (height, width) != (side, side):
        dataset = dataset._replace(
            train_images=_scaled(dataset.train_images, dataset.scale, side),
            test_images=_scaled(dataset.test_images, dataset.scale, side),
            scale=1 / 255 if dataset.train_images.dtype == np.uint8 else dataset.scale,
        )
    if channels > depth:
        dataset = dataset._replace(
            train_images=np.repeat(dataset.train_images, channels, axis=-1),
            test_images=np.repeat(dataset.test_images, channels, axis=-1),
        )
    return dataset


def padded(dataset: Dataset, sides: tuple[int, ...]) -> Dataset:
    """Returns the dataset with black pixels around its images, up to (height, width) `sides`."""
    if dataset.train_images.shape[1:3] == sides or dataset.train_images.ndim != 4:
        return dataset
    height, width = dataset.train_images.shape[1:3]
    if is_stored(dataset.train_images):
        raise DataError(
            f"config.data.side={height}: the network takes images of {sides[0]}×{sides[1]}, and "
            f"those of {dataset.name} stay on disk; accepted: {max(sides)} or more"
        )
    missing = (0, sides[0] - height, sides[1] - width, 0)
    border = [(count // 2, count - count // 2) for count in missing]
    return dataset._replace(
        train_images=np.pad(dataset.train_images, border),
        test_images=np.pad(dataset.test_images, border),
    )


def check_images(
    name: str,
    shape: tuple[int, ...],
    *,
    side: int = 0,
    channels: int = 0,
    crop: int = 0,
    flip: bool = False,
) -> None:
    """Checks that images of (height, width, channels) `shape` can be scaled, moved and mirrored so.

    Raises:
      DataError: they cannot; names the field, its value and what is accepted.
    """
    options = {"side": side, "channels": channels, "crop": crop, "flip": flip}
    if len(shape) != 3:
        for field, value in options.items():
            if value:
                what = f"inputs of {'×'.join(map(str, shape)) or 'one number'}, no images"
                raise DataError(
                    f"config.data.{field}={value}: {name} has {what}; accepted: {type(value)(0)}"
                )
        return
    height, width, depth = shape
    _check_channels(name, depth, channels)
    having = f"{name} has images of {height}×{width}"
    for field, value in (("side", side), ("crop", crop), ("flip", flip)):
        if min(height, width) == 1 and value:
            raise DataError(
                f"config.data.{field}={value}: {having}, features; accepted: {type(value)(0)}"
            )
    least = side or min(height, width)
    if crop >= least:
        after = f", scaled to {side}×{side}" if side else ""
        raise DataError(f"config.data.crop={crop}: {having}{after}; accepted: 0 to {least - 1}")


def _check_channels(name: str, depth: int, channels: int) -> None:
    if channels not in (0, depth) and depth != 1:
        raise DataError(
            f"config.data.channels={channels}: {name} has {depth} channels; accepted: 0 or {depth}"
        )


def _scaled(images: np.ndarray, scale: float, side: int) -> np.ndarray:
    """Returns images [n, side, side, channels], uint8 of 0–255 or float32 in the range they had."""
    from PIL import Image

    out = np.empty((len(images), side, side, images.shape[-1]), images.dtype)
    for index, image in enumerate(images):
        if image.dtype == np.uint8:
            image = np.round(image * (255 * scale)).astype(np.uint8)
        for channel in range(images.shape[-1]):
            plane = Image.fromarray(image[..., channel])
            resized = plane.resize((side, side), Image.Resampling.BILINEAR)
            out[index, ..., channel] = np.asarray(resized)
    return out
