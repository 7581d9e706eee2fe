"""The models, by name. To add one: a `Network`, a row here, a golden count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from lth_jax.models.alexnet import AlexNet
from lth_jax.models.base import Model, from_linen
from lth_jax.models.conv import Conv
from lth_jax.models.densenet import DenseNet
from lth_jax.models.layers import DTYPES, INITIALIZERS, Network
from lth_jax.models.lenet5 import LeNet5
from lth_jax.models.mlp import MLP
from lth_jax.models.resnet import CifarResNet, ResNet
from lth_jax.models.vgg import VGG
from lth_jax.models.vit import ViT

__all__ = ["DTYPES", "INITIALIZERS", "MODELS", "STEMS", "Member", "Model", "from_linen"]

STEMS = ("small", "imagenet")

# Options of `config.model` -> the attributes of networks that have them.
_OPTIONS = {
    "hidden": "hidden",
    "width": "width",
    "dropout": "dropout",
    "stem": "stem",
    "init": "kernel_init",  # `init` is a method of every module
    "dtype": "dtype",
}


class Member(NamedTuple):
    """One network of a family, and which images it takes.

    Attributes:
      module: the family.
      sizes: the attributes that make it this member.
      least: the smallest side of an image in pixels.
      padded: images smaller than this are padded to it with black pixels; 0 for none.
    """

    module: type[Network]
    sizes: Mapping[str, Any] = {}
    least: int = 1
    padded: int = 0

    def options(self) -> dict[str, Any]:
        """The options of `config.model` that it takes, with its own defaults."""
        fields = self.module.__dataclass_fields__
        return {
            option: fields[attribute].default
            for option, attribute in _OPTIONS.items()
            if attribute in fields
        }

    def make(self, classes: int, **options: Any) -> Model:
        """The network for that many classes."""
        given = {_OPTIONS.get(option, option): value for option, value in options.items()}
        return from_linen(self.module(classes, **{**self.sizes, **given}))


MODELS: dict[str, Member] = {
    "mlp": Member(MLP),
    "lenet5": Member(LeNet5, least=28, padded=32),
    "conv2": Member(Conv, {"pairs": 1}, least=2),
    "conv4": Member(Conv, {"pairs": 2}, least=4),
    "conv6": Member(Conv, {"pairs": 3}, least=8),
    "alexnet": Member(AlexNet, least=28, padded=32),
    "vgg11": Member(VGG, {"blocks": (1, 1, 2, 2, 2)}, least=16),
    "vgg13": Member(VGG, {"blocks": (2, 2, 2, 2, 2)}, least=16),
    "vgg16": Member(VGG, {"blocks": (2, 2, 3, 3, 3)}, least=16),
    "vgg19": Member(VGG, {"blocks": (2, 2, 4, 4, 4)}, least=16),
    "resnet20": Member(CifarResNet, {"depth": 20}),
    "resnet32": Member(CifarResNet, {"depth": 32}),
    "resnet44": Member(CifarResNet, {"depth": 44}),
    "resnet56": Member(CifarResNet, {"depth": 56}),
    "resnet110": Member(CifarResNet, {"depth": 110}),
    "resnet18": Member(ResNet, {"blocks": (2, 2, 2, 2)}),
    "resnet34": Member(ResNet, {"blocks": (3, 4, 6, 3)}),
    "resnet50": Member(ResNet, {"blocks": (3, 4, 6, 3), "bottleneck": True}),
    "densenet121": Member(DenseNet, {"blocks": (6, 12, 24, 16)}, least=8),
    "vit_tiny": Member(ViT, {"depth": 12, "features": 192, "heads": 3}, least=4),
}
