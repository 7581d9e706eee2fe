"""The optimizers, by name. To add one: a function of the hyperparameters and a row here."""

from __future__ import annotations

from collections.abc import Callable

import optax


def adam(*, learning_rate: float, weight_decay: float, momentum: float):
    """Adam (Kingma & Ba 2015); `weight_decay` is an L2 penalty, its gradient goes through Adam."""
    del momentum
    return optax.chain(_l2(weight_decay), optax.adam(learning_rate))


def adamw(*, learning_rate: float, weight_decay: float, momentum: float):
    """AdamW (Loshchilov & Hutter 2019): `weight_decay` decoupled from the moments."""
    del momentum
    return optax.adamw(learning_rate, weight_decay=weight_decay)


def sgd(*, learning_rate: float, weight_decay: float, momentum: float):
    """Plain SGD; `weight_decay` is an L2 penalty."""
    del momentum
    return optax.chain(_l2(weight_decay), optax.sgd(learning_rate))


def momentum(*, learning_rate: float, weight_decay: float, momentum: float):
    """SGD with heavy-ball momentum; `weight_decay` is an L2 penalty."""
    return optax.chain(_l2(weight_decay), optax.sgd(learning_rate, momentum=momentum))


def _l2(weight_decay: float) -> optax.GradientTransformation:
    return optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity()


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": adam,
    "adamw": adamw,
    "momentum": momentum,
    "sgd": sgd,
}
