"""What the transformers share: attention whose parts are layers of their own."""

from __future__ import annotations

import flax.linen as nn
import jax

from lth_jax.models.layers import DTYPES, Network


class Transformer(Network):
    """Makes the parts of a pre-norm transformer.

    Queries, keys, values and their projection are layers of their own, so that each is ranked by
    itself.

    Attributes:
      heads: the heads of attention.
      width: the factor of the features, rounded to whole features of each head.
      dropout: the rate after attention, and elsewhere as a network says.
    """

    heads: int = 1
    width: float = 1.0
    dropout: float = 0.0

    def normed(self, x: jax.Array, name: str) -> jax.Array:
        """Normalizes the features of each token."""
        return nn.LayerNorm(dtype=DTYPES[self.dtype], name=name)(x)

    def attention(
        self, x: jax.Array, name: str, train: bool, mask: jax.Array | None = None
    ) -> jax.Array:
        """Returns what tokens [batch, tokens, features] take from each other, of the same shape.

        Args:
          x: the tokens.
          name: what the names of its layers begin with.
          train: whether units are dropped.
          mask: bool, which tokens [.., to, from] are seen; None is all.
        """
        features = x.shape[-1]

        def split(part: str) -> jax.Array:
            y = self.dense(features, f"{name}_{part}")(x)
            return y.reshape(*y.shape[:-1], self.heads, -1)

        y = nn.dot_product_attention(split("query"), split("key"), split("value"), mask=mask)
        y = self.dense(features, f"{name}_projection")(y.reshape(*y.shape[:2], -1))
        return self.dropped(self.dropout, y, train)
