"""VGG (Simonyan & Zisserman 2015) for small images: batch norm, and one linear layer at the end.

As Frankle & Carbin (2019, Figure 2) have VGG-19: 20.0M weights on CIFAR-10.
"""

from __future__ import annotations

import flax.linen as nn
import jax

from lth_jax.models.layers import Network, global_mean, max_pool, scaled


class VGG(Network):
    """Blocks of convolutions with batch norm, pooled in between, and pooled to 1×1 at the end.

    Attributes:
      blocks: 3×3 convolutions in each block.
      width: factor of the channels.
    """

    blocks: tuple[int, ...] = (2, 2, 4, 4, 4)
    width: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits [batch, classes] of images [batch, height, width, channels].

        Images are 16×16 or larger.
        """
        index = 0
        for block, convolutions in enumerate(self.blocks):
            if block:
                x = max_pool(x)
            for _ in range(convolutions):
                index += 1
                channels = scaled(min(64 * 2**block, 512), self.width)
                x = self.conv(channels, 3, f"conv{index}", bias=False)(x)
                x = nn.relu(self.norm(train, f"norm{index}")(x))
        return self.output(global_mean(x))
