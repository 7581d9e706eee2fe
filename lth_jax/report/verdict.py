"""What an experiment found, in a few plain sentences. The judgement itself is `analysis`'s."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from lth_jax.analysis.summary import (
    LevelSummary,
    branch_order,
    judge,
    matching_threshold,
    percent,
    summarize,
)
from lth_jax.store.tables import TRUNK, ResultRow

Judged = list[tuple[LevelSummary, bool]]


def verdict(rows: Iterable[ResultRow]) -> str:
    """Says down to which density the ticket matches the dense network, and where controls fail.

    "Matches" is `judge`; "down to" names the lowest density that matches, with the
    denser ones that do not; a control "falls below" at the densest level that does not match. The
    best level is chosen by validation accuracy; its test accuracy is only reported. Levels that
    not every replicate has reached are left out, and named.
    """
    rows = list(rows)
    summaries = summarize(rows)
    dense = next((s for s in summaries if s.branch == TRUNK and s.level == 0), None)
    if dense is None:
        return "No results yet."
    if matching_threshold(summaries) is None:
        return "The dense network is not trained for every replicate yet."
    judged = _judged_by_branch(summaries, branch_order(rows))
    clauses = [_ticket_clause(judged[TRUNK]), *_control_clauses(judged)]
    sentences = [
        "; ".join(clause for clause in clauses if clause) + ".",
        _best_sentence(dense, judged[TRUNK]),
        _replicates_sentence(dense) if judged[TRUNK] else "",
        _left_out_sentence(summaries),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _judged_by_branch(
    summaries: Sequence[LevelSummary], branches: Sequence[str]
) -> dict[str, Judged]:
    """Returns the judged levels from 1 on of each branch, densest first."""
    matches = judge(summaries)
    judged: dict[str, Judged] = {branch: [] for branch in branches}
    for summary in summaries:
        if summary.level > 0 and (summary.branch, summary.level) in matches:
            judged[summary.branch].append((summary, matches[summary.branch, summary.level]))
    return judged


def _ticket_clause(levels: Judged) -> str:
    if not levels:
        return "Only the dense network is trained for every replicate so far"
    lowest = percent(levels[-1][0].density)
    matched = [index for index, (_, match) in enumerate(levels) if match]
    if not matched:
        tried = lowest if len(levels) == 1 else f"{percent(levels[0][0].density)} to {lowest}"
        return f"The ticket matches the dense network at no density tried ({tried} of the weights)"
    if len(matched) == len(levels) > 1:
        return (
            "The ticket matches the dense network at every density tried, "
            f"down to {lowest} of the weights"
        )
    last = matched[-1]
    gaps = [summary for summary, match in levels[:last] if not match]
    though = f" (though not at {_densities(gaps)})" if gaps else ""
    return (
        "The ticket matches the dense network down to "
        f"{percent(levels[last][0].density)} of the weights{though}"
    )


def _control_clauses(judged: dict[str, Judged]) -> list[str]:
    """Returns a clause for all controls that fall below the dense network, one for each other."""
    falls: list[str] = []
    others: list[str] = []
    for branch, levels in judged.items():
        if branch == TRUNK:
            continue
        if not levels:
            others.append(f"{branch} is not done for every replicate at any level")
        elif all(match for _, match in levels):
            lowest = percent(levels[-1][0].density)
            others.append(f"{branch} matches it at every density tried, down to {lowest}")
        else:
            verb = "" if falls else "falls below it "
            falls.append(f"{branch} {verb}at {_fall(levels)}")
    return [", ".join(falls), *others]


def _fall(levels: Judged) -> str:
    """Says where a control first fails to match, and what qualifies that."""
    first = next(index for index, (_, match) in enumerate(levels) if not match)
    notes = []
    if first == 0 and levels[0][0].level > 1:
        notes.append("the densest it was tried at")
    again = [summary for summary, match in levels[first:] if match]
    if again:
        notes.append(f"but matches again at {_densities(again)}")
    density = percent(levels[first][0].density)
    return f"{density} ({'; '.join(notes)})" if notes else density


def _densities(summaries: Sequence[LevelSummary]) -> str:
    """Lists such as `80.0%`, `80.0% and 64.1%`, `80.0%, 64.1% and 3 more`."""
    names = [percent(summary.density) for summary in summaries]
    if len(names) > 3:
        names[2:] = [f"{len(names) - 2} more"]
    return listed(names)


def listed(names: Sequence[str]) -> str:
    """Joins names to `a`, `a and b`, or `a, b and c`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _best_sentence(dense: LevelSummary, levels: Judged) -> str:
    """Names the ticket of the best validation accuracy, the sparsest of equals."""
    before = percent(dense.early_stop_test_accuracy.mean)
    if not levels:
        return f"Its test accuracy at early stop is {before}."
    # A NaN compares with nothing, and would win or lose by where it stands.
    finite = [s for s, _ in levels if math.isfinite(s.early_stop_val_accuracy.mean)]
    best = max(finite, key=lambda s: (s.early_stop_val_accuracy.mean, s.level), default=dense)
    if not best.early_stop_val_accuracy.mean > dense.early_stop_val_accuracy.mean:
        return (
            "No ticket's validation accuracy is above the dense network's "
            f"(test accuracy at early stop {before})."
        )
    after = percent(best.early_stop_test_accuracy.mean)
    return (
        f"Best ticket by validation accuracy: {percent(best.density)} of the weights, "
        f"test accuracy at early stop {after} (dense {before})."
    )


def _replicates_sentence(dense: LevelSummary) -> str:
    if dense.replicates > 1:
        return ""
    return (
        "One replicate gives no error bar: to match is to reach the dense network's own accuracy."
    )


def _left_out_sentence(summaries: Sequence[LevelSummary]) -> str:
    levels = sorted({summary.level for summary in summaries if not summary.whole})
    if not levels:
        return ""
    where = f"level {levels[0]}" if len(levels) == 1 else f"levels {levels[0]} to {levels[-1]}"
    return f"What not every replicate has reached is left out ({where})."
