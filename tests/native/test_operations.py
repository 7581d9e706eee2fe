"""The loop's own operations, natively: the same bits; of an optimizer's step, to rounding."""

from functools import cache, partial

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings

from lth_jax.native import operations
from lth_jax.native.choice import NativeCode
from lth_jax.native.operations import NATIVE, gather_rows, permutation
from lth_jax.pruning.masks import masked_step
from lth_jax.training.operations import Operations
from lth_jax.training.optimizers import OPTIMIZERS, AdamRule, rule_of

from ..small_networks import assert_same_bits, optimizer

pytestmark = pytest.mark.usefixtures("built")

# --- The order of an epoch -------------------------------------------------------------------

# No round of sorting, one, two (from 1,626 on), and that of MNIST.
COUNTS = pytest.mark.parametrize("count", [1, 2, 50, 1625, 1626, 55_000])


@COUNTS
def test_an_order_is_that_of_jax_random(count):
    ours = jax.jit(partial(permutation, count=count))
    for seed in range(3):
        key = jax.random.key(seed)
        expected = jax.random.permutation(key, count)
        assert ours(key).dtype == expected.dtype == jnp.int32
        np.testing.assert_array_equal(ours(key), expected)


def test_runs_of_a_group_have_the_orders_that_they_have_alone():
    keys = jax.random.split(jax.random.key(7), 3)
    together = jax.vmap(partial(permutation, count=2000))(keys)
    for key, order in zip(keys, together, strict=True):
        np.testing.assert_array_equal(order, jax.random.permutation(key, 2000))


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 7, 2000]))
def test_equal_keys_stay_in_order(most, count):
    keys = np.random.default_rng(count).integers(0, most, (2, count), np.uint32, endpoint=True)
    shape = jax.ShapeDtypeStruct((count,), jnp.int32)
    order = jax.ffi.ffi_call("lth_jax.EpochOrder", shape)(keys)
    first = np.argsort(keys[0], kind="stable")
    np.testing.assert_array_equal(order, first[np.argsort(keys[1], kind="stable")])


# --- The examples of a batch -----------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 40),
    st.lists(st.integers(1, 30), max_size=3),
    st.integers(0, 50),
    st.sampled_from([np.uint8, np.float32, np.int32]),
    st.integers(0, 99),
)
def test_a_batch_has_the_bits_of_its_rows(count, row, batch, dtype, seed):
    random = np.random.default_rng(seed)
    rows = jnp.asarray(random.integers(0, 255, (count, *row)).astype(dtype))
    chosen = jnp.asarray(random.integers(0, count, batch).astype(np.int32))
    assert_same_bits(gather_rows(rows, chosen), rows[chosen])


@pytest.mark.parametrize("axes", [(None, 0), (0, 0), (0, None)], ids=str)
def test_runs_of_a_group_may_share_what_they_gather_from(axes):
    random = np.random.default_rng(0)
    shapes = [(3,) * (axis is not None) for axis in axes]
    rows = jnp.asarray(random.normal(size=(*shapes[0], 20, 4, 5)).astype(np.float32))
    chosen = jnp.asarray(random.integers(0, 20, (*shapes[1], 6)), jnp.int32)
    expected = jax.vmap(lambda rows, chosen: rows[chosen], axes)(rows, chosen)
    assert_same_bits(jax.vmap(gather_rows, axes)(rows, chosen), expected)


def test_no_index_reads_beyond_the_rows():
    rows = jnp.arange(12.0).reshape(4, 3)
    np.testing.assert_array_equal(
        gather_rows(rows, jnp.array([-1, 4, 99])), rows[np.array([0, 3, 3])]
    )


# --- The step of an optimizer ----------------------------------------------------------------

STEPS = 3
RULED = [name for name in sorted(OPTIMIZERS) if name != "sgd"]
SCHEDULE = optax.linear_schedule(0.1, 0.01, 10)


@cache
def transform(name, rate=0.01, nesterov=False):
    changes = {"nesterov": nesterov} if name == "momentum" else {}
    return optimizer(name, learning_rate=rate, **changes)


def tree(random, sizes):
    shapes = {"kernel": sizes, "bias": sizes[:1], "one": ()}
    return {name: np.float32(random.normal(size=shape)) for name, shape in shapes.items()}


def problem(sizes, spoiled=None, frozen=None):
    """(parameters, gradients of each step, mask).

    `spoiled` stands in the gradients where something is pruned, `frozen` in the parameters.
    """
    random = np.random.default_rng(sum(sizes))
    start, *gradients = (tree(random, sizes) for _ in range(1 + STEPS))
    mask = {name: random.random(np.shape(leaf)) < 0.6 for name, leaf in start.items()}

    def with_pruned(leaves, value):
        if value is None:
            return leaves
        return {n: np.where(mask[n], leaf, np.float32(value)) for n, leaf in leaves.items()}

    return with_pruned(start, frozen), [with_pruned(g, spoiled) for g in gradients], mask


def trained(transformation, params, gradients, mask, step=NATIVE.masked_step):
    state = transformation.init(params)
    for gradient in gradients:
        params, state = step(transformation, gradient, state, params, mask)
    return jax.device_get((params, state))


def in_float64(rule, weights, gradients, kept):
    """(weights, first moments, second moments) of one leaf, by the definition."""
    first = second = np.zeros(np.shape(weights))
    frozen, weights = np.float64(weights), np.where(kept, np.float64(weights), 0)
    for count, gradient in enumerate(gradients):
        rate = rule.learning_rate
        rate = float(rate(count)) if callable(rate) else rate
        g = np.where(kept, np.float64(gradient), 0) + rule.l2 * weights
        if isinstance(rule, AdamRule):
            first = rule.b1 * first + (1 - rule.b1) * g
            second = rule.b2 * second + (1 - rule.b2) * g * g
            unbiased = first / (1 - rule.b1 ** (count + 1))
            deviation = np.sqrt(second / (1 - rule.b2 ** (count + 1)))
            update = unbiased / (deviation + rule.eps) + rule.decay * weights
        else:
            first = rule.momentum * first + g
            update = g + rule.momentum * first if rule.nesterov else first
        weights = weights - rate * update
    return np.where(kept, weights, frozen), first, second


def assert_near_float64(transformation, sizes):
    start, gradients, mask = problem(sizes)
    params, state = trained(transformation, start, gradients, mask)
    rule = rule_of(transformation)
    kind = optax.ScaleByAdamState if isinstance(rule, AdamRule) else optax.TraceState
    held = operations._only(state, kind)
    moments = [held.mu, held.nu] if isinstance(rule, AdamRule) else [held.trace]
    for name, kept in mask.items():
        leaves = [gradient[name] for gradient in gradients]
        expected = in_float64(rule, start[name], leaves, kept)
        for mine, reference in zip([params, *moments], expected, strict=False):
            np.testing.assert_allclose(mine[name], reference, rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("rate", [0.01, SCHEDULE], ids=["constant", "scheduled"])
@pytest.mark.parametrize("name", RULED)
def test_a_step_is_that_of_the_definition_in_float64_to_rounding(name, rate, nesterov):
    assert_near_float64(transform(name, rate, nesterov), (37, 29))


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(RULED), st.tuples(st.integers(0, 70), st.integers(1, 40)))
def test_leaves_may_have_any_size(name, sizes):
    assert_near_float64(transform(name), sizes)


@pytest.mark.parametrize("name", RULED)
def test_the_state_is_optaxs(name):
    given = transform(name, SCHEDULE), *problem((6, 5))
    mine, theirs = trained(*given), trained(*given, step=masked_step)
    assert jax.tree.structure(mine) == jax.tree.structure(theirs)
    for one, other in zip(*map(jax.tree.leaves, (mine, theirs)), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", RULED)
def test_pruned_weights_keep_their_value_and_survivors_move(name):
    for frozen in (None, 0.0, 1e30):
        start, gradients, mask = problem((40, 9), frozen=frozen)
        end, _ = trained(transform(name), start, gradients, mask)
        for leaf, kept in mask.items():
            assert end[leaf][~kept].tobytes() == start[leaf][~kept].tobytes()
            assert np.all(end[leaf][kept] != start[leaf][kept])


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30], ids=str)
@pytest.mark.parametrize("name", RULED)
def test_what_is_pruned_does_not_matter_to_survivors(name, value):
    end, state = trained(transform(name), *problem((40, 9), frozen=0.0))
    for spoiled, frozen in ((value, 0.0), (None, value)):
        *given, mask = problem((40, 9), spoiled, frozen)
        other, others = trained(transform(name), *given, mask)
        assert_same_bits(others, state)
        for leaf, kept in mask.items():
            assert other[leaf][kept].tobytes() == end[leaf][kept].tobytes()


@pytest.mark.parametrize("name", RULED)
def test_a_gradient_that_is_no_number_is_seen(name):
    start, kept = {"w": np.ones(20, np.float32)}, {"w": np.ones(20, bool)}
    gradient = {"w": np.where(np.arange(20) == 7, np.float32(np.nan), np.float32(1))}
    end, _ = trained(transform(name), start, [gradient], kept)
    np.testing.assert_array_equal(np.isnan(end["w"]), np.arange(20) == 7)


@pytest.mark.parametrize("name", RULED)
def test_runs_of_a_group_have_the_bits_that_they_have_alone(name):
    step = jax.jit(partial(NATIVE.masked_step, transform(name, SCHEDULE)))
    params, gradients = (stacked(seed) for seed in (0, 1))
    state = jax.vmap(transform(name, SCHEDULE).init)(params)
    state = jax.tree.map(lambda leaf: leaf + np.arange(3) if leaf.shape == (3,) else leaf, state)
    given = gradients, state, params, jax.tree.map(lambda leaf: leaf > -0.5, gradients)
    together = jax.vmap(step)(*given)
    for run in range(3):
        assert_same_bits(member(together, run), step(*member(given, run)))


def stacked(seed):
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda *leaves: np.stack(leaves), *(tree(random, (5, 7)) for _ in range(3)))


def member(runs, run):
    return jax.tree.map(lambda leaf: leaf[run], runs)


def native_calls(transformation, dtype=jnp.float32):
    params = {"w": jnp.ones(20, dtype)}
    arguments = params, transformation.init(params), params, {"w": jnp.ones(20, bool)}
    step = partial(NATIVE.masked_step, transformation)
    return str(jax.make_jaxpr(step)(*arguments)).count("ffi_call")


def test_all_leaves_are_one_call_and_other_optimizers_stay_optaxs():
    assert [native_calls(transform(name)) for name in RULED] == [1] * len(RULED)
    clipped = optax.chain(optax.clip_by_global_norm(0.5), transform("adam"))
    for other in (transform("sgd"), clipped, optax.adam(0.1)):
        assert rule_of(other) is None
        assert native_calls(other) == 0
    assert native_calls(transform("adam"), jnp.bfloat16) == 0


def test_under_xla_the_loop_stays_as_it_is():
    assert NativeCode().operations == Operations()
    assert NativeCode("auto").operations == NativeCode("sparse").operations == NATIVE
