"""Conv-2, -4, -6 and ResNet-20 in PyTorch, with our initial parameters, and their training loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from problem import Problem
from pytorch_loops import Loop, orders
from torch import nn
from torch.nn import functional

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
Layers = Mapping[str, Mapping[str, np.ndarray]]


class ConvNet(nn.Module):
    """Computes Conv-2, -4 or -6: pairs of convolutions, each pair pooled, then dense layers."""

    def __init__(self, params: Layers, side: int):
        super().__init__()
        convolutions = sorted(name for name in params if name.startswith("conv"))
        self.pairs = [convolutions[i : i + 2] for i in range(0, len(convolutions), 2)]
        self.layers = nn.ModuleDict({name: convolution(params[name]) for name in convolutions})
        pixels = (side >> len(self.pairs)) ** 2
        self.layers["fc1"] = linear(params["fc1"], pixels)
        self.layers.update({name: linear(params[name]) for name in ("fc2", "output")})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the logits of images [batch, channels, height, width]."""
        for pair in self.pairs:
            for name in pair:
                x = functional.relu(self.layers[name](x))
            x = functional.max_pool2d(x, 2)
        x = functional.relu(self.layers["fc1"](x.flatten(1)))
        return self.layers["output"](functional.relu(self.layers["fc2"](x)))


class ResNet20(nn.Module):
    """Computes three stages of three blocks, 1×1 convolutions where the shape changes."""

    def __init__(self, params: Layers):
        super().__init__()
        self.layers = nn.ModuleDict()
        for name, layer in params.items():
            if name == "output":
                self.layers[name] = linear(layer)
            elif "norm" in name:
                self.layers[name] = nn.BatchNorm2d(len(layer["scale"]))
            else:
                strided = name.startswith(("stage2_block1", "stage3_block1"))
                strided = strided and not name.endswith("conv2")
                self.layers[name] = convolution(layer, 2 if strided else 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the logits of images [batch, channels, height, width]."""
        x = self._conv_norm(x, "conv", "norm").relu_()
        for block in (f"stage{i}_block{j}" for i in (1, 2, 3) for j in (1, 2, 3)):
            y = self._conv_norm(x, f"{block}_conv1", f"{block}_norm1").relu_()
            y = self._conv_norm(y, f"{block}_conv2", f"{block}_norm2")
            if f"{block}_shortcut" in self.layers:
                x = self._conv_norm(x, f"{block}_shortcut", f"{block}_shortcut_norm")
            x = (y + x).relu_()
        return self.layers["output"](x.mean((2, 3)))

    def _conv_norm(self, x: torch.Tensor, conv: str, norm: str) -> torch.Tensor:
        return self.layers[norm](self.layers[conv](x))


def convolution(layer: Mapping[str, np.ndarray], stride: int = 1) -> nn.Conv2d:
    """Returns a convolution with a border of half its width; kernels: [height, width, in, out]."""
    height, width, channels, features = layer["kernel"].shape
    border = (height // 2, width // 2)
    made = nn.Conv2d(channels, features, (height, width), stride, border, bias="bias" in layer)
    made.weight.data = torch.tensor(layer["kernel"].transpose(3, 2, 0, 1).copy())
    if "bias" in layer:
        made.bias.data = torch.tensor(layer["bias"])
    return made


def linear(layer: Mapping[str, np.ndarray], pixels: int = 1) -> nn.Linear:
    """Returns a dense layer after `pixels` pixels; PyTorch has their channels first, we last."""
    inputs, outputs = layer["kernel"].shape
    kernel = layer["kernel"].reshape(pixels, inputs // pixels, outputs).transpose(2, 1, 0)
    made = nn.Linear(inputs, outputs)
    made.weight.data = torch.tensor(kernel.reshape(outputs, inputs).copy())
    made.bias.data = torch.tensor(layer["bias"])
    return made


class ConvLoop(Loop):
    """Trains eagerly on float images in memory, with masks on gradients and the fused optimizer.

    Args:
      problem: the data and the starting point.
      memory_format: one of `FORMATS`, of parameters and images.
    """

    def __init__(self, problem: Problem, memory_format: str):
        self.format = FORMATS[memory_format]
        super().__init__(problem, fused=True)
        self.masks = [(p, torch.ones_like(p)) for p in self.model.parameters() if p.ndim > 1]

    def _network(self, problem: Problem) -> nn.Module:
        if problem.spec.model.name == "resnet20":
            made: nn.Module = ResNet20(problem.params)
        else:
            made = ConvNet(problem.params, problem.splits.train.images.shape[1])
        return made.to(memory_format=self.format)

    def _optimizer(self, problem: Problem, fused: bool | None) -> torch.optim.Optimizer:
        train = problem.spec.train
        if train.optimizer == "adam":
            return super()._optimizer(problem, fused)
        return torch.optim.SGD(
            self.model.parameters(),
            lr=train.learning_rate,
            momentum=train.momentum,
            weight_decay=train.weight_decay,
            fused=fused,
        )

    def _endless_batches(self, problem: Problem) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        pixels, stored = problem.pixels, problem.splits.train
        images = torch.tensor(stored.images.transpose(0, 3, 1, 2).copy()).float() * pixels.scale
        if pixels.mean:
            mean, deviation = (torch.tensor(v) for v in (pixels.mean, pixels.deviation))
            images = (images - mean[:, None, None]) / deviation[:, None, None]
        images = images.contiguous(memory_format=self.format)
        labels = torch.tensor(stored.labels).long()
        last = len(labels) - len(labels) % self.batch_size
        for order in orders(problem):
            for start in range(0, last, self.batch_size):
                batch = order[start : start + self.batch_size]
                yield images[batch].contiguous(memory_format=self.format), labels[batch]

    def _freeze(self) -> None:
        for parameter, mask in self.masks:
            assert parameter.grad is not None
            parameter.grad.mul_(mask)
