"""Conv-2, Conv-4 and Conv-6 (Frankle & Carbin 2019, Figure 2): small relatives of VGG.

The paper counts 4.3M weights for Conv-2 (38K of them in convolutions), 2.4M (260K) for Conv-4 and
1.7M (1.1M) for Conv-6. The last does not add up: six convolutions as in its Figure 2 leave 4×4×256
values, whose layer of 256 alone has 1.05M weights. Here Conv-6 has 2.26M weights, 1.14M of them in
convolutions.
"""

from __future__ import annotations

import flax.linen as nn
import jax

from lth_jax.models.layers import Network, flat, max_pool, scaled


class Conv(Network):
    """Pairs of 3×3 convolutions, each pair pooled, then layers of 256 and 256.

    Attributes:
      pairs: of convolutions, with 64, 128, 256, … channels.
      width: factor of all layers but the last.
      dropout: its rate after each pooling and hidden layer (the paper's §4 uses 0.5).
    """

    pairs: int = 1
    width: float = 1.0
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits [batch, classes] of images [batch, height, width, channels]."""
        for pair in range(self.pairs):
            for index in (2 * pair + 1, 2 * pair + 2):
                channels = scaled(64 * 2**pair, self.width)
                x = nn.relu(self.conv(channels, 3, f"conv{index}")(x))
            x = self.dropped(self.dropout, max_pool(x), train)
        x = flat(x)
        for index in (1, 2):
            x = nn.relu(self.dense(scaled(256, self.width), f"fc{index}")(x))
            x = self.dropped(self.dropout, x, train)
        return self.output(x)
