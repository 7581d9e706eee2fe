"""What the training loop does besides the network, by native code; see `training.operations`."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, Int32, Key, Shaped

from lth_jax.native.build import target
from lth_jax.pruning.masks import masked_step as optax_step
from lth_jax.pruning.trees import PyTree
from lth_jax.training.operations import Operations
from lth_jax.training.optimizers import AdamRule, MomentumRule, Rate, Rule, rule_of


def permutation(key: Key[Array, ""], count: int) -> Int32[Array, " {count}"]:
    """Returns what `jax.random.permutation(key, count)` does, bit for bit, int32 [count].

    It sorts by the same random keys: two comparing sorts of 55,000 pairs take as long as hundreds
    of steps of a sparse LeNet, two radix sorts as long as some.
    """
    # As many rounds of sorting as `jax.random` takes. A test holds it to that, for each version.
    rounds = int(np.ceil(3 * np.log(max(1, count)) / np.log(np.iinfo(np.uint32).max)))
    keys = []
    for _ in range(rounds):
        key, subkey = jax.random.split(key)
        keys.append(jax.random.bits(subkey, (count,), jnp.uint32))
    if not keys:
        return jnp.arange(count, dtype=jnp.int32)
    shape = jax.ShapeDtypeStruct((count,), jnp.int32)
    return _call("EpochOrder", shape, "broadcast_all")(jnp.stack(keys))


def gather_rows(
    rows: Shaped[Array, "n ..."], chosen: Int[Array, " batch"]
) -> Shaped[Array, "batch ..."]:
    """Returns the chosen rows of an array; they are asked for before the first is waited for.

    Under `vmap` runs may share `rows`, which then are in memory once.

    Args:
      rows: [n, ...] of any type.
      chosen: integers [batch]; an index that no row has takes the nearest.
    """
    shape = jax.ShapeDtypeStruct((len(chosen), *rows.shape[1:]), rows.dtype)
    call = _call("GatherRows", shape, "expand_dims")
    return call(rows, chosen.astype(jnp.int32), row_rank=np.int64(rows.ndim - 1))


def masked_step(
    optimizer: optax.GradientTransformation,
    grads: PyTree,
    opt_state: optax.OptState,
    params: PyTree,
    mask: PyTree,
) -> tuple[PyTree, optax.OptState]:
    """Takes one step of an optimizer under a mask, as `pruning.masks.masked_step` defines it.

    One that says by which rule it moves each weight does it in one pass through memory; any other,
    and parameters that are not all float32, are Optax's. Results agree to rounding.
    """
    rule = rule_of(optimizer)
    if rule is None or any(leaf.dtype != jnp.float32 for leaf in jax.tree.leaves((grads, params))):
        return optax_step(optimizer, grads, opt_state, params, mask)
    # Optax itself moves its counts on, with trees that have no leaves.
    _, counted = optimizer.update((), _with_moments(opt_state, ((), ())), ())
    rate = _rate(rule.learning_rate, opt_state)
    if isinstance(rule, AdamRule):
        before, count = _only(opt_state, _ADAM), _only(counted, _ADAM).count
        scalars = rate, *(1 / (1 - beta**count) for beta in (rule.b1, rule.b2))
        params, after = _moved(rule, scalars, grads, mask, params, (before.mu, before.nu))
    else:
        before = _only(opt_state, _TRACE)
        params, after = _moved(rule, (rate,), grads, mask, params, (before.trace,))
    return params, _with_moments(counted, after)


_ADAM, _TRACE = optax.ScaleByAdamState, optax.TraceState
NATIVE = Operations(permutation, gather_rows, masked_step)


class _Native(NamedTuple):
    """The native function of a rule, and its numbers that no step changes."""

    name: str
    attributes: dict[str, Any]


def _native(rule: Rule) -> _Native:
    if isinstance(rule, AdamRule):
        names = "UpdateByAdam", ("b1", "b2", "eps", "l2", "decay")
    else:
        names = "UpdateByMomentum", ("momentum", "l2")
    attributes: dict[str, Any] = {name: np.float32(getattr(rule, name)) for name in names[1]}
    if isinstance(rule, MomentumRule):
        attributes["nesterov"] = rule.nesterov
    return _Native(names[0], attributes)


def _moved(
    rule: Rule,
    scalars: tuple[jax.typing.ArrayLike, ...],
    grads: PyTree,
    mask: PyTree,
    params: PyTree,
    moments: tuple[PyTree, ...],
) -> tuple[PyTree, tuple[PyTree, ...]]:
    """Returns the parameters and moments after a step; all leaves are one call."""
    structure = jax.tree.structure(params)
    # One leaf after the other: what it is moved by, then what moves.
    moving = params, *moments
    columns = [jax.tree.leaves(tree) for tree in (grads, mask, *moving)]
    arrays = [leaf for leaves in zip(*columns, strict=True) for leaf in leaves]
    results = [
        jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        for leaves in zip(*columns[2:], strict=True)
        for leaf in leaves
    ]
    # Behind the scalars; each is written where it lies.
    width, moved = len(columns), len(moving)
    aliases = {
        1 + width * index + 2 + which: moved * index + which
        for index in range(structure.num_leaves)
        for which in range(moved)
    }
    name, attributes = _native(rule)
    now = jnp.stack([jnp.asarray(scalar, jnp.float32) for scalar in scalars])
    call = _call(name, results, "broadcast_all", input_output_aliases=aliases)
    found = call(now, *arrays, **attributes) if results else []
    weights, *after = (jax.tree.unflatten(structure, found[which::moved]) for which in range(moved))
    return weights, tuple(after)


def _rate(rate: Rate, opt_state: optax.OptState) -> jax.typing.ArrayLike:
    """Returns the learning rate of the step that is to be taken."""
    return rate(_only(opt_state, optax.ScaleByScheduleState).count) if callable(rate) else rate


def _with_moments(opt_state: optax.OptState, moments: tuple[PyTree, ...]) -> optax.OptState:
    """Returns an optimizer's state with other moments: (mu, nu), or (trace, …)."""

    def replaced(node: Any) -> Any:
        if isinstance(node, _ADAM):
            return node._replace(mu=moments[0], nu=moments[1])
        return node._replace(trace=moments[0]) if isinstance(node, _TRACE) else node

    return jax.tree.map(replaced, opt_state, is_leaf=lambda node: isinstance(node, (_ADAM, _TRACE)))


def _only(opt_state: optax.OptState, kind: type[Any]) -> Any:
    """Returns the one part of that kind of an optimizer's state."""
    is_kind = lambda node: isinstance(node, kind)  # noqa: E731
    (found,) = filter(is_kind, jax.tree.leaves(opt_state, is_leaf=is_kind))
    return found


def _call(name: str, results: Any, vmap_method: str, **options: Any) -> Any:
    return jax.ffi.ffi_call(target(name), results, vmap_method=vmap_method, **options)
