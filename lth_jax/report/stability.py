"""What an experiment's siblings say of stability, in a few plain sentences."""

from __future__ import annotations

from collections.abc import Iterable

from lth_jax.analysis.paths import (
    STABLE,
    Barrier,
    Stability,
    barriers,
    stability,
    stable_from,
)
from lth_jax.analysis.summary import percent
from lth_jax.store.tables import PathPoint

POINTS = f"{100 * STABLE:g} points"


def stability_said(points: Iterable[PathPoint], confidence: float = 0.95) -> str:
    """Says from which step on the dense network is stable, and which tickets are; '' without pairs.

    Each statement has the error of one (`analysis.paths`): steps are asked from the latest to the
    earliest and tickets from the densest on, each until the first that is not stable. What is meant
    is the paper's definition, by test error.
    """
    plain = [one for one in barriers(points) if one.aligned == "none"]
    siblings = [one for one in plain if one.pair == "siblings"]
    dense = [one for one in siblings if one.level == 0]
    tickets = sorted((one for one in siblings if one.level), key=lambda one: -one.density)
    sentences = [_dense_sentence(dense, confidence), _tickets_sentence(tickets, confidence)]
    return " ".join(sentence for sentence in sentences if sentence)


def _dense_sentence(dense: list[Barrier], confidence: float) -> str:
    if not dense:
        return ""
    if max(one.replicates for one in dense) < 2:
        return "One replicate says nothing about stability."
    first = stable_from(dense, confidence)
    found = {one.parted: stability(one, confidence) for one in dense}
    if first is not None:
        sentence = f"The dense network is stable {_when(first)} (barrier below {POINTS})"
    else:
        sentence = "Whether the dense network is stable is undecided"
    unstable = [step for step, one in found.items() if one is Stability.UNSTABLE]
    if unstable:
        sentence += f"; it is not stable {_when(max(unstable)).removesuffix(' on')}"
    open_ones = [step for step, one in found.items() if one is Stability.UNDECIDED]
    if open_ones and first is not None:
        sentence += f"; undecided at step {', '.join(f'{step:,}' for step in sorted(open_ones))}"
    return sentence + "."


def _tickets_sentence(tickets: list[Barrier], confidence: float) -> str:
    if not tickets or max(one.replicates for one in tickets) < 2:
        return ""
    stable = 0
    while stable < len(tickets) and stability(tickets[stable], confidence) is Stability.STABLE:
        stable += 1
    if stable == len(tickets):
        return f"Tickets are stable down to {percent(tickets[-1].density)} of the weights."
    next_one = tickets[stable]
    said = stability(next_one, confidence)
    what = "not stable" if said is Stability.UNSTABLE else "undecided"
    where = f"{what} at {percent(next_one.density)}"
    if not stable:
        return f"Tickets are {where} of the weights already."
    return f"Tickets are stable down to {percent(tickets[stable - 1].density)}, {where}."


def _when(step: int) -> str:
    return f"from step {step:,} on" if step else "at initialization"
