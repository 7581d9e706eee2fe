"""The networks of the zoo in PyTorch, and a ticket loaded into one.

    pip install . torch
    lth-jax export RUN --level=15 --what=trained --format=torch --out=ticket.pt
    python examples/pytorch_networks.py ticket.pt

A file of `--format=torch` is a `state_dict` in safetensors. Modules are named as Flax's layers are,
so that any module of your own with those names loads it as well. Batch norms have PyTorch's own
eps, 1e-5; layer norms have Flax's, 1e-6. Images come as channels, height, width.

Each class below is a family of `lth_jax.models`. It takes the shapes of its weights by layer (a
file has them), and the network of Flax, for what shapes do not tell.
"""

import json
import sys

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn
from torch.nn.utils import prune

from lth_jax.models import MODELS


def numbered(shapes, name):
    """The layers `name1`, `name2`, …"""
    return [f"{name}{i}" for i in range(1, 1 + len(shapes)) if f"{name}{i}" in shapes]


def convolution(shape, stride=1, padding=None, bias=False):
    """A convolution of square kernels; by default its output is as large as its input."""
    outputs, inputs, width, _ = shape
    padding = width // 2 if padding is None else padding
    return nn.Conv2d(inputs, outputs, width, stride, padding=padding, bias=bias)


class MLP(nn.Module):
    """`fc1`, `fc2`, …, `output`."""

    def __init__(self, shapes, _flax):
        super().__init__()
        self.hidden = numbered(shapes, "fc")
        for name in (*self.hidden, "output"):
            outputs, inputs = shapes[name]
            setattr(self, name, nn.Linear(inputs, outputs))

    def forward(self, x):
        x = x.flatten(1)
        for name in self.hidden:
            x = F.relu(getattr(self, name)(x))
        return self.output(x)


class Conv(MLP):
    """Conv-2, -4 and -6: convolutions, each second one pooled, then an MLP."""

    pooled = ("conv2", "conv4", "conv6")
    first_stride = 1
    padding = None

    def __init__(self, shapes, flax):
        super().__init__(shapes, flax)
        self.convolutions = numbered(shapes, "conv")
        for name in self.convolutions:
            stride = self.first_stride if name == "conv1" else 1
            setattr(self, name, convolution(shapes[name], stride, self.padding, bias=True))

    def forward(self, x):
        for name in self.convolutions:
            x = F.relu(getattr(self, name)(x))
            x = F.max_pool2d(x, 2) if name in self.pooled else x
        return super().forward(x)


class LeNet5(Conv):
    """Both convolutions are pooled, and not padded."""

    pooled = ("conv1", "conv2")
    padding = 0


class AlexNet(Conv):
    """Three of five convolutions are pooled, and the first one has a stride."""

    pooled = ("conv1", "conv2", "conv5")
    first_stride = 2


class VGG(nn.Module):
    """Blocks of convolutions with batch norm, a mean over the pixels, `output`."""

    def __init__(self, shapes, flax):
        super().__init__()
        for index, name in enumerate(numbered(shapes, "conv"), start=1):
            setattr(self, name, convolution(shapes[name]))
            setattr(self, f"norm{index}", nn.BatchNorm2d(shapes[name][0]))
        self.blocks = flax.blocks
        self.output = nn.Linear(*reversed(shapes["output"]))

    def forward(self, x):
        index = 0
        for block, count in enumerate(self.blocks):
            x = F.max_pool2d(x, 2) if block else x
            for _ in range(count):
                index += 1
                x = getattr(self, f"conv{index}")(x)
                x = F.relu(getattr(self, f"norm{index}")(x))
        return self.output(x.mean((2, 3)))


class ResNet(nn.Module):
    """Blocks of two or three convolutions beside a shortcut."""

    def __init__(self, shapes, _flax):
        super().__init__()
        self.large = shapes["conv"][2] == 7  # ImageNet's stem
        self.blocks = list(dict.fromkeys(name.rpartition("_")[0] for name in shapes if "_" in name))
        # By number: as text, block10 would come before block2.
        self.blocks.sort(key=lambda name: [int(part[5:]) for part in name.split("_")])
        for name, shape in shapes.items():
            if name != "output":
                block, _, layer = name.rpartition("_")
                strided = block.endswith("_block1") and not block.startswith("stage1_")
                moves = "conv2" if f"{block}_conv3" in shapes else "conv1"
                stride = 2 if strided and layer in ("shortcut", moves) else 1
                stride = 2 if name == "conv" and self.large else stride
                setattr(self, name, convolution(shape, stride))
                norm = f"{name}_norm" if layer == "shortcut" else name.replace("conv", "norm")
                setattr(self, norm, nn.BatchNorm2d(shape[0]))
        self.output = nn.Linear(*reversed(shapes["output"]))

    def forward(self, x):
        x = F.relu(self.norm(self.conv(x)))
        x = F.max_pool2d(x, 3, 2, padding=1) if self.large else x
        for name in self.blocks:
            x = self._block(x, name)
        return self.output(x.mean((2, 3)))

    def _block(self, x, name):
        y, last = x, 3 if hasattr(self, f"{name}_conv3") else 2
        for index in range(1, last + 1):
            y = getattr(self, f"{name}_norm{index}")(getattr(self, f"{name}_conv{index}")(y))
            y = F.relu(y) if index < last else y
        if hasattr(self, f"{name}_shortcut"):
            x = getattr(self, f"{name}_shortcut_norm")(getattr(self, f"{name}_shortcut")(x))
        return F.relu(x + y)


class CifarResNet(ResNet):
    """The same, with three stages."""


class DenseNet(nn.Module):
    """Blocks whose every layer sees all that came before it."""

    def __init__(self, shapes, flax):
        super().__init__()
        self.large, self.blocks = shapes["conv"][2] == 7, flax.blocks
        for name, shape in shapes.items():
            if name != "output":
                stride = 2 if name == "conv" and self.large else 1
                setattr(self, name, convolution(shape, stride))
                if name != "conv":
                    setattr(self, name.replace("conv", "norm"), nn.BatchNorm2d(shape[1]))
        if self.large:
            self.norm = nn.BatchNorm2d(shapes["conv"][0])
        classes, features = shapes["output"]
        self.last_norm, self.output = nn.BatchNorm2d(features), nn.Linear(features, classes)

    def forward(self, x):
        x = self.conv(x)
        x = F.max_pool2d(F.relu(self.norm(x)), 3, 2, padding=1) if self.large else x
        for block, layers in enumerate(self.blocks, start=1):
            for layer in range(1, layers + 1):
                y = x
                for index in (1, 2):
                    name = f"block{block}_layer{layer}_"
                    y = F.relu(getattr(self, f"{name}norm{index}")(y))
                    y = getattr(self, f"{name}conv{index}")(y)
                x = torch.cat([x, y], 1)
            if block < len(self.blocks):
                x = F.relu(getattr(self, f"transition{block}_norm")(x))
                x = F.avg_pool2d(getattr(self, f"transition{block}_conv")(x), 2)
        return self.output(F.relu(self.last_norm(x)).mean((2, 3)))


class ViT(nn.Module):
    """A pre-norm transformer over patches."""

    def __init__(self, shapes, flax):
        super().__init__()
        self.heads, self.depth = flax.heads, flax.depth
        features, channels, patch, _ = shapes["patches"]
        self.patches = nn.Conv2d(channels, features, patch, patch)
        self.position_embedding = nn.Parameter(torch.zeros(shapes["position_embedding"]))
        for name, shape in shapes.items():
            if name.startswith("block"):
                setattr(self, name, nn.Linear(*reversed(shape)))
        for block in range(1, self.depth + 1):
            for index in (1, 2):
                setattr(self, f"block{block}_norm{index}", nn.LayerNorm(features, eps=1e-6))
        self.norm, self.output = (
            nn.LayerNorm(features, eps=1e-6),
            nn.Linear(features, shapes["output"][0]),
        )

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position_embedding
        for block in range(1, self.depth + 1):
            part = lambda name, block=block: getattr(self, f"block{block}_{name}")  # noqa: E731
            y = part("norm1")(x)
            heads = [
                part(name)(y).unflatten(2, (self.heads, -1)).transpose(1, 2)
                for name in ("query", "key", "value")
            ]
            y = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
            x = x + part("projection")(y)
            y = F.gelu(part("fc1")(part("norm2")(x)), approximate="tanh")
            x = x + part("fc2")(y)
        return self.output(self.norm(x).mean(1))


FAMILIES = {
    family.__name__: family
    for family in (MLP, LeNet5, Conv, AlexNet, VGG, CifarResNet, ResNet, DenseNet, ViT)
}


def network(name, tensors, **options):
    """The module that a `state_dict` fits, its masks in place, its values still to be loaded.

    `options` are those of the Flax network, where they are not those of its row in `MODELS`.
    """
    shapes = {
        key.removesuffix("_orig").removesuffix(".weight"): tuple(tensor.shape)
        for key, tensor in tensors.items()
        if tensor.ndim > 1 and not key.endswith("_mask")
    }
    row = MODELS[name]
    flax = row.module(shapes["output"][0], **{**row.sizes, **options})
    module = FAMILIES[row.module.__name__](shapes, flax)
    for key in tensors:
        if key.endswith(".weight_mask"):
            prune.identity(module.get_submodule(key.removesuffix(".weight_mask")), "weight")
    return module


def load(path):
    """The network of a file that `export --format=torch` wrote, ready to be evaluated."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        name = json.loads(file.metadata()["spec"])["model"]["name"]
    module = network(name, tensors)
    module.load_state_dict(tensors)
    return module.eval()


if __name__ == "__main__":
    loaded = load(sys.argv[1])
    masks = {name: mask for name, mask in loaded.named_buffers() if name.endswith("_mask")}
    for name, mask in masks.items():
        print(f"{name:<40} {int(mask.sum()):>9,} of {mask.numel():>9,} weights kept")
