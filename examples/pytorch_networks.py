"""The networks of the zoo in PyTorch, and a ticket loaded into one.

    python -m lth_jax export RUN --level=15 --what=trained --format=torch --out=ticket.pt
    python examples/pytorch_networks.py ticket.pt

A file of `--format=torch` is a `state_dict` in safetensors. Modules are named as Flax's layers are,
so that any module of your own with those names loads it as well. Batch norms have PyTorch's own
eps, 1e-5; layer norms have Flax's, 1e-6. Images come as channels, height, width.
"""

import json
import sys
from itertools import pairwise

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn
from torch.nn.utils import prune


class MLP(nn.Module):
    """`fc1`, `fc2`, …, `output`."""

    def __init__(self, inputs, hidden, classes):
        super().__init__()
        self.widths = [inputs, *hidden]
        for index, sizes in enumerate(pairwise(self.widths), start=1):
            setattr(self, f"fc{index}", nn.Linear(*sizes))
        self.output = nn.Linear(self.widths[-1], classes)

    def forward(self, x):
        x = x.flatten(1)
        for index in range(1, len(self.widths)):
            x = F.relu(getattr(self, f"fc{index}")(x))
        return self.output(x)


class Convolutions(MLP):
    """LeNet-5, Conv-2, -4 and -6, and AlexNet: convolutions, poolings after some, then an MLP."""

    def __init__(self, channels, pooled, inputs, hidden, classes, width=3, padding=1, stride=1):
        super().__init__(inputs, hidden, classes)
        self.pooled = pooled
        for index, sizes in enumerate(pairwise(channels), start=1):
            step = stride if index == 1 else 1
            conv = nn.Conv2d(*sizes, width, padding=padding, stride=step)
            setattr(self, f"conv{index}", conv)
        self.count = len(channels) - 1

    def forward(self, x):
        for index in range(1, self.count + 1):
            x = F.relu(getattr(self, f"conv{index}")(x))
            x = F.max_pool2d(x, 2) if index in self.pooled else x
        return super().forward(x)


class VGG(nn.Module):
    """Blocks of convolutions with batch norm, a mean over the pixels, `output`."""

    def __init__(self, channels, blocks, classes):
        super().__init__()
        for index, sizes in enumerate(pairwise(channels), start=1):
            setattr(self, f"conv{index}", nn.Conv2d(*sizes, 3, padding=1, bias=False))
            setattr(self, f"norm{index}", nn.BatchNorm2d(sizes[1]))
        self.blocks = blocks
        self.output = nn.Linear(channels[-1], classes)

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
    """Both families: blocks of two or three convolutions beside a shortcut."""

    def __init__(self, shapes, blocks, classes, large=False):
        super().__init__()
        self.blocks, self.large = blocks, large
        for name, shape in shapes.items():  # of the kernels, OIHW
            name = name.removesuffix(".weight")
            if name != "output":
                strided = name.startswith("stage") and not name.startswith("stage1_")
                strided = strided and "_block1_" in name
                bottleneck = f"{name.rsplit('_', 1)[0]}_conv3.weight" in shapes
                which = "shortcut" if name.endswith("shortcut") else name[-1]
                moves = which == "shortcut" or which == ("2" if bottleneck else "1")
                stride = 2 if (strided and moves) or (name == "conv" and large) else 1
                conv = nn.Conv2d(
                    shape[1], shape[0], shape[2], stride, padding=shape[2] // 2, bias=False
                )
                norm = f"{name}_norm" if which == "shortcut" else name.replace("conv", "norm")
                setattr(self, name, conv)
                setattr(self, norm, nn.BatchNorm2d(shape[0]))
        self.output = nn.Linear(shapes["output.weight"][1], classes)

    def forward(self, x):
        x = F.relu(self.norm(self.conv(x)))
        x = F.max_pool2d(x, 3, 2, padding=1) if self.large else x
        for stage, count in enumerate(self.blocks, start=1):
            for block in range(1, count + 1):
                x = self._block(x, f"stage{stage}_block{block}")
        return self.output(x.mean((2, 3)))

    def _block(self, x, name):
        y, last = x, 3 if hasattr(self, f"{name}_conv3") else 2
        for index in range(1, last + 1):
            y = getattr(self, f"{name}_norm{index}")(getattr(self, f"{name}_conv{index}")(y))
            y = F.relu(y) if index < last else y
        if hasattr(self, f"{name}_shortcut"):
            x = getattr(self, f"{name}_shortcut_norm")(getattr(self, f"{name}_shortcut")(x))
        return F.relu(x + y)


class DenseNet(nn.Module):
    """Blocks whose every layer sees all that came before it."""

    def __init__(self, shapes, blocks, classes, large=False):
        super().__init__()
        self.blocks, self.large = blocks, large
        for name, shape in shapes.items():
            name = name.removesuffix(".weight")
            if name != "output":
                width, stride = shape[2], 2 if name == "conv" and large else 1
                conv = nn.Conv2d(shape[1], shape[0], width, stride, padding=width // 2, bias=False)
                setattr(self, name, conv)
                if name != "conv":
                    setattr(self, name.replace("conv", "norm"), nn.BatchNorm2d(shape[1]))
        if large:
            self.norm = nn.BatchNorm2d(shapes["conv.weight"][0])
        features = shapes["output.weight"][1]
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

    def __init__(self, shapes, tokens, depth, heads, classes):
        super().__init__()
        self.depth, self.heads = depth, heads
        features, channels, patch, _ = shapes["patches.weight"]
        self.patches = nn.Conv2d(channels, features, patch, patch)
        self.position_embedding = nn.Parameter(torch.zeros(1, tokens, features))
        for name, shape in shapes.items():
            if name.startswith("block"):
                setattr(self, name.removesuffix(".weight"), nn.Linear(shape[1], shape[0]))
        for block in range(1, depth + 1):
            for index in (1, 2):
                setattr(self, f"block{block}_norm{index}", nn.LayerNorm(features, eps=1e-6))
        self.norm, self.output = nn.LayerNorm(features, eps=1e-6), nn.Linear(features, classes)

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


BLOCKS = {
    "vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4),
    "resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3),
    **{f"resnet{6 * n + 2}": (n, n, n) for n in (3, 5, 7, 9, 18)},
    "densenet121": (6, 12, 24, 16),
}  # fmt: skip


def network(name, tensors, stem="small", depth=12, heads=3, blocks=()):
    """The module that a `state_dict` fits, its masks in place, its values still to be loaded."""
    shapes = {
        key.replace("_orig", ""): tuple(tensor.shape)
        for key, tensor in tensors.items()
        if key.endswith(("weight", "weight_orig")) and tensor.ndim > 1
    }
    classes = shapes["output.weight"][0]
    convs = [shapes[f"conv{i}.weight"] for i in range(1, 20) if f"conv{i}.weight" in shapes]
    hidden = [shapes[f"fc{i}.weight"][0] for i in range(1, 20) if f"fc{i}.weight" in shapes]
    channels = [convs[0][1], *(shape[0] for shape in convs)] if convs else []
    inputs = shapes["fc1.weight" if hidden else "output.weight"][1]
    blocks, large = blocks or BLOCKS.get(name), stem == "imagenet"
    if name == "mlp":
        module = MLP(inputs, hidden, classes)
    elif name == "lenet5":
        module = Convolutions(channels, (1, 2), inputs, hidden, classes, width=5, padding=0)
    elif name == "alexnet":
        module = Convolutions(channels, (1, 2, 5), inputs, hidden, classes, stride=2)
    elif name.startswith("conv"):
        module = Convolutions(channels, (2, 4, 6), inputs, hidden, classes)
    elif name.startswith("vgg"):
        module = VGG(channels, blocks, classes)
    elif name.startswith("resnet"):
        module = ResNet(shapes, blocks, classes, large)
    elif name.startswith("densenet"):
        module = DenseNet(shapes, blocks, classes, large)
    else:
        module = ViT(shapes, tensors["position_embedding"].shape[1], depth, heads, classes)
    for key in tensors:
        if key.endswith(".weight_mask"):
            prune.identity(module.get_submodule(key.removesuffix(".weight_mask")), "weight")
    return module


def load(path):
    """The network of a file that `export --format=torch` wrote, ready to be evaluated."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        model = json.loads(file.metadata()["spec"])["model"]
    module = network(model["name"], tensors, model["stem"])
    module.load_state_dict(tensors)
    return module.eval()


if __name__ == "__main__":
    loaded = load(sys.argv[1])
    masks = {name: mask for name, mask in loaded.named_buffers() if name.endswith("_mask")}
    for name, mask in masks.items():
        print(f"{name:<40} {int(mask.sum()):>9,} of {mask.numel():>9,} weights kept")
