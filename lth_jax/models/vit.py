"""ViT-Tiny (Dosovitskiy et al. 2021; sizes of Touvron et al. 2021) on patches of 4×4 pixels."""

from __future__ import annotations

import flax.linen as nn
import jax

from lth_jax.models.layers import scaled
from lth_jax.models.transformer import Transformer


class ViT(Transformer):
    """Pre-norm transformer over patches, whose outputs are averaged instead of a class token.

    The positions' embedding is no kernel and never pruned.

    Attributes:
      depth: number of blocks.
      features: of a token.
      heads: of attention.
      patch: its side in pixels.
      dropout: its rate after attention and within the feed-forward layers.
    """

    depth: int = 12
    features: int = 192
    heads: int = 3
    patch: int = 4

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits [batch, classes] of images [batch, height, width, channels]."""
        head = scaled(self.features // self.heads, self.width)
        features = self.heads * head
        x = self.conv(features, self.patch, "patches", stride=self.patch, padding="VALID")(x)
        x = x.reshape(x.shape[0], -1, features)
        positions = self.param(
            "position_embedding", nn.initializers.normal(0.02), (1, x.shape[1], features)
        )
        x = x + positions.astype(x.dtype)
        for block in range(1, self.depth + 1):
            x = x + self.attention(self.normed(x, f"block{block}_norm1"), f"block{block}", train)
            y = self.dense(4 * features, f"block{block}_fc1")(self.normed(x, f"block{block}_norm2"))
            y = self.dropped(self.dropout, nn.gelu(y), train)
            x = x + self.dense(features, f"block{block}_fc2")(y)
        return self.output(self.normed(x, "norm").mean(1))
