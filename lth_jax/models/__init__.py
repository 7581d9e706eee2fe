"""The models, by name. To add one: a `Network`, a row here, a golden count."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn

from lth_jax.errors import SpecError
from lth_jax.models.alexnet import AlexNet
from lth_jax.models.base import Model, from_linen
from lth_jax.models.conv import Conv
from lth_jax.models.densenet import DenseNet
from lth_jax.models.gpt import GPT
from lth_jax.models.layers import DTYPES, INITIALIZERS, Network
from lth_jax.models.lenet5 import LeNet5
from lth_jax.models.mlp import MLP
from lth_jax.models.resnet import CifarResNet, ResNet, WideResNet
from lth_jax.models.vgg import VGG
from lth_jax.models.vit import ViT

__all__ = [
    "DTYPES",
    "INITIALIZERS",
    "MODELS",
    "STEMS",
    "ZOO",
    "Member",
    "Model",
    "custom_model",
    "from_linen",
]

STEMS = ("small", "imagenet")

# Options of `config.model` -> the attributes of networks that have them.
_OPTIONS = {
    "hidden": "hidden",
    "width": "width",
    "dropout": "dropout",
    "stem": "stem",
    "layers": "layers",
    "features": "features",
    "heads": "heads",
    "init": "kernel_init",  # `init` is a method of every module
    "dtype": "dtype",
}


class Member(NamedTuple):
    """A row of `MODELS`: one network, and which images it takes.

    Attributes:
      module: the family, or for a custom network any function of the number of classes, see
        `custom_model`.
      sizes: the attributes that make it this member.
      least: the smallest side of an image in pixels.
      padded: images smaller than this are padded to it with black pixels; 0 for none.
    """

    module: Callable[..., Any]
    sizes: Mapping[str, Any] = {}
    least: int = 1
    padded: int = 0

    def options(self) -> dict[str, Any]:
        """Returns the options of `config.model` that the network takes, with its defaults."""
        parameters = inspect.signature(self.module).parameters
        ours = isinstance(self.module, type) and issubclass(self.module, Network)
        return {
            option: parameters[attribute].default
            for option, attribute in _OPTIONS.items()
            # Where others have a `kernel_init`, it is a function, and no name.
            if attribute in parameters and (ours or option != "init")
        }

    def make(self, classes: int, **options: Any) -> Model:
        """Returns the network for that many classes.

        Raises:
          SpecError: a custom network's function gave nothing that can be trained.
        """
        given = {_OPTIONS.get(option, option): value for option, value in options.items()}
        return _as_model(self.module(classes, **{**self.sizes, **given}))


def custom_model(name: str, make: Any) -> Member:
    """Returns the row of a custom network: `MODELS["mine"] = custom_model("mine", MyNet)`.

    Args:
      name: that of the network, for error messages.
      make: takes the number of classes (of outputs, for tasks without classes), and gives a Flax
        Linen module whose `__call__` takes `(x, train)`, a `Model`, or a pair of functions `(init,
        apply)` such as a `Model` has; `from_nnx` makes one of an NNX module. A Linen module's class
        is such a function.
        Parameters that are called as options of `config.model` (`hidden`, `width`, `dropout`,
        `stem`, `layers`, `features`, `heads`, `dtype`) are given these where a config sets them. A
        `Member` stays as it is.

    Raises:
      SpecError: `make` cannot be called with the number of classes alone.
    """
    if isinstance(make, Member):
        return make
    try:
        inspect.signature(make).bind(10)
    except (TypeError, ValueError) as error:
        raise SpecError(
            f"MODELS['{name}']={make!r}: accepted: a function of the number of classes ({error})"
        ) from None
    return Member(make)


def _as_model(made: Any) -> Model:
    if isinstance(made, nn.Module):
        return from_linen(made)
    if isinstance(made, tuple | list) and len(made) == 2 and all(map(callable, made)):
        return Model(*made)
    raise SpecError(
        f"a model's function gave {type(made).__name__}; accepted: a Linen module, a pair of "
        "functions (init, apply), or for an NNX module lth_jax.from_nnx(lambda rngs: ...)"
    )


MODELS: dict[str, Member] = {
    "mlp": Member(MLP),
    "lenet5": Member(LeNet5, least=28, padded=32),
    # The student report's repository has Conv-2 for MNIST, and calls it LeNet-5.
    "lenet5_wide": Member(Conv, {"pairs": 1}, least=2),
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
    "wrn16": Member(WideResNet, {"depth": 16}),
    "wrn22": Member(WideResNet, {"depth": 22}),
    "wrn28": Member(WideResNet, {"depth": 28}),
    "resnet18": Member(ResNet, {"blocks": (2, 2, 2, 2)}),
    "resnet34": Member(ResNet, {"blocks": (3, 4, 6, 3)}),
    "resnet50": Member(ResNet, {"blocks": (3, 4, 6, 3), "bottleneck": True}),
    "densenet121": Member(DenseNet, {"blocks": (6, 12, 24, 16)}, least=8),
    "gpt": Member(GPT),
    "vit_tiny": Member(ViT, {"depth": 12, "features": 192, "heads": 3}, least=4),
}
# The names of the package's networks, whatever a user adds.
ZOO = frozenset(MODELS)
