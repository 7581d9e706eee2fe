"""Exact selection: remove precisely the n lowest scores, by layer or over all layers.

A quantile of floats would prune too many weights or too few where scores are equal, or where a
fraction rounds. Here the threshold is found on integers that are in the order of the scores. On
accelerators that goes bit by bit: 32 passes that count, instead of a sort; the number to remove is
an argument, so that one compiled function for each shape serves every level. On a CPU NumPy
partitions the survivors' integers, which takes a tenth of the time. Both find the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax.pruning.masks import exact, kept_counts, prunable, with_leaves
from lth_jax.pruning.trees import PyTree, count_true, named_leaves


def groups(rates: Mapping[str, Fraction], scope: str) -> list[tuple[tuple[str, ...], Fraction]]:
    """Returns the groups of leaves that are ranked together, each with its multiple.

    `layerwise`: every leaf by itself. `global`: all leaves of one multiple together.

    Raises:
      ValueError: `scope` is neither.
    """
    if scope == "layerwise":
        return [((name,), rate) for name, rate in rates.items()]
    if scope == "global":
        members: dict[Fraction, list[str]] = {}
        for name, rate in rates.items():
            members.setdefault(rate, []).append(name)
        return [(tuple(names), rate) for rate, names in members.items()]
    raise ValueError(f"scope={scope!r}: accepted: layerwise or global")


def removal_count(surviving: int, fraction: float | Fraction, multiple: Fraction) -> int:
    """Returns floor(fraction × multiple × surviving), in exact decimals (0.29 of 100 is 29)."""
    return math.floor(exact(fraction) * multiple * surviving)


def prune(
    scores: PyTree,
    mask: PyTree,
    fraction: float | Fraction,
    *,
    scope: str = "layerwise",
    rates: Mapping[str, Fraction] | None = None,
) -> PyTree:
    """Returns the mask after one more round: the lowest-scored share of the survivors is removed.

    Of each ranked group, exactly floor(fraction × multiple × surviving) weights go. Among equal
    scores, the earlier one goes first, in `jax.tree.leaves` order and C order within a leaf.

    Args:
      scores: importance of each weight, higher = keep; the parameters' structure, any real dtype.
        For magnitude pruning, `jax.tree.map(jnp.abs, params)`.
      mask: the mask so far, bool, same structure; pruned weights never come back.
      fraction: share of the surviving weights to remove, in [0, 1], read as the decimal it prints.
      scope: `layerwise` or `global` ranking.
      rates: what may be pruned, as `prunable` gives it (by default every kernel, multiple 1).

    Returns:
      A new mask.

    Raises:
      ValueError: the fraction is out of range, the scope unknown, or a survivor's score is NaN or
        infinite (a run that diverged has no ranking).
    """
    if not 0 <= exact(fraction) <= 1:
        raise ValueError(f"fraction={fraction}: accepted: 0 to 1")
    rates = prunable(mask) if rates is None else rates
    counts = kept_counts(mask, rates)
    removals = {
        names: removal_count(sum(counts[name][0] for name in names), fraction, multiple)
        for names, multiple in groups(rates, scope)
    }
    return remove_lowest(scores, mask, removals)


def prune_to(
    scores: PyTree | Callable[[PyTree], PyTree],
    mask: PyTree,
    targets: Mapping[tuple[str, ...], int],
    *,
    rounds: int = 1,
    invert: bool = False,
) -> PyTree:
    """Returns the mask whose groups keep exactly `targets` of their survivors.

    With several rounds the scores are taken anew, under the mask so far, before each; a round goes
    the same *share* of the way as every other (the exponential schedule of Tanaka et al. 2020,
    §5), and the last one ends at the targets whatever the rounding before it.

    Args:
      scores: of the parameters' structure, or a function from the mask so far to them.
      mask: bool, the mask so far.
      targets: names of a group's leaves -> weights that it keeps.
      rounds: how often scores are taken, at least 1.
      invert: whether the highest scores go instead, as many in each leaf as would go of the lowest
        (Frankle et al. 2021, §5): a check of what scores are worth within their layer.

    Raises:
      ValueError: as `remove_lowest`.
    """
    if invert:
        kept = named_leaves(prune_to(scores, mask, targets, rounds=rounds))
        own = {(name,): count_true(kept[name]) for names in targets for name in names}
        return prune_to(_negated(scores), mask, own, rounds=rounds)
    leaves = named_leaves(mask)
    start = {names: sum(count_true(leaves[name]) for name in names) for names in targets}
    now = dict(start)
    for number in range(1, rounds + 1):
        aim = {
            names: kept
            if number == rounds
            else max(kept, _on_the_way(start[names], kept, number / rounds))
            for names, kept in targets.items()
        }
        ranked = scores(mask) if callable(scores) else scores
        mask = remove_lowest(ranked, mask, {names: now[names] - aim[names] for names in targets})
        now = aim
    return mask


def _negated(scores: PyTree | Callable[[PyTree], PyTree]) -> Callable[[PyTree], PyTree]:
    def negated(mask: PyTree) -> PyTree:
        return jax.tree.map(jnp.negative, scores(mask) if callable(scores) else scores)

    return negated


def _on_the_way(start: int, end: int, share: float) -> int:
    """Goes from `start` to `end` geometrically; to nothing by way of one weight."""
    return min(start, round(start * (max(end, 1) / start) ** share)) if start else 0


def remove_lowest(scores: PyTree, mask: PyTree, removals: Mapping[tuple[str, ...], int]) -> PyTree:
    """Returns the mask without the `count` lowest-scored survivors of each group of leaves.

    Raises:
      ValueError: a group has fewer survivors than are to be removed, or a survivor's score is not
        finite; names the leaves.
    """
    score_leaves, mask_leaves = named_leaves(scores), named_leaves(mask)
    new: dict[str, jax.Array] = {}
    for names, count in removals.items():
        values = [_in_place(score_leaves[name]) for name in names]
        alive = [_in_place(mask_leaves[name]) for name in names]
        surviving = check_finite(names, values, alive)
        if not 0 <= count <= surviving:
            raise ValueError(f"cannot remove {count} of {surviving} weights of {', '.join(names)}")
        on_host = all(isinstance(leaf, np.ndarray) for leaf in values + alive)
        kept = (_drop_lowest_on_host if on_host else _drop_lowest)(values, alive, np.uint32(count))
        new.update(zip(names, map(jnp.asarray, kept), strict=True))
    return with_leaves(mask, new)


def _in_place(leaf: Any) -> jax.Array | np.ndarray:
    """Returns an array as NumPy's where it lies in the host's memory and JAX computes there."""
    here = {jax.default_backend()}
    if isinstance(leaf, jax.Array):
        here = {device.platform for device in leaf.devices()}
    return np.asarray(leaf) if here == {"cpu"} else jnp.asarray(leaf)


def keep_highest(scores: jax.Array, kept: jax.Array) -> jax.Array:
    """Returns the mask, bool, of the `kept` highest scores; of equal ones the earlier goes first.

    To be traced, `kept` too. Scores that are not finite are ranked by their bits.
    """
    alive = jnp.ones(scores.shape, bool)
    count = jnp.uint32(scores.size) - kept.astype(jnp.uint32)
    return _drop_lowest([scores], [alive], count)[0]


def check_finite(names: Sequence[str], scores: Sequence[Any], alive: Sequence[Any]) -> int:
    """Returns the number of survivors of these leaves, whose scores are finite.

    Raises:
      ValueError: one is not.
    """
    on_host = all(isinstance(leaf, np.ndarray) for leaf in (*scores, *alive))
    survey = _survey if on_host else _compiled_survey
    # Asked for together: a device is waited for once, not for each leaf.
    found = jax.device_get([survey(*pair) for pair in zip(scores, alive, strict=True)])
    surviving = sum(int(count) for count, _ in found)
    finite = all(finite for _, finite in found)
    # The bits of a NaN have a place in the order too: it would be ranked, unnoticed.
    if not finite:
        raise ValueError(f"scores of {', '.join(names)} are not finite: nothing to rank")
    return surviving


def _survey(scores: Any, alive: Any) -> tuple[Any, Any]:
    """Returns (number of survivors, whether all their scores are finite)."""
    module = _module(scores)
    # What is pruned already may have any score.
    return module.count_nonzero(alive), module.all(module.isfinite(scores) | ~alive)


_compiled_survey = jax.jit(_survey)


def _module(array: Any) -> Any:
    """Returns what computes with an array: NumPy, or what is traced and compiled."""
    return np if isinstance(array, np.ndarray) else jnp


@jax.jit
def _drop_lowest(
    scores: Sequence[jax.Array], alive: Sequence[jax.Array], count: jax.Array
) -> list[jax.Array]:
    """Returns `alive` without its `count` lowest scores; of equal ones the earlier goes first."""
    live = jnp.concatenate([jnp.ravel(a) for a in alive])
    key = jnp.concatenate([jnp.ravel(k) for k in _same_width([ordered(s) for s in scores])])
    # All below the threshold go. Of those equal to it go the first, as many as are still missing:
    # so exactly `count`, however many scores are equal.
    threshold = _kth_smallest(key, live, count)
    below = live & (key < threshold)
    ties = live & (key == threshold)
    still = count - jnp.count_nonzero(below).astype(jnp.uint32)
    tied_rank = jnp.cumsum(ties.astype(jnp.uint32))
    kept = live & ~below & ~(ties & (tied_rank <= still))
    ends = np.cumsum([a.size for a in alive])[:-1]
    parts = jnp.split(kept, ends)
    return [jnp.reshape(part, a.shape) for part, a in zip(parts, alive, strict=True)]


def _drop_lowest_on_host(
    scores: Sequence[Any], alive: Sequence[Any], count: np.uint32
) -> list[np.ndarray]:
    """Returns what `_drop_lowest` does, computed by NumPy."""
    places = [np.flatnonzero(a) for a in alive]
    keys = _same_width([ordered(np.ravel(s)[p]) for s, p in zip(scores, places, strict=True)])
    key = keys[0] if len(keys) == 1 else np.concatenate(keys)
    threshold = np.partition(key, count - 1)[count - 1] if count else 0
    missing = int(count) - np.count_nonzero(key < threshold)
    new = []
    for leaf, own, where in zip(alive, keys, places, strict=True):
        tied = where[own == threshold]
        kept = np.zeros(leaf.size, bool)
        kept[where[own > threshold]] = kept[tied[missing:]] = True
        missing = max(0, missing - len(tied))
        new.append(kept.reshape(leaf.shape))
    return new


def _same_width(keys: list[Any]) -> list[Any]:
    """Checks that the keys of a group can be compared: those of 32 and 64 bits cannot."""
    if len({key.dtype for key in keys}) > 1:
        raise ValueError("a group's scores must all be float64, or none")
    return keys


def ordered(scores: Any) -> Any:
    """Returns unsigned integers in the order of the scores, from their bits; NumPy's of NumPy's.

    Narrower floats widen to float32 exactly; float64 keeps its 64 bits. Negative zero equals zero.
    Floats are not compared, since the CPU would take subnormal scores for zeros: small weights
    would be tied that are not equal.
    """
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    bits = 8 * scores.dtype.itemsize
    unsigned = jnp.dtype(f"uint{bits}")
    raw = scores.view(unsigned)
    sign = unsigned.type(1 << (bits - 1))
    if isinstance(scores, np.ndarray) and not np.any(np.signbit(scores)):
        return raw | sign  # as below, in one pass
    magnitude = raw & ~sign
    return _module(scores).where((raw & sign) != 0, sign - magnitude, sign + magnitude)


def _kth_smallest(key: jax.Array, live: jax.Array, count: jax.Array) -> jax.Array:
    """Returns the `count`-th smallest live key, 0 for count 0.

    That is the largest t below which fewer than `count` keys lie; its bits are set one by one, from
    the highest down.
    """
    bits = 8 * key.dtype.itemsize
    one = jnp.array(1, key.dtype)

    def set_bit(i, threshold):
        candidate = threshold | (one << (bits - 1 - i).astype(key.dtype))
        fewer = jnp.count_nonzero(live & (key < candidate)).astype(jnp.uint32) < count
        return jnp.where(fewer, candidate, threshold)

    return jax.lax.fori_loop(0, bits, set_bit, jnp.zeros((), key.dtype))
