"""The models, by name. To add one: a function of (classes, options), a row here, a golden count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lth_jax.models.base import Model, from_linen
from lth_jax.models.mlp import INITIALIZERS, MLP

__all__ = ["INITIALIZERS", "MODELS", "Model", "from_linen", "mlp"]


def mlp(
    classes: int,
    *,
    hidden: tuple[int, ...] = (300, 100),
    init: str = "glorot_normal",
    **_: Any,
) -> Model:
    """A fully connected ReLU network; LeNet-300-100 by default."""
    return from_linen(MLP(classes=classes, hidden=tuple(hidden), kernel_init=init))


MODELS: dict[str, Callable[..., Model]] = {
    "mlp": mlp,
}
