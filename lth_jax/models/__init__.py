"""The models, by name. To add one: a function of (classes, options), a row here, a golden count."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from lth_jax.models.alexnet import AlexNet
from lth_jax.models.base import Model, from_linen
from lth_jax.models.conv import Conv
from lth_jax.models.densenet import DenseNet
from lth_jax.models.layers import DTYPES, INITIALIZERS
from lth_jax.models.lenet5 import LeNet5
from lth_jax.models.mlp import MLP
from lth_jax.models.resnet import CifarResNet, ResNet
from lth_jax.models.vgg import VGG
from lth_jax.models.vit import ViT

__all__ = ["DTYPES", "INITIALIZERS", "MODELS", "STEMS", "Family", "Model", "from_linen", "options"]

STEMS = ("small", "imagenet")


class Family(NamedTuple):
    """How a network of one name is made, and which images it takes.

    Attributes:
      make: of (classes, options); its keyword arguments are the options of `config.model` that it
        takes, with their defaults.
      least: the smallest side of an image in pixels.
      padded: images smaller than this are padded to it with black pixels; 0 for none.
    """

    make: Callable[..., Model]
    least: int = 1
    padded: int = 0


def mlp(
    classes: int,
    *,
    hidden: tuple[int, ...] = (300, 100),
    init: str = "glorot_normal",
    dtype: str = "float32",
) -> Model:
    """A fully connected ReLU network; LeNet-300-100 by default."""
    return from_linen(MLP(classes, init, dtype, hidden=tuple(hidden)))


def lenet5(classes: int, *, init: str = "glorot_normal", dtype: str = "float32") -> Model:
    """LeNet-5."""
    return from_linen(LeNet5(classes, init, dtype))


def conv(
    classes: int,
    *,
    pairs: int,
    width: float = 1.0,
    dropout: float = 0.0,
    init: str = "glorot_normal",
    dtype: str = "float32",
) -> Model:
    """Conv-2, -4, -6: `pairs` pairs of convolutions."""
    return from_linen(Conv(classes, init, dtype, pairs=pairs, width=width, rate=dropout))


def alexnet(
    classes: int,
    *,
    width: float = 1.0,
    dropout: float = 0.5,
    init: str = "glorot_normal",
    dtype: str = "float32",
) -> Model:
    """AlexNet for small images."""
    return from_linen(AlexNet(classes, init, dtype, width=width, rate=dropout))


def vgg(
    classes: int,
    *,
    depth: int,
    width: float = 1.0,
    init: str = "glorot_normal",
    dtype: str = "float32",
) -> Model:
    """VGG-11, -13, -16, -19 with batch norm."""
    return from_linen(VGG(classes, init, dtype, depth=depth, width=width))


def cifar_resnet(
    classes: int,
    *,
    depth: int,
    width: float = 1.0,
    init: str = "glorot_normal",
    dtype: str = "float32",
) -> Model:
    """ResNet-20, -32, -44, -56, -110."""
    return from_linen(CifarResNet(classes, init, dtype, depth=depth, width=width))


def resnet(
    classes: int,
    *,
    depth: int,
    width: float = 1.0,
    stem: str = "small",
    init: str = "glorot_normal",
    dtype: str = "float32",
) -> Model:
    """ResNet-18, -34, -50."""
    return from_linen(ResNet(classes, init, dtype, depth=depth, width=width, stem=stem))


def densenet(
    classes: int,
    *,
    depth: int,
    width: float = 1.0,
    stem: str = "small",
    init: str = "glorot_normal",
    dtype: str = "float32",
) -> Model:
    """DenseNet-121."""
    return from_linen(DenseNet(classes, init, dtype, depth=depth, width=width, stem=stem))


def vit(
    classes: int,
    *,
    width: float = 1.0,
    dropout: float = 0.0,
    init: str = "glorot_normal",
    dtype: str = "float32",
) -> Model:
    """ViT-Tiny on patches of 4×4 pixels."""
    return from_linen(ViT(classes, init, dtype, width=width, rate=dropout))


MODELS: dict[str, Family] = {
    "mlp": Family(mlp),
    "lenet5": Family(lenet5, least=28, padded=32),
    "conv2": Family(partial(conv, pairs=1), least=2),
    "conv4": Family(partial(conv, pairs=2), least=4),
    "conv6": Family(partial(conv, pairs=3), least=8),
    "alexnet": Family(alexnet, least=28, padded=32),
    "vgg11": Family(partial(vgg, depth=11), least=16),
    "vgg13": Family(partial(vgg, depth=13), least=16),
    "vgg16": Family(partial(vgg, depth=16), least=16),
    "vgg19": Family(partial(vgg, depth=19), least=16),
    "resnet20": Family(partial(cifar_resnet, depth=20)),
    "resnet32": Family(partial(cifar_resnet, depth=32)),
    "resnet44": Family(partial(cifar_resnet, depth=44)),
    "resnet56": Family(partial(cifar_resnet, depth=56)),
    "resnet110": Family(partial(cifar_resnet, depth=110)),
    "resnet18": Family(partial(resnet, depth=18)),
    "resnet34": Family(partial(resnet, depth=34)),
    "resnet50": Family(partial(resnet, depth=50)),
    "densenet121": Family(partial(densenet, depth=121), least=8),
    "vit_tiny": Family(vit, least=4),
}


def options(name: str) -> dict[str, Any]:
    """The options of `config.model` that a model takes, with its defaults."""
    make = MODELS[name].make
    bound = make.keywords if isinstance(make, partial) else {}
    return {
        option: parameter.default
        for option, parameter in inspect.signature(make).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and option not in bound
    }
