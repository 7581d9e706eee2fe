"""Breaks the code on purpose, one line at a time, and asks whether the core suite notices.

    python -m tests.mutants                   # every mutant, one after the other
    python -m tests.mutants --only=rewound    # those whose name holds a word
    python -m tests.mutants --share=10 --seed="$(git rev-parse HEAD)"   # a tenth, drawn by commit

A mutant is a patch that breaks one invariant of the method or one rule of its statistics. It is
applied to a copy of the work tree, where the tests that guard it are run; each core has a copy. It
is killed if one of them fails; a mutant that survives is a test that is missing, and makes the exit
status 1.
"""

from __future__ import annotations

import argparse
import os
import queue
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from lth_jax.system.machine import cores

ROOT = Path(__file__).resolve().parents[1]
# A mutant may make a loop endless: that too is noticed.
SECONDS = 300
QUICK = "not slow and not paper"


class Mutant(NamedTuple):
    """One way to be wrong.

    Attributes:
      breaks: the rule that it breaks, in words.
      file: of the package, below `lth_jax/`.
      old: what stands there exactly once.
      new: what stands there instead.
      tests: the test modules that guard it, below `tests/`, the likeliest first.
    """

    breaks: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


SELECTION = ("pruning/test_selection.py",)
STEPS = ("pruning/test_steps.py", "training/test_masked.py")
ASSEMBLED = ("lottery/test_assembled.py",)
TRUNK = ("lottery/test_runner.py", "lottery/test_golden.py")
MOVING = ("pruning/test_moving.py", "lottery/test_moving.py")
BRANCH = ("lottery/test_each_branch.py", "lottery/test_branches.py")
LEARNING = ("pruning/test_learning.py", "lottery/test_learning.py")
STRUCTURE = ("pruning/test_granularity.py", "lottery/test_granularity.py")
CHANNELS = ("pruning/test_channels.py", "lottery/test_channels.py")
NARROW = ("training/test_narrowing.py", "lottery/test_channels.py")
EARLY = ("lottery/test_early_bird.py",)
CURVATURE = ("training/test_curvature.py", "lottery/test_curvature.py")
VERDICTS = ("analysis/test_verdicts.py", "analysis/test_verdict_rates.py")
STREAMED = ("lottery/test_streaming.py",)
EVALUATED = ("training/test_evaluated.py", "training/test_training.py")

MUTANTS = (
    # Exact counts, ties, nested masks
    Mutant(
        "one weight too many is removed where scores are equal",
        "pruning/selection.py", "(tied_rank <= still)", "(tied_rank <= still + 1)", SELECTION,
    ),
    Mutant(
        "all of equal scores are removed",
        "pruning/selection.py", "~(ties & (tied_rank <= still))", "~ties", SELECTION,
    ),
    Mutant(
        "of equal scores the later goes first",
        "pruning/selection.py",
        "tied_rank = jnp.cumsum(ties.astype(jnp.uint32))",
        "tied_rank = jnp.cumsum(ties[::-1].astype(jnp.uint32))[::-1]",
        SELECTION,
    ),
    Mutant(
        "one weight too many is removed where scores are equal, on the host",
        "pruning/selection.py", "kept[tied[missing:]]", "kept[tied[missing + 1 :]]", SELECTION,
    ),
    Mutant(
        "equal scores of the next leaf go, too, on the host",
        "pruning/selection.py", "missing = max(0, missing - len(tied))", "missing = missing",
        SELECTION,
    ),
    Mutant(
        "a pruned weight comes back",
        "pruning/selection.py", "kept = live & ~below", "kept = ~below", SELECTION,
    ),
    Mutant(
        "the threshold misses the lowest bit of a score",
        "pruning/selection.py", "fori_loop(0, bits, set_bit", "fori_loop(0, bits - 1, set_bit",
        SELECTION,
    ),
    Mutant(
        "negative scores rank by magnitude",
        "pruning/selection.py", "sign - magnitude, sign + magnitude",
        "sign + magnitude, sign + magnitude", SELECTION,
    ),
    Mutant(
        "scores that are not finite are ranked",
        "pruning/selection.py", "if not finite:", "if False:", SELECTION,
    ),
    Mutant(
        "a count is rounded to nearest, not down",
        "pruning/selection.py", "math.floor(exact(fraction) * multiple * surviving)",
        "round(exact(fraction) * multiple * surviving)",
        (*SELECTION, "pruning/test_schedules.py"),
    ),
    Mutant(
        "a fraction is the nearest double",
        "pruning/masks.py", "else Fraction(str(value))", "else Fraction(value)",
        (*SELECTION, "pruning/test_masks.py", "pruning/test_schedules.py"),
    ),
    Mutant(
        "a layer's own rate is ignored",
        "pruning/masks.py", "return exact(next(matching, 1))", "return exact(1)",
        ("pruning/test_masks.py", *SELECTION),
    ),
    Mutant(
        "biases are prunable",
        "pruning/masks.py", 'jnp.ndim(leaf) >= 2 and not name.endswith(("bias", "scale", "embedding"))',
        "True", ("pruning/test_masks.py",),
    ),
    Mutant(
        "later rounds score the weights of the first",
        "pruning/selection.py", "ranked = scores(mask) if callable(scores) else scores",
        "ranked = scores = scores(mask) if callable(scores) else scores",
        ("pruning/test_schedules.py",),
    ),
    Mutant(
        "global ranking ranks by layer",
        "pruning/selection.py", 'if scope == "global":\n        members: dict[Fraction, list[str]] = {}\n',
        'if scope == "global":\n        return [((name,), rate) for name, rate in rates.items()]\n        members: dict[Fraction, list[str]] = {}\n',
        SELECTION,
    ),
    Mutant(
        "Erdős–Rényi shares lose what full layers cannot take",
        "pruning/schedules.py", "left = total - sum(sizes[name] for name in full)",
        "left = total", ("pruning/test_schedules.py",),
    ),
    # Masks that move
    Mutant(
        "gradients of one sign alone make weights grow",
        "pruning/moving.py", "_exchanged(move, share, _magnitudes(move.gradients))",
        "_exchanged(move, share, move.gradients)", MOVING,
    ),
    Mutant(
        "what was just dropped may not grow again",
        "pruning/moving.py", "free = _inverted(stayed)",
        "free = _inverted(move.mask)", MOVING,
    ),
    Mutant(
        "gradual pruning goes in a straight line",
        "pruning/moving.py", "* left**3)", "* left)", MOVING,
    ),
    Mutant(
        "a dropped weight keeps its value",
        "lottery/moving.py", "jax.tree.map(jnp.logical_and, *trained)",
        "jax.tree.map(jnp.logical_or, *trained)", MOVING[::-1],
    ),
    Mutant(
        "the early stop of a network that was denser counts",
        "lottery/moving.py", "if self.history[-1].dropped != self.history[-1].grown:", "if False:",
        MOVING[::-1],
    ),
    Mutant(
        "a mask moves once more after a resume at its step",
        "lottery/runs.py", "== self.step > run.start.step", "!= self.step", MOVING[::-1],
    ),
    # Masked steps
    Mutant(
        "a mask multiplies, so that NaN goes through",
        "pruning/masks.py",
        "lambda leaf, m: jnp.where(m, leaf, jnp.zeros_like(leaf)), tree, mask)",
        "lambda leaf, m: leaf * m.astype(leaf.dtype), tree, mask)",
        ("pruning/test_masks.py", *STEPS),
    ),
    Mutant(
        "gradients reach the optimizer unmasked",
        "pruning/masks.py",
        "updates, state = optimizer.update(\n        _zeroed(plain(grads), kept)",
        "updates, state = optimizer.update(\n        plain(grads)",
        STEPS,
    ),
    Mutant(
        "weight decay moves pruned weights",
        "pruning/masks.py", "stepped = jax.tree.map(jnp.where, kept, stepped, weights)",
        "stepped = stepped", STEPS,
    ),
    Mutant(
        "frozen weights enter weight decay",
        "pruning/masks.py", "plain(opt_state), _zeroed(weights, kept)",
        "plain(opt_state), weights", STEPS,
    ),
    Mutant(
        "a masked optimizer's update takes the sign of a pruned -0.0",
        "pruning/masked.py", "jnp.full_like(u, -0.0)", "jnp.zeros_like(u)",
        ("pruning/test_masked.py",),
    ),
    Mutant(
        "moments of pruned weights stay",
        "training/states.py", "mask_optimizer_state(optimizer, point.opt_state, mask)",
        "point.opt_state", (*TRUNK, *BRANCH),
    ),
    # Rewinding
    Mutant(
        "survivors keep their trained weights",
        "lottery/rewinding.py", 'if level > 0 and self.spec.rewind.kind != "weights":',
        "if level > 0:", TRUNK,
    ),
    Mutant(
        "batch statistics are not rewound",
        "lottery/rewinding.py", "return StartPoint(mask, rewind(point, mask, self.optimizer), step)",
        "start = rewind(point, mask, self.optimizer)\n"
        "        if level > 0:\n"
        "            start = start._replace(model_state=self.trained(source_level(self.spec, level)).model_state)\n"
        "        return StartPoint(mask, start, step)",
        ASSEMBLED,
    ),
    Mutant(
        "levels begin at step 0 with late rewinding",
        "lottery/rewinding.py", "return late or (self._initial, 0)",
        "return (late[0], 0) if late else (self._initial, 0)", TRUNK,
    ),
    Mutant(
        "late rewinding goes back to initialization",
        "lottery/rewinding.py", "late = self._late_point if level > 0 else None", "late = None",
        TRUNK,
    ),
    Mutant(
        "the mask of the level before is lost",
        "lottery/starts.py", "self._scores(replicate, level, source), trunk.mask(source)",
        "self._scores(replicate, level, source), ones_mask(trunk.initial.params)",
        ("lottery/test_grid_pruning.py", *TRUNK),
    ),
    Mutant(
        "magnitudes are those of initialization",
        "lottery/starts.py", "scored = point if at_rewind else trunk.trained(source)",
        "scored = point", TRUNK,
    ),
    # Data
    Mutant(
        "the validation split is the test split",
        "lottery/placement.py", '"validation": splits.validation,', '"validation": splits.test,',
        ASSEMBLED,
    ),
    Mutant(
        "validation examples are trained on",
        "data/dataset.py", "train = _of_classes(shuffled[validation_size:], labels, classes)",
        "train = _of_classes(shuffled, labels, classes)", ASSEMBLED,
    ),
    Mutant(
        "the probe's labels are of other examples",
        "lottery/experiment.py", "inputs, some.targets, task.loss)",
        "inputs, targets[:count], task.loss)", ASSEMBLED,
    ),
    Mutant(
        "criteria take gradients of the cross-entropy, whatever the task",
        "lottery/experiment.py", "some.targets, task.loss)", "some.targets)",
        ("lottery/test_tasks.py",),
    ),
    Mutant(
        "a metric of which less is better is judged as if more were",
        "analysis/verdicts.py", "dense_differences(rows, JUDGED, standard.metric.sign)",
        "dense_differences(rows, JUDGED)", ("analysis/test_verdicts.py",),
    ),
    Mutant(
        "the last batch of an evaluation is left out",
        "training/loop.py", "fori_loop(0, examples.targets.shape[0], add_batch",
        "fori_loop(0, examples.targets.shape[0] - 1, add_batch", EVALUATED,
    ),
    Mutant(
        "padding counts as an example",
        "training/loop.py", "sums.examples + jnp.sum(jnp.asarray(examples.valid))",
        "sums.examples + examples.targets.size", EVALUATED,
    ),
    Mutant(
        "evaluation uses a batch's own statistics",
        "training/loop.py", "self.pixels.prepared(inputs), False, {})",
        "self.pixels.prepared(inputs), True, {'dropout': jax.random.key(0)})",
        ("training/test_masked.py", *EVALUATED),
    ),
    Mutant(
        "evaluation sees augmented images",
        "training/loop.py", "outputs, _ = self.apply(constants, variables, self.pixels.prepared(inputs)",
        "inputs = self.pixels.augmented(inputs, jax.random.key(0))\n"
        "        outputs, _ = self.apply(constants, variables, self.pixels.prepared(inputs)",
        ("training/test_training_pixels.py",),
    ),
    # Early stop and measures
    Mutant(
        "of equal validation losses the last is the early stop",
        "training/loop.py", "better = due & (result.loss < run.best.loss)",
        "better = due & (result.loss <= run.best.loss)", EVALUATED,
    ),
    Mutant(
        "the early stop is the best accuracy",
        "training/loop.py", "better = due & (result.loss < run.best.loss)",
        "better = due & (result.accuracy > run.best.accuracy)", EVALUATED,
    ),
    Mutant(
        "early stop and end are tested the wrong way round",
        "training/loop.py", "best, last = run.best, run.state", "last, best = run.best, run.state",
        (*EVALUATED, *TRUNK),
    ),
    Mutant(
        "the early stop is measured with the last batch statistics",
        "training/loop.py", "self.measure(best.params, best.model_state, examples",
        "self.measure(best.params, last.model_state, examples", EVALUATED,
    ),
    Mutant(
        "the training loss runs on over evaluations",
        "training/loop.py", "left = jnp.where(due, 0, run.loss_sum)", "left = run.loss_sum",
        (*EVALUATED, "lottery/test_level.py"),
    ),
    # Randomness
    Mutant(
        "every epoch has the same order",
        "training/order.py", "permutation(jax.random.fold_in(key, epoch), count)",
        "permutation(key, count)", ("training/test_order.py",),
    ),
    Mutant(
        "an order goes on past its epoch",
        "training/loop.py", "run.epoch == epoch,", "run.epoch >= 0,", ("training/test_order.py",),
    ),
    Mutant(
        "every step drops the same units",
        "training/loop.py", 'jax.random.fold_in(jax.random.fold_in(key, DROPOUT), step)}',
        'jax.random.fold_in(key, DROPOUT)}', ("training/test_order.py",),
    ),
    Mutant(
        "every step moves images alike",
        "training/loop.py", "moved = jax.random.fold_in(jax.random.fold_in(key, AUGMENTATION), step)",
        "moved = jax.random.fold_in(key, AUGMENTATION)", ("training/test_training_pixels.py",),
    ),
    # What is streamed
    Mutant(
        "a streamed run takes the first batch of its block in each step",
        "training/streamed.py", "batch = self._batch_of(batches, step - first)",
        "batch = self._batch_of(batches, step - step)", STREAMED,
    ),
    Mutant(
        "padding of a streamed split counts as an example",
        "lottery/placement.py", "reshape(shape) < block.counts[0]",
        "reshape(shape) <= block.counts[0]", STREAMED,
    ),
    Mutant(
        "the host has the order of the first epoch in all",
        "training/order.py", "self._order(epoch)[first", "self._order(0)[first",
        ("training/test_order.py",),
    ),
    Mutant(
        "images are cropped alike in every step",
        "training/order.py", "jax.random.fold_in(jax.random.fold_in(self._key(), CROPS), step)",
        "jax.random.fold_in(self._key(), CROPS)", ("training/test_order.py",),
    ),
    Mutant(
        "all replicates are given the batches of the first",
        "lottery/placement.py", "own = array if which == list(range(len(array))) else array[which]",
        "own = array[[0] * len(which)]", ("lottery/test_imagenet.py",),
    ),
    Mutant(
        "controls are drawn alike for all replicates",
        "training/keys.py", 'derive(seed, "branch", branch, replicate, level, draw)',
        'derive(seed, "branch", branch, level, draw)', ASSEMBLED,
    ),
    Mutant(
        "the draws of a control are alike",
        "training/keys.py", 'derive(seed, "branch", branch, replicate, level, draw)',
        'derive(seed, "branch", branch, replicate, level)', ASSEMBLED,
    ),
    Mutant(
        "siblings see the ticket's batches",
        "lottery/starts.py", 'if branch.kind == "sibling":', 'if branch.kind == "siblings":',
        ("lottery/test_siblings.py",),
    ),
    Mutant(
        "siblings that part late start from initialization",
        "lottery/starts.py", "if parted and not run_id.level:", "if parted and run_id.level:",
        ("lottery/test_siblings.py",),
    ),
    Mutant(
        "a criterion beside the ticket keeps another count",
        "lottery/branches.py", "prune_by(granularity, scores, full, wanted, rounds",
        "prune_by(granularity, scores, full, {n: k - 1 for n, k in wanted.items()}, rounds",
        ("lottery/test_branches.py",),
    ),
    Mutant(
        "an inverted criterion is the criterion itself",
        "pruning/selection.py", "return jax.tree.map(jnp.negative, scores(mask)",
        "return jax.tree.map(jnp.positive, scores(mask)", SELECTION,
    ),
    Mutant(
        "pairs of methods are not corrected",
        "analysis/methods.py", "corrected = holm([", "corrected = list([",
        ("analysis/test_methods.py",),
    ),
    Mutant(
        "a ticket costs its own level alone",
        "lottery/pending.py", "    while made_of and level:", "    while made_of and level > 99:",
        ("analysis/test_methods.py",),
    ),
    Mutant(
        "controls see other batches than their ticket",
        "lottery/starts.py", "data_key = keys.data_key(self.spec.seed, run_id.replicate)",
        "data_key = keys.data_key(self.spec.seed, run_id.replicate + 7 * (run_id.branch != TRUNK))",
        ASSEMBLED,
    ),
    Mutant(
        "replicates begin alike",
        "training/keys.py", 'derive(seed, "init", replicate)', 'derive(seed, "init")',
        ASSEMBLED,
    ),
    # Units in another order
    Mutant(
        "a channel is no unit of the layer that reads it",
        "training/units.py", "labels.unite(images[channels], kernel[inputs])",
        "labels.unite(kernel[inputs], kernel[inputs])", ("training/test_alignment.py",),
    ),
    Mutant(
        "units are matched to those that are least like them",
        "training/alignment.py", "maximize=True", "maximize=False",
        ("training/test_alignment.py",),
    ),
    # Controls
    Mutant(
        "the mask of another replicate stays in its own order",
        "lottery/starts.py", "return moved((mask, {}), aligner.groups, self._orders[which])[0]",
        "return mask", ("lottery/test_aligning.py",),
    ),
    Mutant(
        "masks that moved may end with any number of weights",
        "store/tables.py", "if (point.kept, point.prunable) != (row.kept, row.prunable):",
        "if False:", ("store/test_tables.py",),
    ),
    Mutant(
        "reinit keeps the ticket's weights",
        "lottery/branches.py",
        "mask = at.ticket.mask\n    return StartPoint(mask, rewind(at.fresh(at.key), mask, at.optimizer), 0)",
        "mask = at.ticket.mask\n    return StartPoint(mask, rewind(at.point, mask, at.optimizer), 0)",
        (*BRANCH, *TRUNK),
    ),
    Mutant(
        "random masks are the ticket's",
        "lottery/branches.py", "mask = draw_mask(at.key, at.ticket.mask, at.rates, at.granularity)",
        "mask = at.ticket.mask", (*BRANCH, *TRUNK),
    ),
    Mutant(
        "random masks keep one weight less",
        "pruning/drawing.py", "counts = counts_by(granularity, mask, rates)",
        "counts = {n: max(k - 1, 0) for n, k in counts_by(granularity, mask, rates).items()}", BRANCH,
    ),
    Mutant(
        "a reshuffle moves pruned weights in",
        "lottery/weights.py", "kept = np.flatnonzero(mask)\n    #",
        "kept = np.arange(mask.size)\n    #", BRANCH,
    ),
    Mutant(
        "noise is absolute",
        "lottery/weights.py", "at.options.sigma * jnp.std(initial) *", "at.options.sigma *",
        ("lottery/test_each_branch.py", "lottery/test_golden.py"),
    ),
    Mutant(
        "a one-shot branch ranks the level before",
        "lottery/starts.py", "scores = self._scores(replicate, 0)(ones_mask",
        "scores = self._scores(replicate, 1, 1)(ones_mask",
        ASSEMBLED,
    ),
    # Criteria
    Mutant(
        "SNIP keeps what the loss does not feel",
        "pruning/criteria.py",
        "loss_of, key, train, 1.0)\n    return jax.tree.map(lambda g, w: jnp.abs(g * w)",
        "loss_of, key, train, 1.0)\n    return jax.tree.map(lambda g, w: -jnp.abs(g * w)",
        ("pruning/test_criteria.py", "pruning/test_criteria_gradients.py"),
    ),
    Mutant(
        "SNIP is of training by itself",
        "pruning/criteria.py", "train = bool(scoring.train)", "train = scoring.train is not False",
        ("pruning/test_criteria_gradients.py",),
    ),
    Mutant(
        "a criterion's own choices are outside the identity",
        "config/identity.py", "if value != GRADIENTS[name]:", "if False:",
        ("store/test_rundir.py",),
    ),
    Mutant(
        "SynFlow lets signs cancel",
        "pruning/criteria.py", "magnitudes = jax.tree.map(jnp.abs, params)", "magnitudes = params",
        ("pruning/test_criteria.py", "pruning/test_criteria_gradients.py"),
    ),
    # Statistics
    Mutant(
        "a level matches by its luck",
        "analysis/verdicts.py", "if low > -standard.margin and", "if high > -standard.margin and",
        VERDICTS,
    ),
    Mutant(
        "a level is below by its bad luck",
        "analysis/verdicts.py", "Verdict.BELOW if high < 0", "Verdict.BELOW if low < 0", VERDICTS,
    ),
    Mutant(
        "a published value is reproduced from below alone",
        "analysis/references.py", "high < least or low > most", "high < least",
        ("analysis/test_references.py",),
    ),
    Mutant(
        "what is neither shown nor denied counts as reproduced",
        "analysis/references.py", "Within.YES if shown else Within.OPEN", "Within.YES",
        ("analysis/test_references.py",),
    ),
    Mutant(
        "a claim of many levels is denied by the luck of one",
        "analysis/references.py", "1 - 0.05 / levels", "1 - 0.05",
        ("analysis/test_references.py",),
    ),
    Mutant(
        "few replicates are taken for many",
        "analysis/intervals.py", "float(stdtrit(count - 1, probability))",
        "float(stdtrit(1e6, probability))", VERDICTS,
    ),
    Mutant(
        "the deviation of few replicates is too small",
        "analysis/intervals.py", "np.std(values, axis=-1, ddof=1)", "np.std(values, axis=-1)",
        VERDICTS,
    ),
    Mutant(
        "one-sided intervals have the confidence of none",
        "analysis/intervals.py", "half = t_quantile(values.shape[-1], confidence)",
        "half = t_quantile(values.shape[-1], (1 + confidence) / 2 - 0.2)", VERDICTS,
    ),
    Mutant(
        "differences are not paired",
        "analysis/paired.py", "differences = tuple(one[r] - other[r] for r in shared)",
        "differences = tuple(one[r] - fmean(other.values()) for r in shared)",
        ("analysis/test_paired.py", *VERDICTS),
    ),
    Mutant(
        "draws of a control count as replicates",
        "analysis/summary.py", "[getattr(row, metric) for row in counted], of)",
        "[getattr(row, metric) for row in counted])", ("analysis/test_summary.py",),
    ),
    Mutant(
        "of a control's draws the first is judged",
        "analysis/paired.py", "{r: fmean(v) for r, v in of.items()}",
        "{r: v[0] for r, v in of.items()}", ("analysis/test_paired.py", *VERDICTS),
    ),
    Mutant(
        "a match further on makes good a miss before",
        "analysis/verdicts.py",
        "list(itertools.takewhile(lambda one: one.verdict is Verdict.MATCHES, levels))",
        "[one for one in levels if one.verdict is Verdict.MATCHES]", VERDICTS,
    ),
    Mutant(
        "below begins at the densest level that is",
        "analysis/verdicts.py",
        "itertools.takewhile(lambda one: one.verdict is Verdict.BELOW, reversed(levels))",
        "(one for one in reversed(levels) if one.verdict is Verdict.BELOW)", VERDICTS,
    ),
    Mutant(
        "levels are picked without a correction",
        "analysis/intervals.py", "(len(p_values) - rank) * p_values[index]", "p_values[index]",
        VERDICTS,
    ),
    Mutant(
        "networks that diverged enter means",
        "analysis/summary.py", "counted = [row for row in rows if row.diverged < 0]",
        "counted = list(rows)", ("analysis/test_summary.py",),
    ),
    Mutant(
        "networks that diverged enter differences",
        "analysis/paired.py", "if row.diverged < 0:", "if True:", VERDICTS,
    ),
    Mutant(
        "the survivors of a divergence speak for all",
        "analysis/verdicts.py", "if verdict is Verdict.MATCHES and missing:", "if False:", VERDICTS,
    ),
    Mutant(
        "values that agree by chance are certain",
        "analysis/intervals.py", "np.std(values, axis=-1, ddof=1), resolution / math.sqrt(6))",
        "np.std(values, axis=-1, ddof=1), 0.0)", VERDICTS,
    ),
    Mutant(
        "levels are judged before every replicate is there",
        "analysis/verdicts.py", "if (pair.branch, pair.level) not in whole or len",
        "if len", VERDICTS,
    ),
    Mutant(
        "one replicate is judged",
        "analysis/verdicts.py", "len(pair.replicates) < 2", "len(pair.replicates) < 1", VERDICTS,
    ),
    Mutant(
        "the early stop is judged on validation data",
        "analysis/verdicts.py", 'JUDGED = "early_stop_test_accuracy"',
        'JUDGED = "early_stop_val_accuracy"', VERDICTS,
    ),
    # Masks that are learned, structure, curvature
    Mutant(
        "a learned mask keeps one weight more",
        "training/parameterization.py", "mask = keep_highest(row.rank(scores), kept)",
        "mask = keep_highest(row.rank(scores), kept + 1)", LEARNING,
    ),
    Mutant(
        "edge-popup ranks scores by their sign",
        "pruning/learning.py", "edge_popup, rank=jnp.abs, scale", "edge_popup, scale", LEARNING,
    ),
    Mutant(
        "pruned scores get no gradient",
        "pruning/learning.py", "return _straight_through(*primals), tangents[1]",
        "return _straight_through(*primals), tangents[1] * primals[0]", LEARNING,
    ),
    Mutant(
        "weights are trained beside a supermask's scores",
        "training/parameterization.py", "return jnp.full(jnp.shape(mask), trains_weights)",
        "return jnp.full(jnp.shape(mask), True)", LEARNING,
    ),
    Mutant(
        "a supermask draws the same in every step",
        "training/parameterization.py", "self.kept[name], jax.random.fold_in(key, self.step)",
        "self.kept[name], key", LEARNING,
    ),
    Mutant(
        "a mask that was found is another branch's ticket",
        "lottery/rewinding.py", "return self._mask_of(self._load(checkpoint_name(run)))",
        "return self._mask_of(self._load(level_name(run.level)))", LEARNING,
    ),
    Mutant(
        "what finds a mask is not trained before who takes it",
        "lottery/pending.py", "return stage(spec, other) + 1", "return 0", LEARNING,
    ),
    Mutant(
        "N of each M are the lowest",
        "pruning/structured.py", "return ((rank >= of - count) & living)",
        "return ((rank < count) & living)", STRUCTURE,
    ),
    Mutant(
        "a block is ranked by one of its weights",
        "pruning/structured.py", "partial(jnp.sum, axis=(-3, -1)))", "lambda b: b[..., 0, :, 0])",
        STRUCTURE,
    ),
    Mutant(
        "random masks have no structure",
        "pruning/drawing.py", "return prune_by(granularity, scores, ones_mask(mask), counts)",
        "return prune_by(WEIGHT, scores, ones_mask(mask), counts)", STRUCTURE,
    ),
    Mutant(
        "a channel stays in the layers that read it where images are flattened",
        "pruning/channels.py", "            if axis.leaf.startswith(PARAMS)\n",
        "            if axis.leaf.startswith(PARAMS) and axis.before == 1\n", CHANNELS,
    ),
    Mutant(
        "a stream is pruned at the largest rate of its writers",
        "pruning/channels.py", "rate = min((rates.get", "rate = max((rates.get", CHANNELS,
    ),
    Mutant(
        "of channels ranked together a layer keeps its worst",
        "pruning/channels.py", "found[order[-1]] = alive.any()", "found[order[0]] = alive.any()",
        CHANNELS,
    ),
    Mutant(
        "channels are pruned that a norm takes the mean over",
        "training/units.py", "labels.keep_whole(known[0][axis])", "pass", NARROW,
    ),
    Mutant(
        "a network is narrow though what is pruned is not zero",
        "lottery/narrowing.py", "return form if all(map(is_zero, pruned)) else None",
        "return form", NARROW,
    ),
    Mutant(
        "a narrow network divides by another number",
        "training/narrowing.py", "yield (name, *numbers,", "yield (name,", NARROW,
    ),
    Mutant(
        "an early bird is drawn after small distances that are not in a row",
        "lottery/early_bird.py", "row = row + 1 if distance < below else 0",
        "row = row + 1 if distance < below else row", EARLY,
    ),
    Mutant(
        "an early bird trains longer than the dense network",
        "lottery/starts.py", "goes_on = run_id.level == 0 or branch.kind == KIND",
        "goes_on = run_id.level == 0", EARLY,
    ),
    Mutant(
        "the Hessian is that of all weights",
        "training/curvature.py", "return total * chosen / count", "return total / count", CURVATURE,
    ),
    # Runs side by side
    Mutant(
        "a group leaves out runs that do not fill its devices",
        "lottery/experiment.py", "return -(-runs // (groups * devices)) * devices",
        "return runs // (groups * devices) * devices", ("lottery/test_mesh.py",),
    ),
    Mutant(
        "a run is evaluated where another one joins it",
        "training/loop.py", "better = due & (result", "better = (result",
        ("training/test_evaluated.py",),
    ),
    Mutant(
        "a run that joins does the steps of those before it",
        "lottery/runs.py", "if begins == self.step and index not in self._put_in:",
        "if index not in self._put_in:", ("lottery/test_programs.py",),
    ),
    Mutant(
        "each run's own loss is differentiated under vmap",
        "training/groups.py", "summed if how == \"vmap\" else partial(", "partial(",
        ("training/test_groups.py",),
    ),
    Mutant(
        "what has not begun is held on the devices",
        "lottery/level.py", "if to_begin and len(begun) + len(training) < at_once.begun:",
        "if to_begin:", ("lottery/test_memory.py",),
    ),
    Mutant(
        "what fills up a part of an evaluation counts",
        "training/groups.py", ")[:count], found)", ")[-count:], found)",
        ("training/test_groups.py",),
    ),
    # Keeping and resuming
    Mutant(
        "an evaluation is taken twice by a run that goes on",
        "lottery/run.py", "return (made.step, made.evaluated) if made else",
        "return (made.step, -1) if made else", ("lottery/test_resumed.py",),
    ),
    Mutant(
        "a run that goes on forgets its early stop",
        "lottery/run.py", '"best": state.best, ', "",
        ("lottery/test_level.py", "lottery/test_resumed.py"),
    ),
    Mutant(
        "rows are written before what later levels need",
        "lottery/runner.py", "        for run_id, run in finished.items():\n            if not is_kept(self.spec, run_id):",
        "        self.store.record(run.row for run in finished.values())\n        for run_id, run in finished.items():\n            if not is_kept(self.spec, run_id):",
        ("lottery/test_runner.py",),
    ),
    Mutant(
        "a damaged checkpoint is taken for sound",
        "store/checkpoints.py", "intact = _digest(path / name) == digest", "intact = bool(_digest(path / name))",
        ("store/test_damage.py", "store/test_checkpoints.py"),
    ),
)  # fmt: skip


def apply(mutant: Mutant, root: Path) -> str:
    """Breaks the copy in `root`; returns what stood in the file.

    Raises:
      ValueError: what is to be replaced does not stand there exactly once.
    """
    path = root / "lth_jax" / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(
            f"{mutant.breaks}: {mutant.old!r} stands {text.count(mutant.old)} times in "
            f"{mutant.file}; bring tests/mutants.py up to date"
        )
    path.write_text(text.replace(mutant.old, mutant.new))
    return text


def killer(mutant: Mutant, root: Path, cache: Path) -> str:
    """Returns the test that fails in the broken copy; nothing if the mutant survives.

    Raises:
      ValueError: a slow test fails in the sound copy too. That quick ones do not is for the caller
        to see, once for all mutants.
    """
    path = root / "lth_jax" / mutant.file
    text = apply(mutant, root)
    try:
        quick = first_failure(mutant.tests, root, cache, QUICK)
        slow = "" if quick else first_failure(mutant.tests, root, cache, "slow")
    finally:
        path.write_text(text)
    if slow and first_failure(mutant.tests, root, cache, "slow"):
        raise ValueError(f"tests/{slow} fails without any mutant")
    return quick or slow


def first_failure(
    tests: Sequence[str], root: Path, cache: Path, which: str, workers: int = 0
) -> str:
    """Returns the first of some tests of a copy that fails, or that they do not end; else nothing.

    Args:
      tests: their modules, below `tests/`.
      root: the copy.
      cache: where pytest keeps what it keeps, programs among it.
      which: their marks, as pytest's `-m` takes them.
      workers: how many processes run them; 0 for pytest's own.
    """
    command = [
        sys.executable, "-m", "pytest", f"-n{workers}", "-x", "-q", "--tb=no",
        "-o", f"cache_dir={cache}", "-m", which,
        *(f"tests/{test}" for test in tests),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=root, env=environment, text=True, capture_output=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"no end after {SECONDS} s"
    if done.returncode in (0, pytest.ExitCode.NO_TESTS_COLLECTED):
        return ""
    found = re.search(r"^(?:FAILED|ERROR) tests/(\S+)", done.stdout, re.MULTILINE)
    if not found:
        raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return found[1]


def copy_of(root: Path, target: Path) -> None:
    """Copies the files that git tracks, and those that it does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=root, check=True, text=True, capture_output=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)


def main() -> int:
    """Runs the mutants that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="a word in the name of a mutant")
    parser.add_argument("--share", type=int, default=1, help="one of so many, drawn by --seed")
    parser.add_argument("--seed", default="0", help="what draws them, such as a commit")
    parser.add_argument("--cache", type=Path, help="where compiled programs are kept between runs")
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if options.only in mutant.breaks]
    count = -(-len(chosen) // options.share)
    chosen = random.Random(options.seed).sample(chosen, count) if options.share > 1 else chosen
    survived, copies = 0, queue.SimpleQueue[Path]()
    with tempfile.TemporaryDirectory(prefix="lth_jax_mutants_") as folder:
        cache = options.cache or Path(folder) / "cache"
        roots = [Path(folder) / f"copy{number}" for number in range(cores())]
        for root in roots:
            copy_of(ROOT, root)
            copies.put(root)
        guards = sorted({test for mutant in chosen for test in mutant.tests})
        broken = first_failure(guards, roots[0], cache, QUICK, workers=cores())
        if broken:
            print(f"tests/{broken} fails without any mutant")
            return 1

        def tried(mutant: Mutant) -> tuple[str, float]:
            began, root = time.monotonic(), copies.get()
            try:
                return killer(mutant, root, cache), time.monotonic() - began
            finally:
                copies.put(root)

        with ThreadPoolExecutor(cores()) as pool:
            for mutant, (by, seconds) in zip(chosen, pool.map(tried, chosen), strict=True):
                survived += not by
                print(f"{mutant.breaks:<62} {by or 'SURVIVES'} ({seconds:.0f} s)", flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} mutants killed")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
