"""Paths between trained networks: which there are, what lies on them, and that they are kept."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.analysis.paths import Stability, barrier, barriers, stability, stable_from
from lth_jax.errors import Interrupted, SpecError
from lth_jax.lottery.paths import missing_pairs, name_of, pairs_of
from lth_jax.lottery.plan import planned_runs
from lth_jax.models.base import from_linen
from lth_jax.report.stability import stability_said
from lth_jax.store import RunDirectory
from lth_jax.store.tables import TRUNK, RunId
from lth_jax.training.paths import Ends, between, distance, recomputed

from ..small_networks import bits
from ..tiny import Recorder, finished_run, tiny_spec, train

FIELDS = {
    "levels": 1, "replicates": 2, "branches": ("sibling", "reinit"),
    "branch.sibling.draws": 2, "branch.sibling.at": ("0", "7"), "branch.reinit.keep": True,
    "paths.pairs": ("siblings", "levels", "ticket_dense", "ticket_branch", "replicates"),
    "paths.points": 5,
}  # fmt: skip
SPEC = tiny_spec(**FIELDS)


BARE = tiny_spec(**{**FIELDS, "paths.pairs": ()})


@pytest.fixture
def measured():
    return finished_run(SPEC)


def test_a_spec_asks_for_these_pairs():
    pairs = pairs_of(SPEC, planned_runs(SPEC))
    kinds = [pair.kind for pair in pairs]
    # Of each replicate: two pairs of the dense network's siblings and one of the ticket's.
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "siblings": 6, "levels": 2, "ticket_dense": 2, "ticket_branch": 6, "replicates": 2,
    }  # fmt: skip
    siblings = [pair for pair in pairs if pair.kind == "siblings" and pair.first.replicate == 0]
    assert [(p.first.level, p.first.draw, p.second.draw) for p in siblings] == [
        (0, 0, 2), (0, 1, 3), (1, 0, 1),
    ]  # fmt: skip


@pytest.mark.slow
def test_the_ends_of_a_path_are_the_rows_of_its_networks(measured):
    store = RunDirectory.read(measured)
    rows = {name_of(run): row for run, row in store.rows.items()}
    points = store.paths()
    assert len(points) == 18 * 5
    ends = [p for p in points if p.alpha in (0, 1)]
    assert len(ends) == 18 * 2
    for point in ends:
        row = rows[point.second if point.alpha else point.first]
        assert point.test_error == 1 - row.final_test_accuracy
        assert math.isfinite(point.train_loss)


def test_pairs_that_part_late_lie_nearer_to_each_other(measured):
    found = barriers(RunDirectory.read(measured).paths())
    apart = {one.parted: one.l2 for one in found if one.pair == "siblings" and one.level == 0}
    assert set(apart) == {0, 7}
    assert apart[7] < apart[0]


@pytest.mark.slow
def test_nothing_is_measured_twice_and_what_is_missing_is(measured, tmp_path):
    assert missing_pairs(SPEC, RunDirectory.read(measured))[0] == []
    other = dataclasses.replace(SPEC, paths=dataclasses.replace(SPEC.paths, points=3))
    assert len(missing_pairs(other, RunDirectory.read(measured))[0]) == 18
    finished_run(BARE, tmp_path)
    assert RunDirectory.read(tmp_path).paths() == []
    told = Recorder()
    train(tmp_path, SPEC, observer=told)
    assert told.of("measuring") == [(number, 18) for number in range(1, 19)]
    assert (tmp_path / "paths.csv").read_bytes() == (measured / "paths.csv").read_bytes()


@pytest.mark.slow
def test_a_signal_between_two_paths_loses_none(measured, tmp_path):
    finished_run(BARE, tmp_path)
    asked = []

    def after_three():
        asked.append(0)
        return 2 if len(asked) > 3 else 0

    with pytest.raises(Interrupted, match="path 3 of 18"):
        train(tmp_path, SPEC, after_three)
    assert len(RunDirectory.read(tmp_path).paths()) == 3 * 5
    train(tmp_path, SPEC)
    assert (tmp_path / "paths.csv").read_bytes() == (measured / "paths.csv").read_bytes()


def test_a_path_begins_and_ends_in_its_networks_exactly():
    one, other = ({"w": jax.random.normal(jax.random.key(k), (7,))} for k in (0, 1))
    ends = Ends((one, {}), (other, {}))
    assert bits(between(ends, 0.0)) == bits((one, {}))
    assert bits(between(ends, 1.0)) == bits((other, {}))
    np.testing.assert_allclose(between(ends, 0.25)[0]["w"], 0.75 * one["w"] + 0.25 * other["w"])


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        norm = nn.BatchNorm(use_running_average=not train, momentum=0.7)
        return norm(nn.Dense(5)(nn.Dropout(0.1, deterministic=not train)(x)))


def test_recomputed_statistics_are_the_means_over_the_batches():
    """Whatever the momentum, and whatever the statistics were before."""
    model = from_linen(Normed())
    x = jnp.asarray(3 + np.random.default_rng(0).normal(size=(4, 200, 6)), jnp.float32)
    variables = dict(jax.jit(model.init)(jax.random.key(1), x[0]))
    params = variables.pop("params")
    spoilt = jax.tree.map(lambda leaf: np.asarray(leaf) + 7, variables)
    found = recomputed(model.apply, params, spoilt, x)["batch_stats"]["BatchNorm_0"]
    again = recomputed(model.apply, params, variables, x)["batch_stats"]["BatchNorm_0"]
    dense = jax.device_get(params["Dense_0"])
    seen = [batch @ dense["kernel"] + dense["bias"] for batch in np.asarray(x)]
    mean = np.mean([batch.mean(0) for batch in seen], 0)
    np.testing.assert_allclose(found["mean"], mean, atol=0.15)  # dropout moves it that much
    np.testing.assert_array_equal(found["mean"], again["mean"])
    np.testing.assert_array_equal(found["var"], again["var"])
    assert np.all(found["var"] > 0)


def test_a_barrier_is_the_highest_error_less_the_mean_of_the_ends():
    assert barrier([0.1, 0.1, 0.1]) == pytest.approx(0)
    assert barrier([0.1, 0.5, 0.3]) == pytest.approx(0.3)
    assert barrier([0.1, 0.15, 0.3]) == pytest.approx(0.1)


def test_stability_needs_its_interval_below_two_points_or_above(measured):
    (first, *_) = barriers(RunDirectory.read(measured).paths())
    of = lambda values: first._replace(values=values)  # noqa: E731
    assert stability(of((0.001, 0.002, 0.0))) is Stability.STABLE
    assert stability(of((0.1, 0.11, 0.12))) is Stability.UNSTABLE
    assert stability(of((0.01, 0.03, 0.02))) is Stability.UNDECIDED
    assert stability(of((0.001,))) is Stability.UNDECIDED
    steps = {0: (0.1, 0.11), 100: (0.01, 0.05), 500: (0.0, 0.0), 2000: (0.001, 0.001)}
    siblings = [first._replace(parted=step, values=values) for step, values in steps.items()]
    assert stable_from(siblings) == 500
    assert stable_from(siblings[:2]) is None


def test_two_networks_are_as_far_apart_as_their_vectors():
    one, other = (
        {"a": jnp.array([3.0, 0.0]), "b": jnp.zeros(1)},
        {"a": jnp.array([0.0, 4.0]), "b": jnp.zeros(1)},
    )
    apart = distance(one, other)
    assert apart.l2 == pytest.approx(5)
    assert apart.angle == pytest.approx(90, abs=1e-4)
    assert distance(one, one).l2 == 0
    assert distance(one, one).angle == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize(
    ("fields", "accepted"),
    [
        ({"paths.pairs": ("sibling",)}, "siblings"),
        ({"paths.pairs": ("siblings",), "branches": ()}, "branch.sibling.draws"),
        ({"paths.pairs": ("ticket_branch",), "branches": ("reinit",)}, "branch.NAME.keep=True"),
        ({"paths.points": 1}, "2 to 10,000"),
        ({"paths.statistics": "anew"}, "recomputed"),
    ],
)
def test_paths_that_cannot_be_are_refused_in_one_line(fields, accepted):
    with pytest.raises(SpecError, match=r"config\.paths\.") as error:
        tiny_spec(**fields)
    assert accepted in str(error.value)
    assert len(str(error.value)) < 200


@pytest.mark.slow
def test_a_run_that_diverged_has_a_path_all_the_same(tmp_path):
    """Its errors are what a network that gives no number gets."""
    spec = tiny_spec(levels=0, replicates=2, branches=(), train__learning_rate=1e20,
                     paths__pairs=("replicates",), paths__points=3)  # fmt: skip
    store = train(tmp_path, spec)
    assert store.rows[RunId(TRUNK, 0, 0, 0)].diverged >= 0
    assert len(store.paths()) == 3


def test_sentences_say_from_which_step_and_down_to_which_ticket(measured):
    point = RunDirectory.read(measured).paths()[0]._replace(pair="siblings")

    def pair(level, density, parted, heights):
        return [
            point._replace(
                level=level, density=density, parted=parted, replicate=replicate, alpha=alpha,
                first=f"sibling:{level}:{replicate}:{2 * parted}",
                second=f"sibling:{level}:{replicate}:{2 * parted + 1}",
                test_error=height if alpha == 0.5 else 0.0,
            )
            for replicate, height in enumerate(heights)
            for alpha in (0.0, 0.5, 1.0)
        ]  # fmt: skip

    points = [
        *pair(0, 1.0, 0, (0.1, 0.11, 0.12)), *pair(0, 1.0, 100, (0.0, 0.04, 0.02)),
        *pair(0, 1.0, 500, (0.001, 0.0, 0.002)), *pair(1, 0.5, -1, (0.0, 0.001, 0.0)),
        *pair(2, 0.25, -1, (0.2, 0.21, 0.22)),
    ]  # fmt: skip
    assert stability_said(points) == (
        "The dense network is stable from step 500 on (barrier below 2 points); it is not stable "
        "at initialization; undecided at step 100. Tickets are stable down to 50.0%, not stable at "
        "25.0%."
    )
    assert stability_said([p for p in points if p.replicate == 0]).startswith("One replicate")
    assert stability_said([]) == ""
