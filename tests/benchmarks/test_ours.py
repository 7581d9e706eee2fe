"""Our side of the benchmarks trains what it says."""

import jax
import numpy as np
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def ours(benchmark_of):
    return benchmark_of("ours")


@pytest.fixture
def problem(benchmark_of):
    overrides = ("model.hidden=(5,4)", "eval.every=3", "data.validation_size=100")
    return benchmark_of("problem").make_problem(
        "synthetic", "", "configs/lenet_mnist.py", (*overrides, "eval.batch_size=100")
    )


def kernel_of(run, index=0):
    return np.asarray(run.run.state.params["fc1"]["kernel"][index])


@pytest.fixture
def masks(problem):
    random = np.random.default_rng(0)

    def mask(value):
        return random.random(np.shape(value)) < 0.5

    return [jax.tree.map(mask, problem.params) for _ in range(3)]


def test_runs_side_by_side_are_those_alone(ours, problem, masks):
    side_by_side = ours.SideBySide(problem, 3, workers=2, masks=masks, replicates=[0, 0, 1])
    seconds, loss = side_by_side.train(7)

    assert seconds > 0
    assert [group.step for group in side_by_side.groups] == [7, 7, 7]
    assert len({id(group.program) for group in side_by_side.groups}) == 1
    alone = ours.Ours(problem, masks=masks[:1])
    assert alone.train(7)[1] == loss
    np.testing.assert_array_equal(kernel_of(alone), kernel_of(side_by_side.groups[0]))
    other = ours.Ours(problem, masks=masks[2:], replicates=[1], twin=alone)
    other.train(7)
    np.testing.assert_array_equal(kernel_of(other), kernel_of(side_by_side.groups[2]))


def test_a_last_group_is_filled_up(ours, problem, masks):
    side_by_side = ours.SideBySide(problem, 3, workers=2, group=2, masks=masks)

    side_by_side.train(2)

    last = side_by_side.groups[1]
    assert len(side_by_side.groups) == 2
    np.testing.assert_array_equal(kernel_of(last, 0), kernel_of(last, 1))
    assert not np.any(kernel_of(last)[~masks[2]["fc1"]["kernel"]])
