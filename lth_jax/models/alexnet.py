"""AlexNet (Krizhevsky et al. 2012) for 32×32 images: 3×3 kernels where the original has 11×11."""

from __future__ import annotations

import flax.linen as nn
import jax

from lth_jax.models.layers import Network, flat, max_pool, scaled


class AlexNet(Network):
    """Five convolutions with three poolings, then layers of 4096 and 4096.

    Attributes:
      width: factor of all layers but the last.
      dropout: its rate before each hidden layer.
    """

    width: float = 1.0
    dropout: float = 0.5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits [batch, classes] of images [batch, height, width, channels].

        Images are 32×32 or larger.
        """
        for index, channels in enumerate((64, 192, 384, 256, 256), start=1):
            layer = self.conv(
                scaled(channels, self.width), 3, f"conv{index}", stride=2 if index == 1 else 1
            )
            x = nn.relu(layer(x))
            if index in (1, 2, 5):
                x = max_pool(x)
        x = flat(x)
        for index in (1, 2):
            x = self.dropped(self.dropout, x, train)
            x = nn.relu(self.dense(scaled(4096, self.width), f"fc{index}")(x))
        return self.output(x)
