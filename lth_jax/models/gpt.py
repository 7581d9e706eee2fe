"""A small GPT (Radford et al. 2019): a decoder-only transformer over tokens."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from lth_jax.models.layers import DTYPES, scaled
from lth_jax.models.transformer import Transformer


class GPT(Transformer):
    """Pre-norm causal transformer over tokens, with learned positions.

    The context is as long as the inputs that it is initialized with. The embeddings of tokens and
    positions are no kernels and never pruned; the output layer has weights of its own.

    Attributes:
      layers: the number of blocks.
      features: the features of a token.
      heads: the heads of attention.
      width: the factor of `features`, rounded to whole features of each head.
      dropout: its rate after the embedding, attention and feed-forward layers.
    """

    layers: int = 2
    features: int = 64
    heads: int = 4

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits [batch, tokens, classes] of tokens, integers [batch, tokens]."""
        if not jnp.issubdtype(x.dtype, jnp.integer) or x.ndim != 2:
            raise ValueError(f"it takes tokens [n, tokens], no {x.dtype} of {x.shape[1:]}")
        features = self.heads * scaled(self.features // self.heads, self.width)
        draw = nn.initializers.normal(0.02)
        dtype = DTYPES[self.dtype]
        tokens = nn.Embed(
            self.classes, features, dtype=dtype, embedding_init=draw, name="token_embedding"
        )(x)
        positions = self.param("position_embedding", draw, (1, x.shape[1], features))
        x = self.dropped(self.dropout, tokens + positions.astype(tokens.dtype), train)
        causal = nn.make_causal_mask(jnp.zeros(x.shape[:2]), dtype=bool)
        for block in range(1, self.layers + 1):
            seen = self.normed(x, f"block{block}_norm1")
            x = x + self.attention(seen, f"block{block}", train, causal)
            y = self.dense(4 * features, f"block{block}_fc1")(self.normed(x, f"block{block}_norm2"))
            y = self.dense(features, f"block{block}_fc2")(nn.gelu(y))
            x = x + self.dropped(self.dropout, y, train)
        return self.output(self.normed(x, "norm"))
