"""Sparse training in PyTorch: as public repositories have it, and with SparseLab's layers.

Public repositories compute dense products, with masks beside them. SparseLab's layers keep the
weights that are left in padded rows; it has no convolutions.
"""

from __future__ import annotations

import importlib.util
import itertools
import warnings
from typing import Any

import numpy as np
import torch
from problem import Problem
from pytorch_loops import InMemory, Loop, network
from pytorch_nets import FORMATS, ConvLoop
from torch import nn


class Masks:
    """The masks of a loop's network: they zero gradients, and move by RigL (Evci et al. 2020).

    Args:
      loop: whose weights are zero where they are pruned.
      every: steps between two moves; 0 for none.
      fraction: the share of a layer's weights that a move exchanges.
    """

    def __init__(self, loop: Loop, every: int, fraction: float):
        self.loop, self.every, self.fraction = loop, every, fraction
        self.masks = {p: (p.detach() != 0) for p in loop.model.parameters() if p.ndim > 1}
        self.steps = itertools.count()

    def freeze(self) -> None:
        """Moves the masks where it is time, and zeroes the gradients of pruned weights."""
        step = next(self.steps)
        if self.every and step and step % self.every == 0:
            with torch.no_grad():
                for parameter, mask in self.masks.items():
                    self._move(parameter, mask)
        for parameter, mask in self.masks.items():
            assert parameter.grad is not None
            parameter.grad.mul_(mask)

    def _move(self, parameter: torch.Tensor, mask: torch.Tensor) -> None:
        """Drops the smallest weights of a layer, grows as many where the gradient is largest."""
        assert parameter.grad is not None
        kept = int(mask.sum())
        count = int(self.fraction * kept)
        largest = torch.where(mask, parameter.abs(), -1.0).flatten().topk(kept - count).indices
        stayed = torch.zeros_like(mask).flatten()
        stayed[largest] = True
        free = torch.where(stayed, -1.0, parameter.grad.abs().flatten())
        new = stayed.clone()
        new[free.topk(count).indices] = True
        both = new.view_as(mask) & mask
        state: dict[str, Any] = self.loop.optimizer.state[parameter]
        for tensor in (parameter, *state.values()):
            if torch.is_tensor(tensor) and tensor.shape == mask.shape:
                tensor.mul_(both)
        mask.copy_(new.view_as(mask))


class SparseMLP(InMemory):
    """Trains an MLP of which a part of the weights is zero, with the fused optimizer."""

    def __init__(self, problem: Problem, every: int, fraction: float):
        super().__init__(problem, fused=True)
        self.pruning = Masks(self, every, fraction)

    def _freeze(self) -> None:
        self.pruning.freeze()


class SparseConvNet(ConvLoop):
    """Trains a convolutional network of which a part of the weights is zero."""

    def __init__(self, problem: Problem, memory_format: str, every: int, fraction: float):
        super().__init__(problem, memory_format)
        self.pruning = Masks(self, every, fraction)

    def _freeze(self) -> None:
        self.pruning.freeze()


class SparseLabMLP(InMemory):
    """Trains an MLP of SparseLab's layers, moved by its own RigL, with the fused optimizer."""

    def __init__(self, problem: Problem, every: int, fraction: float):
        super().__init__(problem, fused=True)
        if every:
            import sparselab

            rule = sparselab.RigL(sparsity=0.9, drop_fraction=fraction, update_freq=every)
            self.model.apply(rule)
            # It looks at the gradients of the first layer's outputs, whose inputs have none.
            warnings.filterwarnings("ignore", "Full backward hook is firing")
            self.optimizer.register_step_post_hook(lambda *_: rule.step())

    def _network(self, problem: Problem) -> nn.Module:
        import sparselab

        layers: list[nn.Module] = []
        for layer in network(problem):
            if isinstance(layer, nn.Linear):
                with warnings.catch_warnings(action="ignore"):  # PyTorch calls its CSR beta
                    sparse = sparselab.SparseLinear(layer.in_features, layer.out_features)
                    # It draws masks of its own; these are its layers with our weights.
                    sparse._csr = sparselab.PaddedCSR.from_dense(layer.weight.detach())
                sparse._values = nn.Parameter(torch.from_numpy(np.asarray(sparse._csr.values)))
                sparse.bias = layer.bias
                layer = sparse
            layers.append(layer)
        return nn.Sequential(*layers)


def loops(problem: Problem, every: int, fraction: float) -> dict[str, Loop]:
    """Returns the loops of a problem, by their names in the table; {} is the rule's place.

    A convolutional network has one in each memory format, an MLP one with SparseLab's layers, too,
    where that is installed.
    """
    if problem.spec.model.name.startswith("conv"):
        return {
            f"PyTorch {{}} {name}": SparseConvNet(problem, name, every, fraction)
            for name in FORMATS
        }
    found: dict[str, Loop] = {"PyTorch {}": SparseMLP(problem, every, fraction)}
    if importlib.util.find_spec("sparselab"):
        found["SparseLab {}"] = SparseLabMLP(problem, every, fraction)
    return found
