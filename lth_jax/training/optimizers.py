"""The optimizers, by name, and the learning rate over the steps.

To add an optimizer: a function of the hyperparameters and a row in `OPTIMIZERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax

Rate = float | optax.Schedule


def adam(*, learning_rate: Rate, weight_decay: float, momentum: float, nesterov: bool = False):
    """Returns Adam (Kingma & Ba 2015); `weight_decay` is an L2 penalty that goes through Adam."""
    del momentum, nesterov
    return optax.chain(_l2(weight_decay), optax.adam(learning_rate))


def adamw(*, learning_rate: Rate, weight_decay: float, momentum: float, nesterov: bool = False):
    """Returns AdamW (Loshchilov & Hutter 2019): `weight_decay` is decoupled from the moments."""
    del momentum, nesterov
    return optax.adamw(learning_rate, weight_decay=weight_decay)


def sgd(*, learning_rate: Rate, weight_decay: float, momentum: float, nesterov: bool = False):
    """Returns plain SGD; `weight_decay` is an L2 penalty."""
    del momentum, nesterov
    return optax.chain(_l2(weight_decay), optax.sgd(learning_rate))


def momentum(*, learning_rate: Rate, weight_decay: float, momentum: float, nesterov: bool = False):
    """Returns SGD with heavy-ball or Nesterov's momentum; `weight_decay` is an L2 penalty."""
    return optax.chain(
        _l2(weight_decay), optax.sgd(learning_rate, momentum=momentum, nesterov=nesterov)
    )


def _l2(weight_decay: float) -> optax.GradientTransformation:
    return optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity()


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": adam,
    "adamw": adamw,
    "momentum": momentum,
    "sgd": sgd,
}


def learning_rate(
    rate: float,
    *,
    steps: int,
    warmup: int = 0,
    drops: Sequence[tuple[int, float]] = (),
    cosine: bool = False,
) -> Rate:
    """Returns the learning rate of update `count` (from 0): a number if it is the same for all.

    Args:
      rate: after the warmup.
      steps: of the whole training, where a cosine ends.
      warmup: updates over which it rises linearly to `rate`, which the last of them has.
      drops: (update, factor) pairs; from that update on it is multiplied by the factor.
      cosine: whether it falls by half a cosine (Loshchilov & Hutter 2017), from `rate` at the end
        of the warmup to 0 at `steps`.
    """
    if not (warmup or drops or cosine):
        return rate

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        done = jnp.asarray(count, jnp.float32)
        factor = jnp.minimum(1.0, (done + 1) / warmup) if warmup else jnp.ones_like(done)
        for when, drop in drops:
            factor = jnp.where(done >= when, factor * drop, factor)
        if cosine:
            share = jnp.clip((done - warmup) / max(1, steps - warmup), 0.0, 1.0)
            factor = factor * 0.5 * (1 + jnp.cos(jnp.pi * share))
        return rate * factor

    return schedule
