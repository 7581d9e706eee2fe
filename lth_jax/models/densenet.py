"""DenseNet-121 (Huang et al. 2017), with the stem of small images or that of ImageNet."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from lth_jax.models.layers import Network, global_mean, scaled, stem_pool


class DenseNet(Network):
    """Blocks whose every layer sees all that came before it, halved in between (DenseNet-BC).

    Attributes:
      blocks: layers in each block.
      width: factor of the growth rate, 32.
      stem: `small` (a 3×3 convolution) or `imagenet` (7×7 with stride 2, then pooling).
    """

    blocks: tuple[int, ...] = (6, 12, 24, 16)
    width: float = 1.0
    stem: str = "small"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits [batch, classes] of images [batch, height, width, channels].

        Images are 8×8 or larger.
        """
        growth = scaled(32, self.width)
        large = self.stem == "imagenet"
        x = self.conv(2 * growth, 7 if large else 3, "conv", stride=2 if large else 1, bias=False)(
            x
        )
        if large:
            x = nn.relu(self.norm(train, "norm")(x))
            x = stem_pool(x)
        for block, layers in enumerate(self.blocks, start=1):
            for layer in range(1, layers + 1):
                name = f"block{block}_layer{layer}"
                y = nn.relu(self.norm(train, f"{name}_norm1")(x))
                y = self.conv(4 * growth, 1, f"{name}_conv1", bias=False)(y)
                y = nn.relu(self.norm(train, f"{name}_norm2")(y))
                y = self.conv(growth, 3, f"{name}_conv2", bias=False)(y)
                x = jnp.concatenate([x, y], -1)
            if block < len(self.blocks):
                x = nn.relu(self.norm(train, f"transition{block}_norm")(x))
                x = self.conv(x.shape[-1] // 2, 1, f"transition{block}_conv", bias=False)(x)
                x = nn.avg_pool(x, (2, 2), (2, 2))
        x = nn.relu(self.norm(train, "last_norm")(x))
        return self.output(global_mean(x))
