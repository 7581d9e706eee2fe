"""What an experiment found, in a few plain sentences. The judgement itself is `analysis`'s."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from lth_jax.analysis.summary import LevelSummary, branch_order, percent, summarize
from lth_jax.analysis.verdicts import (
    MOST_REPLICATES,
    USUAL,
    Judgement,
    Standard,
    Verdict,
    above,
    below,
    judge,
    matching,
    of_branch,
    sooner,
)
from lth_jax.store.tables import TRUNK, ResultRow
from lth_jax.training.metrics import Metric


def verdict(rows: Iterable[ResultRow], standard: Standard = USUAL) -> str:
    """Says down to which density the ticket matches the dense network, and where controls fail.

    What "matches", "below" and "undecided" mean is said by `analysis.verdicts`, and so is why the
    statements over levels need no further correction. The best level is chosen on
    validation. Levels that not every replicate has reached are left out, and named.
    """
    rows = list(rows)
    summaries = summarize(rows)
    dense = next((s for s in summaries if s.branch == TRUNK and s.level == 0), None)
    if dense is None:
        return "No results yet."
    if not dense.whole:
        return "The dense network is not trained for every replicate yet."
    judgements = judge(rows, standard)
    sentences = [
        *_matching_sentences(rows, dense, judgements, standard),
        _best_sentence(dense, summaries, judgements, standard),
        _speed_sentence(rows, dense, judgements, standard),
        _diverged_sentence(summaries),
        _left_out_sentence(summaries),
        _coarse_sentence(standard) if judgements else "",
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _matching_sentences(
    rows: Sequence[ResultRow],
    dense: LevelSummary,
    judgements: dict[tuple[str, int], Judgement],
    standard: Standard,
) -> list[str]:
    if dense.replicates == 1:
        return [
            "One replicate says nothing about matching; accepted for that: config.replicates=5, "
            "which goes on from here."
        ]
    levels = of_branch(judgements)
    if not levels:
        return ["Only the dense network is trained for every replicate so far."]
    controls = [name for name in branch_order(rows) if name != TRUNK]
    clauses = [_ticket_clause(levels, standard), *_control_clauses(judgements, controls)]
    return ["; ".join(clauses) + "."]


def _ticket_clause(levels: Sequence[Judgement], standard: Standard) -> str:
    within = f"within {standard.metric.difference(standard.margin)}"
    found = matching(levels)
    if len(found) == len(levels):
        every = "at every density tried, " if len(found) > 1 else ""
        return (
            f"The ticket matches the dense network ({within}) {every}"
            f"down to {_at(levels[-1])} of the weights"
        )
    stop = levels[len(found)]
    if found:
        said = (
            f"The ticket matches the dense network ({within}) down to {_at(found[-1])} of the "
            "weights, "
        )
        said += f"and is below it at {_at(stop)}" if _is_below(stop) else _undecided(stop)
    elif _is_below(stop):
        said = f"The ticket is below the dense network at {_at(stop)} of the weights already"
    else:
        said = f"Whether the ticket matches the dense network ({within}) is {_undecided(stop)}"
    fails = below(levels)
    if fails and fails[0] is not stop:
        said += f"; from {_at(fails[0])} on it is below"
    return said


def _control_clauses(
    judgements: dict[tuple[str, int], Judgement], controls: Sequence[str]
) -> list[str]:
    """Returns a clause for controls that are below, one for each other, one for the unjudged."""
    falls: list[str] = []
    others: list[str] = []
    unjudged: list[str] = []
    for name in controls:
        levels = of_branch(judgements, name)
        fails, matches = below(levels), matching(levels)
        if not levels:
            unjudged.append(name)
        elif fails:
            falls.append(f"{name} {'' if falls else 'is below it '}from {_at(fails[0])} on")
        elif len(matches) == len(levels):
            others.append(f"{name} matches it at every density tried, down to {_at(levels[-1])}")
        else:
            others.append(f"{name} is {_undecided(levels[-1])}")
    if unjudged:
        verb = "is" if len(unjudged) == 1 else "are"
        others.append(f"{listed(unjudged)} {verb} not done for every replicate at any level")
    return [clause for clause in (", ".join(falls), *others) if clause]


def _undecided(one: Judgement) -> str:
    """Says that a level is undecided, and what would decide it."""
    if one.missing:
        networks = "a network" if one.missing == 1 else f"networks of {one.missing} replicates"
        more = f"{networks} diverged"
    elif one.more is None:
        more = f"not even {MOST_REPLICATES:,} replicates would tell"
    else:
        more = f"about {one.more} more {'replicate' if one.more == 1 else 'replicates'} would tell"
    return f"undecided at {_at(one)} ({more})"


def _is_below(one: Judgement) -> bool:
    return one.verdict is Verdict.BELOW


def _at(one: Judgement) -> str:
    return percent(one.pair.density)


def listed(names: Sequence[str]) -> str:
    """Joins names to `a`, `a and b`, or `a, b and c`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _best_sentence(
    dense: LevelSummary,
    summaries: Sequence[LevelSummary],
    judgements: dict[tuple[str, int], Judgement],
    standard: Standard,
) -> str:
    """Names the ticket of the best validation metric, the sparsest of equals."""
    metric = standard.metric
    before = brief(metric, dense.early_stop_test_accuracy.mean)
    levels = [s for s in summaries if s.branch == TRUNK and s.level > 0 and s.whole]
    if not levels:
        return f"Its test {metric.name} at early stop is {before}."
    # A NaN compares with nothing, and would win or lose by where it stands.
    finite = [s for s in levels if math.isfinite(s.early_stop_val_accuracy.mean)]

    def goodness(summary: LevelSummary) -> float:
        return metric.sign * summary.early_stop_val_accuracy.mean

    best = max(finite, key=lambda s: (goodness(s), s.level), default=dense)
    better_than = "above" if metric.higher_is_better else "better than"
    if not goodness(best) > goodness(dense):
        return (
            f"No ticket's validation {metric.name} is {better_than} the dense network's "
            f"(test {metric.name} at early stop {before})."
        )
    after = brief(metric, best.early_stop_test_accuracy.mean)
    said = (
        f"Best ticket by validation {metric.name}: {percent(best.density)} of the weights, "
        f"test {metric.name} at early stop {after} (dense {before})"
    )
    judged = of_branch(judgements)
    if judged:
        better = {one.pair.level for one in above(judged, standard)}
        corrected = f"Holm's correction over {len(judged)} levels" if len(judged) > 1 else ""
        shown = f"{'' if best.level in better else 'not shown to be '}{better_than} it"
        said += f", {shown}" + (f" by {corrected}" if corrected else "")
    return said + "."


def brief(metric: Metric, value: float) -> str:
    """Writes a value for a sentence: a percentage to one decimal, others as tables do."""
    return percent(value) if metric.unit == "%" else metric.text(value)


def _speed_sentence(
    rows: Sequence[ResultRow],
    dense: LevelSummary,
    judgements: dict[tuple[str, int], Judgement],
    standard: Standard,
) -> str:
    """Says at which levels the ticket learns faster, and where its early stop says little."""
    if not judgements:
        return ""
    levels = [one.pair.level for one in of_branch(judgements)]
    found = sooner(rows, standard)
    said = ""
    if found:
        corrected = f", Holm's correction over {len(levels)} levels" if len(levels) > 1 else ""
        first, last = found[0], found[-1]
        where = percent(first.density)
        if len(found) > 1:
            run = last.level - first.level + 1 == len(found)
            where = f"{where} to {percent(last.density)}" if run else _densities(found)
        said = f"Its early stop comes sooner than the dense network's at {where}{corrected}."
    if dense.censored:
        said += " " * bool(said) + (
            "The dense network's training ended before it would stop, so its early stop is a "
            "lower bound."
        )
    return said


def _densities(found: Sequence) -> str:
    """Lists such as `80.0%`, `80.0% and 64.1%`, `80.0%, 64.1% and 3 more`."""
    names = [percent(one.density) for one in found]
    if len(names) > 3:
        names[2:] = [f"{len(names) - 2} more"]
    return listed(names)


def _diverged_sentence(summaries: Sequence[LevelSummary]) -> str:
    count = sum(summary.diverged for summary in summaries)
    if not count:
        return ""
    first = next(summary for summary in summaries if summary.diverged)
    networks = "1 network" if count == 1 else f"{count} networks"
    enters = "enters" if count == 1 else "enter"
    return f"{networks} diverged and {enters} no mean, the first at level {first.level}."


def _left_out_sentence(summaries: Sequence[LevelSummary]) -> str:
    levels = sorted({summary.level for summary in summaries if not summary.whole})
    if not levels:
        return ""
    where = f"level {levels[0]}" if len(levels) == 1 else f"levels {levels[0]} to {levels[-1]}"
    return f"What not every replicate has reached is left out ({where})."


def _coarse_sentence(standard: Standard) -> str:
    if not standard.coarse:
        return ""
    metric = standard.metric
    one = f"{metric.number(standard.resolution)} {metric.unit_of_differences}"
    nothing = ", and nothing matches" if standard.resolution > standard.margin else ""
    return (
        f"One test example is {one}, more than a quarter of the margin of "
        f"{metric.difference(standard.margin)}: this test set is too small for fine verdicts"
        f"{nothing}."
    )
