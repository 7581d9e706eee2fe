"""The optimizers and the schedules of the learning rate, by name.

To add an optimizer or a schedule: a function of the hyperparameters that it has, and a row in
`OPTIMIZERS` or `SCHEDULES`. An optimizer that moves each weight by itself may say by which rule
(`with_rule`), so that native code can do its step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Rate = float | optax.Schedule


@dataclasses.dataclass(frozen=True)
class AdamRule:
    """The step of Adam and AdamW, weight by weight, with the moments of `optax.scale_by_adam`.

    Attributes:
      learning_rate: a number, or a schedule whose count `optax.scale_by_schedule` keeps.
      l2: the factor of the weight that is added to its gradient.
      decay: the factor of the weight that is added to its update.
      b1, b2, eps: as `optax.adam` has them.
    """

    learning_rate: Rate
    l2: float = 0.0
    decay: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8


@dataclasses.dataclass(frozen=True)
class MomentumRule:
    """The step of SGD with momentum, weight by weight, with the trace of `optax.trace`.

    Attributes:
      learning_rate, l2: as `AdamRule` has them.
      momentum: the factor of the trace.
      nesterov: whether the step looks ahead along the trace.
    """

    learning_rate: Rate
    momentum: float
    nesterov: bool = False
    l2: float = 0.0


Rule = AdamRule | MomentumRule


class _WithRule(optax.GradientTransformationExtraArgs):
    """An Optax transformation that says by which rule it moves weights."""

    rule: Rule


def with_rule(transformation: optax.GradientTransformation, rule: Rule):
    """Returns an Optax transformation that is known to move each weight by `rule`."""
    ruled = _WithRule(*optax.with_extra_args_support(transformation))
    ruled.rule = rule
    return ruled


def rule_of(optimizer: optax.GradientTransformation) -> Rule | None:
    """Returns the rule by which an optimizer moves each weight; None where it says none.

    What is chained to others says none: it may do more.
    """
    return optimizer.rule if isinstance(optimizer, _WithRule) else None


class Optimizer(NamedTuple):
    """A row of `OPTIMIZERS`.

    Attributes:
      make: a function of keyword hyperparameters to an Optax transformation: `learning_rate`, a
        number or a schedule, and of `weight_decay`, `momentum` and `nesterov` those that it has.
      elementwise: whether a weight's update is a function of its own gradients, moments and value
        alone, as in Adam; not so where norms or the shapes of arrays matter, as in Adafactor. Only
        then may the loop hold a pruned layer as the vector of its surviving weights.
    """

    make: Callable[..., optax.GradientTransformation]
    elementwise: bool = False


def adam(*, learning_rate: Rate, weight_decay: float = 0.0):
    """Returns Adam (Kingma & Ba 2015); `weight_decay` is an L2 penalty that goes through Adam."""
    chained = optax.chain(_l2(weight_decay), optax.adam(learning_rate))
    return with_rule(chained, AdamRule(learning_rate, l2=weight_decay))


def adamw(*, learning_rate: Rate, weight_decay: float = 0.0):
    """Returns AdamW (Loshchilov & Hutter 2019): `weight_decay` is decoupled from the moments."""
    transformation = optax.adamw(learning_rate, weight_decay=weight_decay)
    return with_rule(transformation, AdamRule(learning_rate, decay=weight_decay))


def sgd(*, learning_rate: Rate, weight_decay: float = 0.0):
    """Returns plain SGD; `weight_decay` is an L2 penalty."""
    return optax.chain(_l2(weight_decay), optax.sgd(learning_rate))


def momentum(
    *, learning_rate: Rate, weight_decay: float = 0.0, momentum: float = 0.9, nesterov: bool = False
):
    """Returns SGD with heavy-ball or Nesterov's momentum; `weight_decay` is an L2 penalty."""
    chained = optax.chain(
        _l2(weight_decay), optax.sgd(learning_rate, momentum=momentum, nesterov=nesterov)
    )
    return with_rule(chained, MomentumRule(learning_rate, momentum, nesterov, weight_decay))


def _l2(weight_decay: float) -> optax.GradientTransformation:
    return optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity()


def at_update(opt_state: optax.OptState, count: int) -> optax.OptState:
    """Returns an optimizer's state whose learning rate is that of update `count`, from 0.

    Only the place in the schedule is another. Adam's own count stays: it is of the moments.
    """

    def is_schedule(part: object) -> bool:
        return isinstance(part, optax.ScaleByScheduleState)

    def moved(part: Any) -> Any:
        return (
            optax.ScaleByScheduleState(jnp.full_like(part.count, count))
            if is_schedule(part)
            else part
        )

    return jax.tree.map(moved, opt_state, is_leaf=is_schedule)


OPTIMIZERS: dict[str, Optimizer] = {
    "adam": Optimizer(adam, elementwise=True),
    "adamw": Optimizer(adamw, elementwise=True),
    "momentum": Optimizer(momentum, elementwise=True),
    "sgd": Optimizer(sgd, elementwise=True),
}


def constant(*, learning_rate: float) -> Rate:
    """Returns the learning rate itself, the same for all updates."""
    return learning_rate


def cosine(*, learning_rate: float, steps: int) -> Rate:
    """Returns half a cosine (Loshchilov & Hutter 2017): it falls to 0 at the last of `steps`."""

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        share = jnp.clip(jnp.asarray(count, jnp.float32) / steps, 0.0, 1.0)
        return learning_rate * (0.5 * (1 + jnp.cos(jnp.pi * share)))

    return schedule


# Each is a function of `learning_rate`, and of `steps` if it asks for them, to the rate of update
# `count`, from 0. Both count from the end of the warmup.
SCHEDULES: dict[str, Callable[..., Rate]] = {"constant": constant, "cosine": cosine}


def warmed_up(
    rate: Rate, *, warmup: int = 0, drops: Sequence[tuple[int, float]] = (), cycle: int = 0
) -> Rate:
    """Returns the learning rate of update `count` (from 0): a number if it is the same for all.

    Args:
      rate: after the warmup; a schedule counts from its end.
      warmup: updates over which it rises linearly to `rate`, which the last of them has.
      drops: (update, factor) pairs; from that update on it is multiplied by the factor.
      cycle: after how many updates all of it begins anew; 0 is never.
    """
    if not (warmup or drops or (cycle and callable(rate))):
        return rate

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        within = jnp.asarray(count) % cycle if cycle else jnp.asarray(count)
        done = jnp.asarray(within, jnp.float32)
        factor = jnp.minimum(1.0, (done + 1) / warmup) if warmup else jnp.ones_like(done)
        for when, drop in drops:
            factor = jnp.where(done >= when, factor * drop, factor)
        after = rate(jnp.maximum(within - warmup, 0)) if callable(rate) else rate
        return jnp.asarray(after * factor)

    return schedule
