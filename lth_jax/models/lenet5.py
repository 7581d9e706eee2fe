"""LeNet-5 (LeCun et al. 1998) with ReLUs and max pooling.

`lenet5_wide`, what the student report's repository trains under this name, has 64 channels of 3×3
in both convolutions and layers of 256: it is Conv-2 (`models/conv.py`).
"""

from __future__ import annotations

import flax.linen as nn
import jax

from lth_jax.models.layers import Network, flat, max_pool


class LeNet5(Network):
    """Two 5×5 convolutions of 6 and 16 channels without padding, then layers of 120 and 84.

    61,706 parameters on 32×32×1 images of 10 classes.
    """

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits [batch, classes] of images [batch, 32, 32, channels]."""
        del train
        for index, channels in enumerate((6, 16), start=1):
            x = max_pool(nn.relu(self.conv(channels, 5, f"conv{index}", padding="VALID")(x)))
        x = flat(x)
        for index, width in enumerate((120, 84), start=1):
            x = nn.relu(self.dense(width, f"fc{index}")(x))
        return self.output(x)
