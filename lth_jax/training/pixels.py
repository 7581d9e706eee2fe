"""Pixels: from stored inputs, mostly images, to what a network sees, inside the compiled step."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, Shaped


class Pixels(NamedTuple):
    """How stored images become what a network sees.

    Attributes:
      scale: `pixel * scale` lies in [0, 1].
      mean, deviation: of each channel after that, to be taken off and divided by; empty for none.
      crop: in training, pixels by which an image is moved at most, in both directions; black
        follows.
      flip: whether, in training, half of the images are mirrored, left to right.
    """

    scale: float
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    crop: int = 0
    flip: bool = False

    def prepared(self, images: jax.Array) -> jax.Array:
        """Returns stored images, of any batch axes, as the network sees them, float32.

        Tokens, which are int32, it sees as they are.
        """
        if images.dtype == jnp.int32:
            return images
        floats = images.astype(jnp.float32) * self.scale
        if not self.mean:
            return floats
        shape = (1, 1, 1, len(self.mean))
        mean = np.asarray(self.mean, np.float32).reshape(shape)
        return (floats - mean) / np.asarray(self.deviation, np.float32).reshape(shape)

    def augmented(
        self, images: Shaped[Array, "batch ..."], key: Key[Array, ""]
    ) -> Shaped[Array, "batch ..."]:
        """Returns stored images, each moved and mirrored by chance, as functions of `key` alone.

        He et al. 2016, §4.2: a random crop of the image with a border of `crop` black pixels.
        """
        if self.flip:
            mirrored = jax.random.bernoulli(jax.random.fold_in(key, 0), 0.5, (len(images),))
            images = jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
        if self.crop:
            moves = jax.random.randint(
                jax.random.fold_in(key, 1), (len(images), 2), 0, 2 * self.crop + 1
            )
            images = jax.vmap(self._cropped)(images, moves)
        return images

    def _cropped(self, image: jax.Array, move: jax.Array) -> jax.Array:
        border = jnp.pad(image, ((self.crop, self.crop), (self.crop, self.crop), (0, 0)))
        return jax.lax.dynamic_slice(border, (move[0], move[1], 0), image.shape)


def statistics(images: np.ndarray, scale: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns (mean, deviation) of each channel of images times `scale`; of uint8 to four decimals.

    For MNIST and CIFAR-10 these are the constants that everybody writes down: 0.1307 and 0.3081;
    0.4914, 0.4822, 0.4465 and 0.2470, 0.2435, 0.2616. The deviation of a channel that is the same
    everywhere is given as 1, for it divides.
    """
    moments = _of_bytes if images.dtype == np.uint8 else _of_floats
    found = [moments(images[..., channel], scale) for channel in range(images.shape[-1])]
    return tuple(mean for mean, _ in found), tuple(deviation or 1.0 for _, deviation in found)


def _of_bytes(plane: np.ndarray, scale: float) -> tuple[float, float]:
    """Returns the moments exactly, without a float copy of the dataset."""
    values = np.arange(256) * scale
    counts = np.bincount(plane.ravel(), minlength=256) / plane.size
    mean = float(counts @ values)
    return round(mean, 4), round(float(np.sqrt(counts @ (values - mean) ** 2)), 4)


def _of_floats(plane: np.ndarray, scale: float) -> tuple[float, float]:
    """Returns the moments unrounded: a channel's numbers may be of any size."""
    doubles = plane.astype(np.float64) * scale
    return float(doubles.mean()), float(doubles.std())
