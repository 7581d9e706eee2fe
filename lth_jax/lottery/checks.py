"""What is checked of a spec before any data is loaded and anything is compiled."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from lth_jax import data
from lth_jax.config import MOST_STEPS, BranchSpec, Spec, TrainSpec, duration_steps
from lth_jax.errors import SpecError, in_one_line, nearest, shown
from lth_jax.lottery.branches import BRANCHES, KINDS, new_heads
from lth_jax.lottery.custom import check_fields, is_own
from lth_jax.lottery.early_bird import KIND as EARLY_BIRD
from lth_jax.lottery.examples import load
from lth_jax.lottery.memory import check_memory
from lth_jax.lottery.moving import DENSE_STARTS, rule_name
from lth_jax.lottery.network import (
    Network,
    check_known,
    check_model,
    check_task,
    network_of,
    task_metric,
)
from lth_jax.lottery.optimizing import HYPERPARAMETERS, optimizer_of, rate_of, takes
from lth_jax.lottery.placement import check_placement
from lth_jax.lottery.start_points import difference
from lth_jax.models import MODELS
from lth_jax.pruning.criteria import CRITERIA
from lth_jax.pruning.learning import LEARNED_MASKS
from lth_jax.pruning.masks import map_optimizer_state
from lth_jax.pruning.moving import MASK_RULES
from lth_jax.pruning.trees import PyTree
from lth_jax.training.curvature import lanczos
from lth_jax.training.devices import mesh_shape
from lth_jax.training.optimizers import OPTIMIZERS, SCHEDULES


def check(spec: Spec) -> Network | None:
    """Checks that everything the spec names exists, before any data or compilation.

    Returns:
      The spec's network, where enough is known of the dataset to make it.

    Raises:
      SpecError: an unknown name (it says which names there are), or a network, size or level that
        does not fit the dataset.
      DataError: an unknown dataset, or sizes and classes that it does not have.
    """
    check_known("model.name", spec.model.name, MODELS)
    check_model(spec)
    check_task(spec)
    if spec.paths.pairs and task_metric(spec).column != "accuracy":
        raise SpecError(
            f"config.paths.pairs={shown(spec.paths.pairs)}: errors on a path are those of "
            f"classes; accepted: () with task {spec.task}"
        )
    check_known("train.optimizer", spec.train.optimizer, OPTIMIZERS)
    check_known("train.schedule", spec.train.schedule, SCHEDULES)
    _check_criterion(spec.pruning.criterion, spec.pruning.at, "pruning.criterion", "pruning.at")
    data.check_name(spec.data.name)
    for name in spec.branches:
        kind = spec.branch_spec(name).kind
        field = "branches" if kind == name else f"branch.{name}.kind"
        check_known(field, kind, BRANCHES)
        options, place = spec.branch_spec(name), f"branch.{name}"
        if options.optimizer:
            check_known(f"{place}.optimizer", options.optimizer, OPTIMIZERS)
        _check_rule(options, place)
        if options.kind == "prune":
            criterion = options.criterion or spec.pruning.criterion
            scored = options.scored or spec.pruning.at
            _check_criterion(criterion, scored, f"{place}.criterion", f"{place}.scored")
    for name in spec.branch:
        # Of one whose kind is said no more is asked: a preset's branches may be left out.
        own_kind = spec.branch[name].kind
        if not {name, own_kind} & {*spec.branches, *BRANCHES}:
            known = {*spec.branches, *BRANCHES}
            raise SpecError(f"config.branch.{name}: no such branch; {nearest(name, known)}")
        weights, kind = spec.branch[name].weights, spec.branch_spec(name).kind
        scores_alone = [n for n, row in LEARNED_MASKS.items() if not row.trains_weights]
        if weights != "initial" and kind not in scores_alone:
            raise SpecError(
                f"config.branch.{name}.weights={weights!r}: accepted: initial save in a branch of "
                f"the kind {' or '.join(sorted(scores_alone))}"
            )
    check_fields(spec)
    check_training(spec)
    facts = data.facts(spec.data.name)
    if not facts:
        return None
    check_placement(spec, facts.stored)
    data.check_sizes(
        spec.data.name,
        facts.train,
        facts.test,
        validation_size=spec.data.validation_size,
        train_size=spec.data.train_size,
        test_size=spec.data.test_size,
    )
    data.check_classes(spec.data.name, facts.classes, spec.data.classes)
    check_images(spec, facts.shape)
    check_durations(spec, spec.data.train_size or facts.train - spec.data.validation_size)
    network = network_of(spec, facts)
    check_network(spec, network, facts)
    return network


def check_network(spec: Spec, network: Network, facts: data.Facts) -> None:
    """Checks that the optimizers can train the network, and that memory holds what is trained."""
    check_optimizers(spec, network.params)
    check_memory(spec, network, facts, optimizer_of(spec, steps_per_epoch=1).init)


def _check_criterion(name: str, scored: str | None, field: str, scored_field: str) -> None:
    check_known(field, name, CRITERIA)
    if scored == "rewind" and CRITERIA[name].needs_training:
        raise SpecError(
            f"config.{scored_field}='rewind': {name} compares trained weights with initial ones; "
            "accepted: trained"
        )


def _check_rule(branch: BranchSpec, place: str) -> None:
    """Checks that a branch's mask can move as its options say."""
    if branch.rule:
        check_known(f"{place}.rule", branch.rule, MASK_RULES)
    name = rule_name(branch)
    if not name:
        return
    rule = MASK_RULES[name]
    if branch.kind in KINDS and branch.kind not in DENSE_STARTS and rule.starts_dense:
        raise SpecError(
            f"config.{place}.rule={name!r}: it prunes as it trains, and {branch.kind} starts "
            f"pruned; accepted: kind {', '.join(DENSE_STARTS)}, or another rule"
        )
    if branch.kind in LEARNED_MASKS:
        raise SpecError(
            f"config.{place}.rule={name!r}: the mask of {branch.kind} is learned; accepted: None"
        )
    if branch.kind == "freeze_pruned":
        raise SpecError(
            f"config.{place}.rule={name!r}: pruned weights are zero where a mask moves; "
            "accepted: None with kind freeze_pruned"
        )
    begin, end = (rule.begin if branch.begin is None else branch.begin), branch.end or rule.end
    if not begin < end:
        raise SpecError(
            f"config.{place}.begin={begin!r}: the mask moves up to {end} of the training; "
            "accepted: less"
        )
    if rule.starts_dense and end == 1:
        raise SpecError(
            f"config.{place}.end=1.0: {name} trains on after its last move; accepted: below 1"
        )


def trainings(spec: Spec) -> dict[str, Spec]:
    """Returns the spec under the training options of its trunk ("") and of each branch."""
    return {"": spec} | {name: spec.under(name) for name in spec.branches}


def check_training(spec: Spec) -> None:
    """Checks that optimizers take what is set for them, and that they and schedules can be made.

    Raises:
      SpecError: one cannot, a schedule gives no number, or devices cannot share a batch evenly.
    """
    _, data = mesh_shape(spec.execution.mesh) or (1, 1)
    for branch, under in trainings(spec).items():
        optimizer, schedule = under.train.optimizer, under.train.schedule
        place = f"branch.{branch}" if branch else "train"
        if under.train.batch_size % data:
            raise SpecError(
                f"config.{place}.batch_size={under.train.batch_size}: "
                f"execution.mesh={spec.execution.mesh!r} has {data} devices share it; "
                f"accepted: a multiple of {data}"
            )
        for field in HYPERPARAMETERS:
            value = _set_value(spec, branch, field)
            # `momentum` has a value for those that have none, too: of the package's, no one asks.
            ignored = not is_own("OPTIMIZERS", optimizer) and (branch or field == "momentum")
            if value is not None and field not in takes(optimizer) and not ignored:
                accepted = ", ".join(takes(optimizer)) or "none of its like"
                raise SpecError(
                    f"config.{place}.{field}={value!r}: {optimizer} does not take it; "
                    f"accepted: {accepted}"
                )
        if is_own("OPTIMIZERS", optimizer):
            optimizer_of(under, steps_per_epoch=1)
        if is_own("SCHEDULES", schedule):
            _check_rate(schedule, rate_of(under, steps_per_epoch=1))


def _set_value(spec: Spec, branch: str, field: str) -> Any:
    """Returns the value of a field that a config sets, of the trunk or of a branch; None if not."""
    if branch:
        return getattr(spec.branch_spec(branch), field, None)
    value = getattr(spec.train, field)
    return None if value == getattr(TrainSpec(), field) else value


def _check_rate(name: str, rate: Any) -> None:
    with in_one_line(f"SCHEDULES['{name}']"):
        given = jax.eval_shape(rate, jax.ShapeDtypeStruct((), jnp.int32))
        if not isinstance(given, jax.ShapeDtypeStruct) or given.shape:
            said = getattr(given, "shape", None) or type(given).__name__
            raise SpecError(f"for one update it gives {said}; accepted: a number")


def check_optimizers(spec: Spec, params: PyTree) -> None:
    """Checks that the user's own optimizers can train parameters of these shapes.

    Raises:
      SpecError: one cannot; says what of it.
    """
    for under in trainings(spec).values():
        name = under.train.optimizer
        if is_own("OPTIMIZERS", name):
            with in_one_line(f"OPTIMIZERS['{name}']"):
                _check_update(optimizer_of(under, steps_per_epoch=1), params)


def _check_update(optimizer: optax.GradientTransformation, params: PyTree) -> None:
    state = jax.eval_shape(optimizer.init, params)
    if any(jnp.issubdtype(leaf.dtype, jax.dtypes.extended) for leaf in jax.tree.leaves(state)):
        raise SpecError("its state holds a typed key; accepted: jax.random.PRNGKey, which is kept")
    updates, after = jax.eval_shape(optimizer.update, params, state, params)
    if found := difference(updates, params, dtypes=False):
        raise SpecError(f"its updates are not shaped like the parameters: {found}")
    if found := difference(after, state):
        raise SpecError(f"its state after an update is another: {found}")
    # What a rewind does: it finds out which parts of the state belong to which parameter.
    map_optimizer_state(optimizer, lambda leaf, _: leaf, state, params)


def check_transfers(spec: Spec, source: Spec | PyTree) -> None:
    """Checks that a source's networks fit `spec`'s; loads a dataset that nothing is known of.

    Args:
      spec: the experiment.
      source: the source's spec where it is yet to be trained, else its parameters or their shapes:
        of a finished run nothing is made again, and no code of its own is needed.

    Raises:
      SpecError: they differ in more than the output layer.
      DataError: the data cannot be had.
    """
    shapes = [_parameters_of(one) if isinstance(one, Spec) else one for one in (source, spec)]
    try:
        new_heads(*shapes)
    except ValueError as error:
        raise SpecError(f"config.source: {error}") from None


def _parameters_of(spec: Spec) -> PyTree:
    facts = data.facts(spec.data.name) or data.facts_of(load(spec))
    check_durations(spec, facts.train)
    return network_of(spec, facts).params


def check_images(spec: Spec, shape: tuple[int, ...]) -> None:
    """Checks that images of that shape can be scaled, moved and mirrored as the spec asks."""
    d = spec.data
    data.check_images(d.name, shape, side=d.side, channels=d.channels, crop=d.crop, flip=d.flip)


def check_durations(spec: Spec, examples: int) -> None:
    """Checks that batches and steps, the trunk's and the branches', fit that many examples."""
    _check_training(spec, spec.train, examples)
    for name in spec.branches:
        branch = spec.branch_spec(name)
        rule = MASK_RULES.get(rule_name(branch))
        searches = branch.kind in LEARNED_MASKS or (rule is not None and rule.starts_dense)
        _check_training(spec, branch.train_spec(spec.train), examples, name, searches)
        per_epoch = examples // spec.train.batch_size
        last = duration_steps(spec.train.steps, per_epoch)
        looks = -(-spec.train.cycles * last // per_epoch) - 1  # ends of epochs before the last step
        if branch.kind == EARLY_BIRD and branch.window >= looks:
            raise SpecError(
                f"config.branch.{name}.window={branch.window}: it takes the masks of one epoch "
                f"more, and before its last step the dense network has {looks} ends of epochs; "
                "accepted: fewer epochs, or a longer train.steps"
            )
        for at in branch.at:
            if branch.kind == "sibling" and duration_steps(at, per_epoch) >= last:
                raise SpecError(
                    f"config.branch.{name}.at={at!r}: the dense network trains {last:,} steps; "
                    "accepted: steps before its last"
                )
    _check_curvature(spec, examples)


def _check_curvature(spec: Spec, examples: int) -> None:
    """Checks that the curvature can be measured, and that some run comes to each of its steps."""
    if not spec.curvature.steps:
        return
    lanczos()
    per_epoch = examples // spec.train.batch_size
    trained = [one.train for one in trainings(spec).values()]
    last = max(t.cycles * duration_steps(t.steps, examples // t.batch_size) for t in trained)
    for step in spec.curvature.steps:
        if duration_steps(step, per_epoch) > last:
            raise SpecError(
                f"config.curvature.steps={shown(spec.curvature.steps)}: training ends at step "
                f"{last:,}; accepted: steps up to it"
            )


def _check_training(
    spec: Spec, train: TrainSpec, examples: int, branch: str = "", searches: bool = False
) -> None:
    """Checks what is trained: the trunk, or a branch, which may search its mask as it trains."""
    place = f"config.branch.{branch}." if branch else "config.train."
    if examples < train.batch_size:
        raise SpecError(
            f"{place}batch_size={train.batch_size}: accepted: at most the "
            f"{examples} training examples"
        )
    steps = train.cycles * duration_steps(train.steps, examples // train.batch_size)
    if steps > MOST_STEPS or not (steps or branch):
        wanted = f"at most {MOST_STEPS:,} steps" if steps else "at least one step"
        raise SpecError(f"{place}steps={train.steps!r}: accepted: {wanted}")
    # A branch may end where it starts: its networks are measured as they are, untrained.
    rewind_step = duration_steps(spec.rewind.step, examples // spec.train.batch_size)
    if branch and rewind_step > steps - searches:
        wanted = f"{'more than' if searches else 'at least'} rewind.step={spec.rewind.step!r}"
        raise SpecError(f"{place}steps={train.steps!r}: accepted: {wanted}")
    if not branch and rewind_step >= steps:
        raise SpecError(
            f"config.rewind.step={spec.rewind.step!r}: accepted: steps before the last, {steps}"
        )
