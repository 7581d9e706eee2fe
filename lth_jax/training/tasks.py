"""Tasks: what a network's outputs are for, as a loss and metrics.

Both are pure functions of (outputs, targets), for a batch. The loss is what training makes small
and what early stop looks at; a metric is what is reported. To add a task: a row in `TASKS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from lth_jax.training.metrics import ACCURACY, Metric, wrong_metric

# (outputs, targets) -> the loss of each example, float [batch].
Loss = Callable[[jax.Array, jax.Array], jax.Array]


class Targets(NamedTuple):
    """What is known of a dataset's targets.

    Attributes:
      shape: of the target of one example; () for a label.
      integers: whether they are integers; else they are floats.
      classes: how many values integers have; 0 for floats.
    """

    shape: tuple[int, ...]
    integers: bool
    classes: int


class Task(NamedTuple):
    """A row of the registry.

    Attributes:
      loss: (outputs, targets) -> float [batch], each example's loss; its mean is trained on.
      metrics: what can be measured; `config.metric` names one, the first by default.
      smoothed_loss: (outputs, targets, share) -> float [batch]: the loss where a `share` of each
        target is spread over all classes; None where `train.label_smoothing` has no meaning.
      classes: whether an example has one class: such can be balanced, subset and predicted.
      logits: whether outputs are logits, which criteria may divide by a temperature.
      accepts: what targets the task takes, in words, and a function that says whether it does.
      outputs: gives the shape of the outputs for one example. None is: for integers a logit for
        each class of each, else a number for each.
    """

    loss: Loss
    metrics: tuple[Metric, ...]
    smoothed_loss: Callable[[jax.Array, jax.Array, float], jax.Array] | None = None
    classes: bool = False
    logits: bool = False
    accepts: tuple[str, Callable[[Targets], bool]] = ("any", lambda _targets: True)
    outputs: Callable[[Targets], tuple[int, ...]] | None = None

    def output_shape(self, targets: Targets) -> tuple[int, ...]:
        """Returns the shape of what a network gives for one example."""
        if self.outputs:
            return self.outputs(targets)
        if targets.integers:
            return *targets.shape, targets.classes
        return targets.shape or (1,)

    def metric(self, name: str = "") -> Metric:
        """Returns the metric of that name, by default the first.

        Raises:
          KeyError: there is none.
        """
        return {metric.name: metric for metric in self.metrics}[name or self.metrics[0].name]


class Objective(NamedTuple):
    """What the compiled loop is told of a task: functions of (outputs, targets).

    Attributes:
      train_loss: the loss of each example that is trained on, float [batch].
      loss: the one that is evaluated.
      measure: what each example contributes to the metric, a pytree of arrays [batch, …].
      value: (sums, count) -> float []: the metric, of their sums over `count` examples.
    """

    train_loss: Loss
    loss: Loss
    measure: Callable[[jax.Array, jax.Array], Any]
    value: Callable[[Any, jax.Array], jax.Array]


def objective(task: Task, metric: str = "", label_smoothing: float = 0.0) -> Objective:
    """Returns a task's objective.

    Args:
      task: the task.
      metric: the name of one of its metrics; '' is the first.
      label_smoothing: the share of a target that training spreads over all classes.
    """
    train_loss = task.loss
    if label_smoothing:
        assert task.smoothed_loss, "the spec was checked"
        train_loss = partial(_smoothed, task.smoothed_loss, label_smoothing)
    chosen = task.metric(metric)
    assert chosen.measure, "a metric of a task is measured"
    return Objective(train_loss, task.loss, chosen.measure, chosen.value or _mean)


def _smoothed(loss, share, outputs, targets):
    return loss(outputs, targets, share)


def _mean(total: jax.Array, count: jax.Array) -> jax.Array:
    return total / count


def smoothed_cross_entropy(
    logits: Float[Array, "*batch classes"], labels: Int[Array, "*batch"], share: float
) -> Float[Array, "*batch"]:
    """Returns the cross-entropy in nats, labels smoothed (Szegedy et al. 2016, §7)."""
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), share)
    return optax.softmax_cross_entropy(logits, targets)


def correct(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]
) -> Bool[Array, " batch"]:
    """Returns whether the largest logit is that of the label."""
    return jnp.argmax(logits, -1) == labels


def squared_error(
    outputs: Float[Array, "batch ..."], targets: Float[Array, "batch ..."]
) -> Float[Array, " batch"]:
    """Returns the mean of the squared errors of each example's numbers."""
    return jnp.mean(_errors(outputs, targets) ** 2, 1)


def absolute_error(
    outputs: Float[Array, "batch ..."], targets: Float[Array, "batch ..."]
) -> Float[Array, " batch"]:
    """Returns the mean of the absolute errors of each example's numbers."""
    return jnp.mean(jnp.abs(_errors(outputs, targets)), 1)


def _variation(outputs: jax.Array, targets: jax.Array) -> dict[str, jax.Array]:
    """Returns, of each example, what R² is made of: [batch, numbers] each."""
    y = targets.reshape(len(targets), -1)
    return {"residuals": _errors(outputs, targets) ** 2, "targets": y, "squares": y**2}


def _r_squared(sums: dict[str, jax.Array], count: jax.Array) -> jax.Array:
    """Returns the share of the targets' variance that is explained, its mean over the numbers."""
    variation = sums["squares"] - sums["targets"] ** 2 / count
    return jnp.mean(1 - sums["residuals"] / variation)


def _errors(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    # Targets may be [batch], for which a network gives [batch, 1].
    batch = len(targets)
    return outputs.reshape(batch, -1) - targets.reshape(batch, -1)


def binary_cross_entropy(
    logits: Float[Array, "batch labels"], targets: Int[Array, "batch labels"]
) -> Float[Array, " batch"]:
    """Returns the mean over labels of the binary cross-entropy, in nats."""
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, targets.astype(logits.dtype)), 1)


def _confusion(logits: jax.Array, targets: jax.Array) -> dict[str, jax.Array]:
    found, there = logits > 0, targets > 0
    return {"both": jnp.sum(found & there, 1), "each": jnp.sum(found, 1) + jnp.sum(there, 1)}


def _f1(sums: dict[str, jax.Array], count: jax.Array) -> jax.Array:
    """Returns micro-averaged F1; 1 where there is no label and none is found."""
    del count
    return jnp.where(sums["each"] > 0, 2 * sums["both"] / jnp.maximum(sums["each"], 1), 1.0)


def next_token_loss(
    logits: Float[Array, "batch tokens classes"], targets: Int[Array, "batch tokens"]
) -> Float[Array, " batch"]:
    """Returns the mean cross-entropy of each example's tokens, in nats."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, targets), -1)


def _smoothed_next_token_loss(logits: jax.Array, targets: jax.Array, share: float) -> jax.Array:
    return jnp.mean(smoothed_cross_entropy(logits, targets, share), -1)


def _bits(logits: jax.Array, targets: jax.Array) -> jax.Array:
    return next_token_loss(logits, targets) / math.log(2)


PERCENT = Metric("", unit="%", scale=100, decimals=2, share=True, margin=0.2)

TASKS: dict[str, Task] = {
    "classification": Task(
        optax.softmax_cross_entropy_with_integer_labels,
        (ACCURACY._replace(measure=correct),),
        smoothed_loss=smoothed_cross_entropy,
        classes=True,
        logits=True,
        accepts=("a label for each example", lambda t: t.integers and not t.shape),
    ),
    "regression": Task(
        squared_error,
        (
            Metric("absolute error", absolute_error, higher_is_better=False),
            Metric(
                "rms error",
                squared_error,
                lambda total, count: jnp.sqrt(total / count),
                higher_is_better=False,
            ),
            Metric("r squared", _variation, _r_squared, margin=0.01),
        ),
        accepts=("floats", lambda t: not t.integers),
        outputs=lambda t: t.shape or (1,),
    ),
    "multilabel": Task(
        binary_cross_entropy,
        (
            PERCENT._replace(name="micro f1", measure=_confusion, value=_f1),
            PERCENT._replace(
                name="label accuracy",
                measure=lambda logits, targets: jnp.mean((logits > 0) == (targets > 0), 1),
            ),
            PERCENT._replace(
                name="exact match",
                measure=lambda logits, targets: jnp.all((logits > 0) == (targets > 0), 1),
                counted=True,
            ),
        ),
        logits=True,
        accepts=(
            "0 or 1 for each label, [n, labels]",
            lambda t: t.integers and len(t.shape) == 1 and t.classes <= 2,
        ),
        outputs=lambda t: t.shape,
    ),
    "next_token": Task(
        next_token_loss,
        (
            Metric("cross entropy", _bits, unit="bits", higher_is_better=False, margin=0.02),
            Metric(
                "perplexity",
                next_token_loss,
                lambda total, count: jnp.exp(total / count),
                higher_is_better=False,
                decimals=2,
            ),
            PERCENT._replace(
                name="token accuracy",
                measure=lambda logits, targets: jnp.mean(jnp.argmax(logits, -1) == targets, -1),
            ),
        ),
        smoothed_loss=_smoothed_next_token_loss,
        logits=True,
        accepts=(
            "an integer for each token, [n, tokens]",
            lambda t: t.integers and len(t.shape) == 1,
        ),
    ),
}
CLASSIFICATION = objective(TASKS["classification"])


def wrong_task(task: Any) -> str:
    """Returns what is wrong with a row that is to be a task, or an empty string."""
    if not isinstance(task, Task):
        return f"{task!r}; accepted: a lth_jax.Task"
    if not callable(task.loss):
        return f"its loss is {task.loss!r}; accepted: a function of (outputs, targets)"
    if not isinstance(task.metrics, tuple) or not task.metrics:
        return f"its metrics are {task.metrics!r}; accepted: a tuple of lth_jax.Metric"
    for metric in task.metrics:
        if wrong := wrong_metric(metric):
            return f"a metric of it: {wrong}"
        if not callable(metric.measure):
            return (
                f"its metric '{metric.name}' has measure={metric.measure!r}; accepted: a function"
            )
    return ""
