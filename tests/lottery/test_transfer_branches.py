"""Tickets of another experiment."""

import jax
import jax.numpy as jnp
import pytest

from lth_jax.config import TRANSFERS
from lth_jax.lottery.branches import BRANCHES, new_heads
from lth_jax.lottery.start_points import StartPoint
from lth_jax.pruning.masks import ones_mask
from lth_jax.training.states import TrainState, rewind

from ..small_networks import assert_same_bits, optimizer
from .branch_points import OPTIMIZER, STEP, branch_point, point, source_ticket


def test_transfer_is_the_sources_ticket_bit_for_bit():
    source = source_ticket()
    assert_same_bits(BRANCHES["transfer"](branch_point()), source)


def test_a_transfer_from_initialization_begins_with_a_new_optimizer():
    source = source_ticket()._replace(step=0)
    ticket = BRANCHES["transfer"](branch_point(source=lambda: source))
    assert_same_bits(ticket.state.params, source.state.params)
    assert_same_bits(ticket.state.opt_state, OPTIMIZER.init(source.state.params))


def test_a_transfer_to_another_optimizer_begins_it_anew():
    """A late rewound state of SGD holds no moments that Adam could go on with."""
    other = optimizer("sgd")
    source = source_ticket()
    source = source._replace(state=source.state._replace(opt_state=other.init(source.state.params)))
    ticket = BRANCHES["transfer"](branch_point(source=lambda: source))
    assert_same_bits(ticket.state.params, source.state.params)
    assert_same_bits(ticket.state.opt_state, OPTIMIZER.init(source.state.params))
    assert ticket.step == STEP


def with_classes(ticket, classes):
    """The ticket of a network with another number of classes."""
    params = jax.tree.map(jnp.array, ticket.state.params)
    params["output"] = {
        "kernel": jnp.ones((8, classes)).at[0].set(0), "bias": jnp.ones(classes)
    }  # fmt: skip
    mask = {**ticket.mask, "output": jax.tree.map(lambda w: w > 0, params["output"])}
    return StartPoint(mask, TrainState(params, ticket.state.model_state, ()), ticket.step)


@pytest.mark.parametrize("case", ["new_head", "five classes"])
def test_a_new_head_is_the_targets_own_initialization_with_a_full_mask(case):
    source = source_ticket()
    if case == "five classes":
        source = with_classes(source, 5)
    at = branch_point(source=lambda: source, options={"new_head": case == "new_head"})
    ticket = BRANCHES["transfer"](at)
    assert all(leaf.all() for leaf in jax.tree.leaves(ticket.mask["output"]))
    assert_same_bits(ticket.state.params["output"], at.initial["output"])
    for layer in set(at.initial) - {"output"}:
        assert_same_bits(ticket.mask[layer], source.mask[layer])
        assert_same_bits(ticket.state.params[layer], source.state.params[layer])
    assert_same_bits(ticket.state.opt_state, OPTIMIZER.init(ticket.state.params))
    assert_same_bits(ticket.state.model_state, source.state.model_state)


@pytest.mark.parametrize("new_head", [False, True])
def test_transfer_reinit_has_the_transfers_mask_and_fresh_weights(new_head):
    at = branch_point(options={"new_head": new_head})
    ticket = BRANCHES["transfer_reinit"](at)
    assert_same_bits(ticket.mask, BRANCHES["transfer"](at).mask)
    assert_same_bits(ticket.state, rewind(at.fresh(at.key), ticket.mask, OPTIMIZER))


@pytest.mark.parametrize("name", sorted(TRANSFERS))
@pytest.mark.parametrize(
    ("leaf", "shape", "said"),
    [
        ("fc1/kernel", (9, 8), "fc1/kernel is 9×8 in the source and 16×8 here"),
        ("fc1/bias", (4,), "fc1/bias is 4 in the source and 8 here"),
        ("fc1/kernel", None, "fc1/kernel is none in the source and 16×8 here"),
        ("fc2/kernel", (3, 4), "fc2/kernel is 3×4 in the source and none here"),
    ],
)
def test_other_shapes_are_refused_by_name(name, leaf, shape, said):
    source = source_ticket()
    layer, kind = leaf.split("/")
    params = {n: dict(leaves) for n, leaves in source.state.params.items()}
    if shape is None:
        del params[layer][kind]
    else:
        params.setdefault(layer, {})[kind] = jnp.zeros(shape)
    source = StartPoint(ones_mask(params), TrainState(params, {}, ()), 0)
    with pytest.raises(ValueError, match=f"^{said}; accepted: networks that differ in their out"):
        BRANCHES[name](branch_point(source=lambda: source))


def test_new_heads_are_all_leaves_of_the_output_layer_or_none():
    params = point().params
    assert new_heads(params, params) == set()
    assert new_heads(params, params, always=True) == {"output/kernel", "output/bias"}
    fewer = with_classes(source_ticket(), 2).state.params
    assert new_heads(fewer, params) == {"output/kernel", "output/bias"}
