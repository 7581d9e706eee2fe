"""Layers of SparseProp 0.1.14 (Nikdan et al. 2023), called as its users call them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from sparseprop.modules import SparseConv2d, SparseLinear
from sparseprop.modules.utils import from_csr_2d, from_sparse_format_conv2d

if TYPE_CHECKING:
    from layer_cases import Operands

# Its convolutions over images take so many at once, and what is left over wrongly.
IMAGES = 8


class Theirs:
    """Computes one layer eagerly; subclasses say how arrays become its tensors, and back."""

    module: torch.nn.Module
    x: torch.Tensor
    given: torch.Tensor
    share = 1.0  # of the examples it is given, those that count

    def _step(self) -> list[torch.Tensor]:
        """Returns (output, gradient of the values, gradient of the input, if wanted)."""
        y = self.module(self.x)
        wanted = [tensor for tensor in (self.module.W_val, self.x) if tensor.requires_grad]
        # Not `backward`: that would copy the input's gradient, which no layer keeps, into `grad`.
        return [y.detach(), *torch.autograd.grad(y, wanted, self.given)]

    def train(self, steps: int) -> tuple[float]:
        """Returns the seconds of that many repetitions."""
        start = time.perf_counter()
        for _ in range(steps):
            self._step()
        return ((time.perf_counter() - start) * self.share,)


class Linear(Theirs):
    """Calls `SparseLinear`, without a bias."""

    def __init__(self, operands: Operands):
        self.module = SparseLinear(torch.tensor(operands.kernel.T.copy()))
        self.x = torch.tensor(operands.x).requires_grad_(operands.inward)
        self.given = torch.tensor(operands.given)

    def results(self) -> list[np.ndarray]:
        """Returns what `_step` gives, in the layout of ours."""
        y, gradient, *dx = self._step()
        shape = self.module.N, self.module.M
        kernel = from_csr_2d(gradient, self.module.W_idx, shape).numpy().T
        return [y.numpy(), kernel, *(part.numpy() for part in dx)]


class Convolution(Theirs):
    """Calls `SparseConv2d`, without a bias.

    Args:
      operands: what is computed with.
      over_columns: vectorized over an image's columns (`vectorizing_over_on`), else over images;
        with strides its forward pass is over images in either case.
      repacking: whether arrays come as [n, channels, height, width] in memory, as data, pooling and
        batch norm give them; else over images they come as [channels, height, width, n], which
        saves it a repacking of each.
    """

    def __init__(self, operands: Operands, over_columns: bool, repacking: bool):
        case, self.examples = operands.case, len(operands.x)
        stride = case.layer.strides[0]
        self.module = SparseConv2d(
            torch.tensor(operands.kernel.transpose(3, 2, 0, 1).copy()),
            padding=case.padding,
            stride=stride,
            vectorizing_over_on=over_columns,
        )
        whole = self.examples
        if not over_columns or stride > 1:
            whole = -(-self.examples // IMAGES) * IMAGES
        self.share = self.examples / whole

        def laid_out(array: np.ndarray) -> torch.Tensor:
            array = np.pad(array, ((0, whole - self.examples), *[(0, 0)] * 3))
            if over_columns or repacking:
                return torch.tensor(array.transpose(0, 3, 1, 2).copy())
            return torch.tensor(array.transpose(3, 1, 2, 0).copy()).permute(3, 0, 1, 2)

        self.x = laid_out(operands.x).requires_grad_(operands.inward)
        self.given = laid_out(operands.given)

    def results(self) -> list[np.ndarray]:
        """Returns what `_step` gives, in the layout of ours."""
        y, gradient, *dx = self._step()
        shape = self.module.OC, self.module.IC, self.module.K, self.module.K
        kernel = from_sparse_format_conv2d(gradient, self.module.W_idx, shape)
        y, *dx = (part.numpy()[: self.examples].transpose(0, 2, 3, 1) for part in (y, *dx))
        return [y, kernel.numpy().transpose(2, 3, 1, 0), *dx]


def contenders_of(operands: Operands, repacking: bool) -> dict[str, Theirs]:
    """Returns every way in which SparseProp computes a layer, by name."""
    if operands.case.layer.kind == "dense":
        return {"SparseProp": Linear(operands)}
    return {
        "SparseProp, over images": Convolution(operands, False, repacking),
        "SparseProp, over columns": Convolution(operands, True, repacking),
    }
