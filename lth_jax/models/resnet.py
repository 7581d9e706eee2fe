"""Residual networks: those of CIFAR and of ImageNet (He et al. 2016), and wide ones."""

from __future__ import annotations

import flax.linen as nn
import jax

from lth_jax.models.layers import Network, global_mean, scaled, stem_pool


class Residual(Network):
    """The blocks with shortcuts that both families are made of."""

    def block(
        self, x: jax.Array, train: bool, name: str, channels: int, stride: int, bottleneck: bool
    ) -> jax.Array:
        """Applies two 3×3 convolutions, or a bottleneck of three, beside a shortcut.

        Where the shape changes, the shortcut is a 1×1 convolution with batch norm.
        """
        widths = ((channels, 1), (channels, 3), (4 * channels, 1)) if bottleneck else (
            (channels, 3),
            (channels, 3),
        )  # fmt: skip
        strided = 2 if bottleneck else 1  # which of the convolutions has the stride
        y = x
        for index, (features, width) in enumerate(widths, start=1):
            step = stride if index == strided else 1
            y = self.conv(features, width, f"{name}_conv{index}", stride=step, bias=False)(y)
            y = self.norm(train, f"{name}_norm{index}")(y)
            y = nn.relu(y) if index < len(widths) else y
        if self.has(f"{name}_shortcut", x.shape != y.shape):
            features = y.shape[-1]
            x = self.conv(features, 1, f"{name}_shortcut", stride=stride, bias=False)(x)
            x = self.norm(train, f"{name}_shortcut_norm")(x)
        return nn.relu(x + y)


class CifarResNet(Residual):
    """ResNet-20, -32, -44, -56 and -110: three stages of 16, 32 and 64 channels.

    Shortcuts between stages are 1×1 convolutions (2,560 weights, as Frankle & Carbin 2019 have
    them, who call ResNet-20 ResNet-18). They are pruned unless `pruning.layer_rates` says
    otherwise: `(("*_shortcut", 0),)`.

    Attributes:
      depth: 6n + 2.
      width: factor of the channels.
    """

    depth: int = 20
    width: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits [batch, classes] of images [batch, height, width, channels]."""
        x = self.conv(scaled(16, self.width), 3, "conv", bias=False)(x)
        x = nn.relu(self.norm(train, "norm")(x))
        for stage in range(3):
            channels = scaled(16 * 2**stage, self.width)
            for block in range((self.depth - 2) // 6):
                stride = 2 if stage and not block else 1
                name = f"stage{stage + 1}_block{block + 1}"
                x = self.block(x, train, name, channels, stride, False)
        return self.output(global_mean(x))


class WideResNet(Network):
    """WRN-16, -22 and -28 (Zagoruyko & Komodakis 2016): norm and ReLU come before convolutions.

    Three stages of 16, 32 and 64 channels times the width, each of (depth - 4) / 6 blocks. Where
    the shape changes, the shortcut is a 1×1 convolution of what the block's first norm gives.

    Attributes:
      depth: 6n + 4.
      width: factor of the channels of the stages: WRN-22-2 has 2.
      dropout: between the convolutions of a block.
    """

    depth: int = 22
    width: float = 2.0
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits [batch, classes] of images [batch, height, width, channels]."""
        x = self.conv(16, 3, "conv", bias=False)(x)
        for stage in range(3):
            channels = scaled(16 * 2**stage, self.width)
            for block in range((self.depth - 4) // 6):
                stride = 2 if stage and not block else 1
                name = f"stage{stage + 1}_block{block + 1}"
                y = nn.relu(self.norm(train, f"{name}_norm1")(x))
                if self.has(f"{name}_shortcut", stride > 1 or x.shape[-1] != channels):
                    x = self.conv(channels, 1, f"{name}_shortcut", stride=stride, bias=False)(y)
                y = self.conv(channels, 3, f"{name}_conv1", stride=stride, bias=False)(y)
                y = nn.relu(self.norm(train, f"{name}_norm2")(y))
                y = self.dropped(self.dropout, y, train)
                x = x + self.conv(channels, 3, f"{name}_conv2", bias=False)(y)
        return self.output(global_mean(nn.relu(self.norm(train, "last_norm")(x))))


class ResNet(Residual):
    """ResNet-18, -34 and -50: four stages of 64, 128, 256 and 512 channels.

    Attributes:
      blocks: in each stage.
      bottleneck: whether they are bottlenecks.
      width: factor of the channels.
      stem: `small` (a 3×3 convolution, for images such as CIFAR's) or `imagenet` (7×7 with stride
        2, then pooling).
    """

    blocks: tuple[int, ...] = (2, 2, 2, 2)
    bottleneck: bool = False
    width: float = 1.0
    stem: str = "small"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits [batch, classes] of images [batch, height, width, channels]."""
        large = self.stem == "imagenet"
        x = self.conv(
            scaled(64, self.width), 7 if large else 3, "conv", stride=2 if large else 1, bias=False
        )(x)
        x = nn.relu(self.norm(train, "norm")(x))
        if large:
            x = stem_pool(x)
        for stage, count in enumerate(self.blocks):
            channels = scaled(64 * 2**stage, self.width)
            for block in range(count):
                stride = 2 if stage and not block else 1
                name = f"stage{stage + 1}_block{block + 1}"
                x = self.block(x, train, name, channels, stride, self.bottleneck)
        return self.output(global_mean(x))
