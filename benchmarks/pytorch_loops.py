"""The same training in PyTorch: data in memory, and through a DataLoader."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from problem import Problem
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler, TensorDataset


def network(problem: Problem) -> nn.Sequential:
    """Returns LeNet-300-100 with the problem's initial parameters."""
    layers: list[nn.Module] = [nn.Flatten()]
    for layer in problem.params.values():
        linear = nn.Linear(*layer["kernel"].shape)
        linear.weight.data = torch.tensor(layer["kernel"].T).contiguous()
        linear.bias.data = torch.tensor(layer["bias"])
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def orders(problem: Problem) -> Iterator[torch.Tensor]:
    """Yields a permutation for each epoch; the first is our own loop's."""
    first = torch.tensor(problem.first_order, dtype=torch.int64)
    return itertools.chain([first], iter(lambda: torch.randperm(len(first)), None))


class Loop:
    """Trains in a plain loop; subclasses say where batches come from.

    Args:
      problem: the data and the starting point.
      fused: whether to use `Adam(fused=True)` instead of the default Adam.
    """

    def __init__(self, problem: Problem, fused: bool = False):
        self.batch_size = problem.spec.train.batch_size
        self.model = self._network(problem)
        self.optimizer = self._optimizer(problem, fused or None)
        self.criterion = nn.CrossEntropyLoss()
        self.batches = self._endless_batches(problem)

    def _network(self, problem: Problem) -> nn.Module:
        return network(problem)

    def _optimizer(self, problem: Problem, fused: bool | None) -> torch.optim.Optimizer:
        rate = problem.spec.train.learning_rate
        return torch.optim.Adam(self.model.parameters(), lr=rate, fused=fused)

    def _endless_batches(self, problem: Problem) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        raise NotImplementedError

    def _freeze(self) -> None:
        """Zeroes the gradients of pruned weights; here there are no masks."""

    def train(self, steps: int) -> tuple[float, float]:
        """Returns (seconds, mean loss) of that many steps."""
        total, start = torch.zeros(()), time.perf_counter()
        for images, labels in itertools.islice(self.batches, steps):
            self.optimizer.zero_grad()
            loss = self.criterion(self.model(images), labels)
            loss.backward()
            self._freeze()
            self.optimizer.step()
            total += loss.detach()
        mean = total.item() / steps
        return time.perf_counter() - start, mean


class InMemory(Loop):
    """Keeps float images in one tensor and indexes it by slices of a permutation; has no masks."""

    def _endless_batches(self, problem: Problem) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        images = torch.tensor(problem.splits.train.images).float().flatten(1) * problem.pixels.scale
        labels = torch.tensor(problem.splits.train.labels).long()
        last = len(labels) - len(labels) % self.batch_size
        for order in orders(problem):
            for start in range(0, last, self.batch_size):
                batch = order[start : start + self.batch_size]
                yield images[batch], labels[batch]


class WithDataLoader(Loop):
    """Is the student's loop: a DataLoader, and masks on gradients through NumPy at every step.

    His repository takes the pruned weights to be those within 1e-6 of zero, and zeroes their
    gradients so; that his comparison lacks an absolute value is mended here. A handful of weights
    are that small at initialization, and stay: its loss differs from the others' by that.
    """

    def _endless_batches(self, problem: Problem) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        loader = DataLoader(
            self._dataset(problem),
            batch_size=self.batch_size,
            sampler=Orders(problem),
            num_workers=0,
            drop_last=True,
        )
        while True:
            yield from loader

    def _dataset(self, problem: Problem) -> Dataset:
        return ImageFiles(problem)

    def _freeze(self) -> None:
        for name, parameter in self.model.named_parameters():
            if "weight" in name:
                tensor = parameter.data.cpu().numpy()
                assert parameter.grad is not None
                gradient = parameter.grad.data.cpu().numpy()
                gradient = np.where(np.abs(tensor) < 1e-6, 0, gradient)
                parameter.grad.data = torch.from_numpy(gradient)


class WithTensorDataset(WithDataLoader):
    """Has nothing to decode: a TensorDataset of floats. It is the best case of such a loop."""

    def _dataset(self, problem: Problem) -> Dataset:
        images = torch.tensor(problem.splits.train.images).float() * problem.pixels.scale
        return TensorDataset(images, torch.tensor(problem.splits.train.labels).long())


class Orders(Sampler):
    """Shuffles as PyTorch does under `shuffle=True`, except that the first epoch has our order."""

    def __init__(self, problem: Problem):
        self.orders = orders(problem)

    def __iter__(self) -> Iterator[int]:
        yield from next(self.orders).tolist()


class ImageFiles(Dataset):
    """Does for an item what `torchvision.datasets.MNIST` with `ToTensor` does.

    It copies the uint8 tensor to a PIL image, lays it out as channels × height × width, and scales.
    """

    def __init__(self, problem: Problem):
        self.images = torch.tensor(problem.splits.train.images[..., 0])
        self.labels = torch.tensor(problem.splits.train.labels).long()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = Image.fromarray(self.images[index].numpy())
        pixels = torch.from_numpy(np.array(image, np.uint8, copy=True))
        pixels = pixels.view(*image.size[::-1], 1).permute(2, 0, 1).contiguous()
        return pixels.to(torch.float32).div(255), int(self.labels[index])
