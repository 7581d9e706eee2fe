"""Tasks: each row's loss and metrics, beside NumPy's on the whole split."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lth_jax.training.loop import Program
from lth_jax.training.metrics import Metric
from lth_jax.training.parameterization import dense_apply
from lth_jax.training.pixels import Pixels
from lth_jax.training.states import in_batches
from lth_jax.training.tasks import CLASSIFICATION, TASKS, Targets, Task, objective, wrong_task

COUNT, CLASSES, TOKENS = 23, 4, 5
RANDOM = np.random.default_rng(0)


def cross_entropy(logits, labels):
    shifted = logits - logits.max(-1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return -np.take_along_axis(logs, labels[..., None], -1)[..., 0]


def binary(logits, targets):
    return np.logaddexp(0, logits) - targets * logits


# Task -> outputs, targets, the mean loss, and each metric's value.
def classification():
    outputs, labels = RANDOM.normal(size=(COUNT, CLASSES)), RANDOM.integers(0, CLASSES, COUNT)
    right = float((outputs.argmax(1) == labels).mean())
    return outputs, labels, cross_entropy(outputs, labels).mean(), {"accuracy": right}


def regression(shape=(2,)):
    from sklearn.metrics import r2_score  # here: it takes a second

    targets = 50 + 9 * RANDOM.normal(size=(COUNT, *shape))
    outputs = targets.reshape(COUNT, -1) + RANDOM.normal(size=(COUNT, *(shape or (1,))))
    errors = outputs - targets.reshape(COUNT, -1)
    return outputs, targets, (errors**2).mean(), {
        "absolute error": np.abs(errors).mean(),
        "rms error": np.sqrt((errors**2).mean()),
        "r squared": r2_score(targets, outputs),
    }  # fmt: skip


def multilabel():
    from sklearn.metrics import f1_score

    outputs, targets = RANDOM.normal(size=(COUNT, 3)), RANDOM.integers(0, 2, (COUNT, 3))
    found = outputs > 0
    return outputs, targets, binary(outputs, targets).mean(), {
        "micro f1": f1_score(targets, found, average="micro"),
        "label accuracy": (found == targets).mean(),
        "exact match": (found == targets).all(1).mean(),
    }  # fmt: skip


def next_token():
    outputs = RANDOM.normal(size=(COUNT, TOKENS, CLASSES))
    targets = RANDOM.integers(0, CLASSES, (COUNT, TOKENS))
    loss = cross_entropy(outputs, targets).mean()
    return outputs, targets, loss, {
        "cross entropy": loss / np.log(2),
        "perplexity": np.exp(loss),
        "token accuracy": (outputs.argmax(-1) == targets).mean(),
    }  # fmt: skip


CASES = {
    "classification": classification, "regression": regression, "multilabel": multilabel,
    "next_token": next_token,
}  # fmt: skip


def test_every_task_has_a_case_and_every_metric_is_in_it():
    assert CASES.keys() == TASKS.keys()
    for name, task in TASKS.items():
        assert [metric.name for metric in task.metrics] == list(CASES[name]()[3])
        assert wrong_task(task) == ""


def measured(task, metric, outputs, targets, batch_size):
    """(loss, metric) over a split in batches, of a network that gives back what it sees."""
    program = Program(
        dense_apply(lambda variables, x, train, rngs: (x, {})),
        optax.sgd(0.1),
        batch_size=1,
        pixels=Pixels(1.0),
        objective=objective(task, metric),
    )
    arrays = outputs.astype(np.float32), targets
    result = jax.jit(program.measure)({}, {}, in_batches(*arrays, batch_size))
    return float(result.loss), float(result.accuracy)


@pytest.mark.parametrize(
    "batch_size", [7, *(pytest.param(size, marks=pytest.mark.slow) for size in (23, 100))]
)
@pytest.mark.parametrize("name", TASKS)
def test_loss_and_metrics_are_those_of_the_whole_split(name, batch_size):
    """No example is left out, none counts twice, and padding counts nowhere."""
    outputs, targets, loss, values = CASES[name]()
    kind = np.float32 if targets.dtype == np.float64 else np.int32
    for metric, value in values.items():
        found = measured(TASKS[name], metric, outputs, targets.astype(kind), batch_size)
        assert found == pytest.approx((loss, value), rel=2e-4)


def test_a_regression_of_one_number_may_have_targets_without_an_axis():
    outputs, targets, loss, values = regression(())
    assert targets.shape == (COUNT,)
    found = measured(TASKS["regression"], "", outputs, targets.astype(np.float32), 10)
    assert found == pytest.approx((loss, values["absolute error"]), rel=1e-4)


def test_padding_may_be_measured_as_anything():
    """Of zeros, a network or a metric may make NaN."""
    task = Task(
        lambda outputs, targets: (outputs / targets)[:, 0] ** 2,
        (Metric("ratio", lambda outputs, targets: outputs / targets, lambda s, n: s[0] / n),),
    )
    outputs, targets = np.full((5, 1), 6.0), np.full((5, 1), 2.0, np.float32)
    assert measured(task, "", outputs, targets, 3) == pytest.approx((9.0, 3.0))


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.smoothed_loss])
def test_label_smoothing_spreads_a_share_of_each_target(name):
    outputs, targets, _, _ = CASES[name]()
    loss = objective(TASKS[name], label_smoothing=0.2).train_loss
    share = np.asarray(jax.nn.one_hot(targets, CLASSES)) * 0.8 + 0.2 / CLASSES
    logs = np.asarray(jax.nn.log_softmax(outputs))
    wanted = -(share * logs).sum(-1).mean()
    found = loss(jnp.asarray(outputs, jnp.float32), jnp.asarray(targets, jnp.int32))
    assert found.shape == (COUNT,)
    assert float(found.mean()) == pytest.approx(wanted, rel=1e-5)


def test_outputs_have_the_shape_that_targets_ask_for():
    shapes = {
        name: TASKS[name].output_shape(targets)
        for name, targets in {
            "classification": Targets((), True, 10),
            "regression": Targets((), False, 0),
            "multilabel": Targets((7,), True, 2),
            "next_token": Targets((64,), True, 97),
        }.items()
    }
    assert shapes == {
        "classification": (10,), "regression": (1,), "multilabel": (7,), "next_token": (64, 97),
    }  # fmt: skip


def test_classification_counts_hits_as_integers():
    """Exact, and as it was before there were tasks."""
    hits = CLASSIFICATION.measure(jnp.eye(3), jnp.array([0, 1, 1]))
    assert hits.dtype == bool
    assert hits.tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (len, "accepted: a lth_jax.Task"),
        (Task(None, ()), "its loss is None"),
        (Task(len, ()), "accepted: a tuple of lth_jax.Metric"),
        (Task(len, (Metric("no measure"),)), "has measure=None"),
        (Task(len, (Metric("A/B", len),)), "accepted: lower-case"),
    ],
)
def test_a_row_that_is_no_task_is_refused(row, said):
    assert said in wrong_task(row)
