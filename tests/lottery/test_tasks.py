"""Whole experiments that are no classification, and what of a config no task can take."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.data import DATASETS, content_of, custom_dataset, facts_of, load
from lth_jax.errors import DataError, SpecError
from lth_jax.lottery.building import build
from lth_jax.lottery.network import check_task
from lth_jax.store import RunDirectory
from lth_jax.training.tasks import TASKS, Task

from ..tiny import experiment, tiny_spec, train

TRAIN, TEST, TOKENS = 140, 50, 6
RANDOM = np.random.default_rng(0)


def given(inputs, targets, **more):
    return {
        "train_inputs": inputs[:TRAIN], "train_targets": targets[:TRAIN],
        "test_inputs": inputs[TRAIN:], "test_targets": targets[TRAIN:], **more,
    }  # fmt: skip


def regression():
    x = RANDOM.normal(size=(TRAIN + TEST, 5))
    return given(x, x @ RANDOM.normal(size=5) + 3)


def multilabel():
    from sklearn.datasets import make_multilabel_classification

    x, y = make_multilabel_classification(TRAIN + TEST, 12, n_classes=4, random_state=0)
    return given(x / 10, y)


def next_token():
    """Each token is its predecessor's successor, mostly."""
    steps = RANDOM.random((TRAIN + TEST, TOKENS)) < 0.9
    tokens = np.cumsum(np.concatenate([np.zeros((len(steps), 1), int), steps], 1), 1) % 5
    return given(tokens[:, :-1], tokens[:, 1:], num_classes=6)


ALL = {"regression": regression, "multilabel": multilabel, "next_token": next_token}
FIELDS = {
    "replicates": 2, "levels": 1, "branches": ("reinit",), "eval__batch_size": 16,
    "pruning__layer_rates": (), "train__learning_rate": 0.02, "data__test_size": 0,
    "analysis__margin": 0.5,
}  # fmt: skip
GPT = {"model__name": "gpt", "model__hidden": (300, 100), "model__features": 8, "model__heads": 2}


def spec_of(name, **fields):
    own = GPT | {"model__layers": 1} if name == "next_token" else {}
    return tiny_spec(**FIELDS | own | {"task": name, "data__name": name} | fields)


@pytest.fixture(autouse=True)
def datasets(monkeypatch):
    for name, function in ALL.items():
        arrays = function()
        monkeypatch.setitem(DATASETS, name, custom_dataset(name, lambda a=arrays: a))


def columns(path):
    with (path / "results.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("regression", "absolute_error"),
        ("multilabel", "micro_f1"),
        ("next_token", "cross_entropy"),
    ],
)
@pytest.mark.slow
def test_a_task_is_trained_pruned_and_measured(name, column, tmp_path):
    spec = spec_of(name, train__steps="60")
    train(tmp_path / "run", spec)
    store = RunDirectory.read(tmp_path / "run")
    assert store.metric.column == column
    rows = columns(store.path)
    assert len(rows) == 2 * 3
    assert f"early_stop_test_{column}" in rows[0]
    assert not any("accuracy" in name for name in rows[0])
    points = store.curve("ticket", 0)
    first, last = points[0], points[-1]
    assert last.val_loss < 0.8 * first.val_loss
    assert (last.val_accuracy > first.val_accuracy) is store.metric.higher_is_better
    # The last network, measured again by itself on the whole test split.
    trained = store.load(0, "level_01")
    e = experiment(spec)
    params = jax.tree.unflatten(
        jax.tree.structure(e.initial(0).params),
        [trained[f"params/{row.name}"] for row in e.parameters],
    )
    test = load(name)
    outputs, _ = e.model.apply({"params": params}, jnp.asarray(test.test_images), False, {})
    metric = TASKS[name].metric()
    measured = metric.measure(outputs, jnp.asarray(test.test_labels))
    sums = jax.tree.map(lambda m: m.sum(0), measured)
    value = metric.value(sums, TEST) if metric.value else sums / TEST
    wanted = next(
        r for r in rows if (r["branch"], r["level"], r["replicate"]) == ("ticket", "1", "0")
    )
    assert float(value) == pytest.approx(float(wanted[f"final_test_{column}"]), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "criterion", ["snip", *(pytest.param(c, marks=pytest.mark.slow) for c in ("grasp", "synflow"))]
)
def test_criteria_take_gradients_of_the_task_s_loss(criterion, tmp_path):
    spec = spec_of("regression", pruning__criterion=criterion, pruning__rounds=2, branches=())
    train(tmp_path / criterion, spec)
    probe = experiment(spec).probe(jax.random.key(0), {})
    outputs = jnp.ones((len(probe.targets), 1))
    wanted = np.mean((1 - np.asarray(probe.targets)) ** 2)
    assert float(probe.loss(outputs, probe.targets).mean()) == pytest.approx(wanted, rel=1e-5)


def test_a_loss_of_one_s_own_is_given_the_fields_that_it_takes(monkeypatch):
    def pinball(outputs, targets, share=0.5):
        error = targets - outputs[:, 0]
        return jnp.maximum(share * error, (share - 1) * error)

    task = Task(pinball, TASKS["regression"].metrics)
    monkeypatch.setitem(TASKS, "pinball", task)
    built = build(spec_of("regression", task="pinball", custom={"share": 0.9}))
    aim = built.program(1).objective
    outputs, targets = jnp.zeros((2, 1)), jnp.array([1.0, -1.0])
    for loss in (aim.train_loss, aim.loss, built.probe(jax.random.key(0), {}).loss):
        np.testing.assert_allclose(loss(outputs, targets), [0.9, 0.1], rtol=1e-6)
    assert built.program(1).fused is None
    with pytest.raises(SpecError, match="no row takes it"):
        build(spec_of("regression", task="pinball", custom={"shere": 0.9}))


def test_inputs_and_targets_are_taken_as_they_are():
    facts = {name: facts_of(load(name)) for name in ALL}
    assert [(f.shape, f.tokens, f.target_shape, f.classes) for f in facts.values()] == [
        ((5,), False, (), 0), ((12,), False, (4,), 2), ((TOKENS,), True, (TOKENS,), 6),
    ]  # fmt: skip
    assert content_of(load("next_token")).inputs == str(TOKENS)
    built = build(spec_of("regression"))
    np.testing.assert_array_equal(
        built.pixels.prepared(built.test.inputs).reshape(-1, 5)[:TEST],
        load("regression").test_images,
    )
    assert "50 test examples of 5 numbers" in built.data


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("regression", {"task": "classification"}, "targets of regression are floats [n]; acc"),
        ("multilabel", {"task": "regression"}, "are integers [n, 4] up to 1; accepted: floats"),
        ("regression", {"task": "next_tokens"}, "did you mean 'next_token'"),
        ("regression", {"metric": "rms"}, "no such name"),
        ("regression", {"analysis__margin": None}, "accepted for absolute error: a number above 0"),
        ("regression", {"train__label_smoothing": 0.1}, "no meaning for config.task='regression'"),
        ("regression", {"pruning__probe": "balanced"}, "has no class; accepted: random"),
        ("regression", {"data__flip": True}, "inputs of 5, no images; accepted: False"),
        ("regression", {"data__standardize": True}, "are no images"),
        ("regression", {"data__classes": (0, 1)}, "config.data.classes"),
        ("regression", {"data__part": "1/2"}, "has no class; accepted: ''"),
        ("regression", {"model__name": "lenet5", "model__hidden": (300, 100)}, "it takes images"),
        ("regression", GPT, "it takes tokens"),
        ("next_token", {"model__name": "mlp", "model__features": None, "model__heads": None,
                        "model__layers": None}, "it takes numbers, no tokens"),
    ],
)  # fmt: skip
def test_what_a_task_cannot_take_is_refused_in_one_line(name, fields, said):
    with pytest.raises((SpecError, DataError)) as caught:
        build(spec_of(name, **fields))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_images_and_labels_alone_are_as_strict_as_ever():
    """What is no image has a name of its own: integers that are images by mistake are refused."""
    arrays = regression()
    mixed = {k: v for k, v in arrays.items() if k != "test_inputs"}
    mixed["test_images"] = arrays["test_inputs"]
    with pytest.raises(DataError, match="accepted: train_images and test_images, or"):
        custom_dataset("mixed", lambda: mixed).load("mixed", None)
    with pytest.raises(DataError, match="train_targets is str"):
        custom_dataset("x", lambda: arrays | {"train_targets": ["a"] * TRAIN}).load("x", None)
    with pytest.raises(DataError, match="accepted: none with float targets"):
        custom_dataset("x", lambda: arrays | {"num_classes": 3}).load("x", None)


def test_a_margin_of_one_s_own_is_asked_for_where_a_metric_has_none():
    check_task(spec_of("regression", metric="r squared", analysis__margin=None))
