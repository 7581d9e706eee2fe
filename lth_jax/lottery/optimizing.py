"""The optimizer that a spec names, with its hyperparameters and the learning rate of each step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import optax

from lth_jax.config import MOST_STEPS, Spec, duration_steps, own_fields
from lth_jax.config.own_fields import named_parameters
from lth_jax.errors import SpecError, in_one_line
from lth_jax.training.optimizers import OPTIMIZERS, SCHEDULES, Rate, warmed_up

# The fields of `train` that an optimizer gets where it has a parameter of the name.
HYPERPARAMETERS = ("weight_decay", "momentum", "nesterov")


def optimizer_of(spec: Spec, steps_per_epoch: int) -> optax.GradientTransformation:
    """Returns the optimizer that a spec names, with its hyperparameters and learning rates.

    Raises:
      SpecError: a custom row fails, or gives something else.
    """
    name, rate = spec.train.optimizer, rate_of(spec, steps_per_epoch)
    given = {field: getattr(spec.train, field) for field in HYPERPARAMETERS}
    make = OPTIMIZERS[name].make
    with in_one_line(f"OPTIMIZERS['{name}']"):
        made = make(learning_rate=rate, **_taken(make, given, spec))
        if not isinstance(made, optax.GradientTransformation):
            raise SpecError(f"it gives {type(made).__name__}; accepted: an Optax transformation")
    return made


def rate_of(spec: Spec, steps_per_epoch: int) -> Rate:
    """Returns the learning rate of each update of a spec: a number if it is the same for all.

    Raises:
      SpecError: a custom schedule fails, or gives something else.
    """
    train = spec.train
    # What comes after the last step that there can be comes never.
    warmup, *drops = (
        min(duration_steps(when, steps_per_epoch), MOST_STEPS)
        for when in (train.warmup, *(when for when, _ in train.drops))
    )
    steps = duration_steps(train.steps, steps_per_epoch)
    after = max(1, steps - warmup)
    row = SCHEDULES[train.schedule]
    with in_one_line(f"SCHEDULES['{train.schedule}']"):
        rate = row(learning_rate=train.learning_rate, **_taken(row, {"steps": after}, spec))
        if not callable(rate) and train.schedule != "constant":
            raise SpecError(f"it gives {type(rate).__name__}; accepted: an Optax schedule")
    factors = [(when, factor) for when, (_, factor) in zip(drops, train.drops, strict=True)]
    cycle = steps if train.cycles > 1 else 0
    return warmed_up(rate, warmup=warmup, drops=factors, cycle=cycle)


def optimizer_like(spec: Spec) -> optax.GradientTransformation:
    """Returns an optimizer whose state has the structure of the spec's, to read what is kept of it.

    It does not depend on when a schedule changes: a custom schedule need not be here.
    """
    if spec.train.schedule not in SCHEDULES:
        other = dataclasses.replace(spec.train, schedule="constant", warmup="1")
        spec = dataclasses.replace(spec, train=other)
    return optimizer_of(spec, steps_per_epoch=1)


def keeps_optimizer_state(spec: Spec) -> bool:
    """Whether tickets hold an optimizer's state that is not the one that it begins with."""
    return spec.rewind.kind != "weights" or duration_steps(spec.rewind.step, 1) > 0


def knows_end(schedule: str) -> bool:
    """Whether a schedule depends on how long a network trains."""
    return "steps" in named_parameters(SCHEDULES[schedule])


def takes(optimizer: str) -> list[str]:
    """Returns the fields of `train` that an optimizer takes, besides the learning rate."""
    return [
        name for name in HYPERPARAMETERS if name in named_parameters(OPTIMIZERS[optimizer].make)
    ]


def _taken(row: Callable[..., Any], given: dict[str, Any], spec: Spec) -> dict[str, Any]:
    """Returns what a row takes of `given` and of the spec's own fields."""
    names = named_parameters(row)
    ours = {name: value for name, value in given.items() if name in names}
    return ours | own_fields.taken(row, spec.custom)
