"""The network that a spec names: all that is known of it before any data is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lth_jax import data
from lth_jax.config import ModelSpec, Spec, own_fields, to_dict
from lth_jax.errors import SpecError, in_one_line, nearest, shown
from lth_jax.lottery.observer import ParameterRow
from lth_jax.models import DTYPES, INITIALIZERS, MODELS, STEMS, ZOO
from lth_jax.models.base import Model
from lth_jax.pruning import schedules
from lth_jax.pruning.channels import Channels, channels_of
from lth_jax.pruning.granularity import CHANNEL, granularity_of, nm_targets
from lth_jax.pruning.masks import exact, prunable
from lth_jax.pruning.trees import PyTree, named_leaves, size
from lth_jax.training.metrics import Metric
from lth_jax.training.pixels import Pixels, statistics
from lth_jax.training.tasks import TASKS, Targets
from lth_jax.training.units import unit_groups


class Network(NamedTuple):
    """A spec's network, for inputs of one shape and a task.

    Attributes:
      model: the network.
      shape: of an input as it takes it; of an image (height, width, channels).
      classes: the number of its logits, or of its outputs.
      params: the parameters' shapes.
      rates: what may be pruned: leaf name -> multiple of `pruning.fraction`.
      targets: what each ranked group keeps, by level: weights, or channels.
      channels: those of the network, if these are pruned as a whole.
    """

    model: Model
    shape: tuple[int, ...]
    classes: int
    params: PyTree
    rates: Mapping[str, Fraction]
    targets: tuple[schedules.Targets, ...]
    channels: Channels | None = None

    def rows(self, fraction: float) -> tuple[ParameterRow, ...]:
        """Returns a row for each leaf; `fraction` is `pruning.fraction`."""
        return tuple(
            ParameterRow(
                name,
                tuple(leaf.shape),
                size(leaf),
                name in self.rates,
                float(self.rates.get(name, Fraction(0)) * exact(fraction)),
            )
            for name, leaf in named_leaves(self.params).items()
        )


def network_of(spec: Spec, facts: data.Facts) -> Network:
    """Returns the spec's network for a dataset.

    Args:
      spec: the spec.
      facts: of its dataset, before `data.side` and its like.

    Raises:
      SpecError: the network cannot be made, does not take such inputs, has no such layers, or a
        level would prune a group of them to nothing; or the task does not take such targets.
    """
    shape, outputs = shape_of(spec, facts.shape), outputs_of(spec, facts)
    model, classes = model_of(spec, outputs[-1]), outputs[-1]
    example = example_of(shape, facts.tokens)
    params = parameters_of(spec, model, example, outputs)
    try:
        rates = prunable(params, spec.pruning.layer_rates)
    except ValueError as error:
        raise SpecError(f"config.pruning.{error}") from None
    channels = None
    if granularity_of(spec.pruning.granularity) == CHANNEL:
        channels = _channels(spec, model, example, rates)
        rates = channels.kernels(rates)
    else:
        rates = _dividing(spec, params, rates)
    targets = targets_of(spec, params, rates, channels)
    return Network(model, shape, classes, params, rates, targets, channels)


def _channels(
    spec: Spec, model: Model, example: jax.ShapeDtypeStruct, rates: Mapping[str, Fraction]
) -> Channels:
    """Returns the network's channels that may be pruned.

    Raises:
      SpecError: it has none, or such as `pruning.rank` cannot rank.
    """
    with _named(spec):
        shapes = jax.eval_shape(model.init, jax.random.key(0), example)
        groups = unit_groups(model.apply, shapes, example)
    channels = channels_of(groups, shapes["params"], rates)
    if not channels.groups and any(group.removable for group in groups):
        raise SpecError(
            f"config.pruning.layer_rates={shown(spec.pruning.layer_rates)}: accepted with "
            "granularity channel: at least one layer whose channels are pruned, and so all layers "
            "that write to the same stream"
        )
    if not channels.groups:
        raise SpecError(
            f"config.pruning.granularity='channel': no hidden units of {spec.model.name} can be "
            "followed through it and left out; accepted: weight, or a network of Dense and Conv "
            "layers whose units are only summed over by the next one"
        )
    if spec.pruning.rank == "batch_norm":
        bare = [name for name, group in channels.groups.items() if not group.norm_scales()]
        if bare:
            raise SpecError(
                f"config.pruning.rank='batch_norm': the channels of {', '.join(bare)} go through "
                "no norm with a scale; accepted: sum, l1 or l2"
            )
    return channels


def _dividing(spec: Spec, params: PyTree, rates: Mapping[str, Fraction]) -> Mapping[str, Fraction]:
    """Returns what may be pruned at the spec's granularity: kernels that divide evenly.

    Raises:
      SpecError: none does.
    """
    granularity, leaves = granularity_of(spec.pruning.granularity), named_leaves(params)
    whole = {n: rate for n, rate in rates.items() if granularity.fits(tuple(leaves[n].shape))}
    if not whole:
        shapes = ", ".join(f"{name} {'×'.join(map(str, leaves[name].shape))}" for name in rates)
        raise SpecError(
            f"config.pruning.granularity={spec.pruning.granularity!r}: no kernel divides evenly "
            f"({shapes}); accepted: sizes that divide one"
        )
    return whole


def model_of(spec: Spec, classes: int) -> Model:
    """Returns the network that the spec names, for that many classes.

    Raises:
      SpecError: a custom network cannot be made.
    """
    member, defaults = MODELS[spec.model.name], ModelSpec()
    given = {
        name: value
        for name in member.options()
        if (value := getattr(spec.model, name)) != getattr(defaults, name)
    }
    if spec.model.name not in ZOO:
        given |= own_fields.taken(member.module, spec.custom, given=1)
    with _named(spec):
        return member.make(classes, **given)


def check_model(spec: Spec) -> None:
    """Checks that the model's options are known, and such as it takes."""
    check_known("model.init", spec.model.init, INITIALIZERS)
    check_known("model.stem", spec.model.stem, STEMS)
    check_known("model.dtype", spec.model.dtype, DTYPES)
    taken = MODELS[spec.model.name].options()
    for name, default in to_dict(ModelSpec()).items():
        value = getattr(spec.model, name)
        if name not in ("name", *taken) and value != default:
            raise SpecError(
                f"config.model.{name}={shown(value)}: {spec.model.name} does not take it; "
                f"accepted: {', '.join(taken)}"
            )


def example_of(shape: tuple[int, ...], tokens: bool, count: int = 1) -> jax.ShapeDtypeStruct:
    """Returns what a network sees of `count` inputs: int32 tokens, else float32, [count, …]."""
    return jax.ShapeDtypeStruct((count, *shape), jnp.int32 if tokens else jnp.float32)


def parameters_of(
    spec: Spec, model: Model, images: jax.ShapeDtypeStruct, outputs: tuple[int, ...]
) -> PyTree:
    """Returns the parameters' shapes, provided that the network takes such inputs.

    Its outputs are asked for, too, save of a network of the zoo for classes of images: it gives
    what it should.
    """

    def run(key: jax.Array, images: jax.Array) -> tuple[Any, Any]:
        variables = model.init(key, images)
        return variables, model.apply(variables, images, False, {})

    with _named(spec):
        if spec.model.name in ZOO and len(outputs) == 1 and len(images.shape) == 4:
            return jax.eval_shape(model.init, jax.random.key(0), images)["params"]
        variables, answer = jax.eval_shape(run, jax.random.key(0), images)
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise SpecError("apply gave no pair; accepted: (logits, new_state)")
        if getattr(answer[0], "shape", None) != (1, *outputs):
            given = jax.tree.map(lambda leaf: leaf.shape, answer[0])
            size = "×".join(map(str, images.shape[1:]))
            one, what = ("image", "logits") if len(images.shape) == 4 else ("input", "outputs")
            each = ", one for each class" if TASKS[spec.task].classes else f" for {spec.task}"
            raise SpecError(
                f"for one {one} of {size} it gives {what} of shape {given}; "
                f"accepted: {(1, *outputs)}{each}"
            )
        return variables["params"]


def _named(spec: Spec) -> AbstractContextManager[None]:
    """Turns whatever a network raises into one line: its own text, and what it is made of."""
    return in_one_line(f"config.model.name={spec.model.name!r}, its options and images")


def shape_of(spec: Spec, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of an input as the network takes it: after `data.side` and its like.

    Raises:
      SpecError: it is smaller than the network takes.
    """
    member = MODELS[spec.model.name]
    if len(shape) != 3:
        if member.least > 1:
            size = "×".join(map(str, shape)) or "one number"
            raise SpecError(
                f"config.model.name={spec.model.name!r}: it takes images, and the inputs of "
                f"{spec.data.name} are {size}; accepted: another network"
            )
        return shape
    height, width, channels = shape
    height, width = spec.data.side or height, spec.data.side or width
    if min(height, width) < member.least:
        raise SpecError(
            f"config.model.name={spec.model.name!r}: it takes images from {member.least}×"
            f"{member.least} pixels on, and those of {spec.data.name} are {height}×{width}; "
            f"accepted: data.side={max(member.least, member.padded)}, or another network"
        )
    padded = member.padded
    return max(height, padded), max(width, padded), spec.data.channels or channels


def outputs_of(spec: Spec, facts: data.Facts) -> tuple[int, ...]:
    """Returns the shape of what the network gives for one example of a dataset.

    Raises:
      SpecError: the task does not take the dataset's targets.
    """
    task, classes = TASKS[spec.task], facts.classes
    targets = Targets(facts.target_shape, classes > 0, classes)
    accepted, fits = task.accepts
    if not fits(targets):
        kind = "integers" if targets.integers else "floats"
        shape = "".join(f", {size}" for size in targets.shape)
        raise SpecError(
            f"config.task={spec.task!r}: the targets of {spec.data.name} are {kind} [n{shape}]"
            f"{f' up to {classes - 1}' if classes else ''}; accepted: {accepted}"
        )
    if facts.labelled:
        classes = classes_of(spec, classes)
    return task.output_shape(targets._replace(classes=classes))


def task_metric(spec: Spec) -> Metric:
    """Returns what the spec's networks are measured by."""
    return TASKS[spec.task].metric(spec.metric)


def check_task(spec: Spec) -> None:
    """Checks that the task is known, and that what else is asked for has a meaning for it.

    Raises:
      SpecError: it has none.
    """
    check_known("task", spec.task, TASKS)
    task = TASKS[spec.task]
    names = [metric.name for metric in task.metrics]
    if spec.metric:
        check_known("metric", spec.metric, names)
    metric = task_metric(spec)
    if spec.analysis.margin is None and metric.margin is None:
        raise SpecError(
            f"config.analysis.margin=None: accepted for {metric.title()}: a number above 0, by how "
            "much a network may stay behind the dense one and still match it"
        )
    if spec.train.label_smoothing and not task.smoothed_loss:
        raise SpecError(
            f"config.train.label_smoothing={spec.train.label_smoothing}: it has no meaning for "
            f"config.task={spec.task!r}; accepted: 0"
        )
    if spec.pruning.probe == "balanced" and not task.classes:
        raise SpecError(
            f"config.pruning.probe='balanced': an example of config.task={spec.task!r} has no "
            "class; accepted: random"
        )


def classes_of(spec: Spec, count: int) -> int:
    """Returns the number of logits for a dataset of `count` classes."""
    remapped = spec.data.classes and spec.data.labels != "original"
    return len(spec.data.classes) if remapped else count


def targets_of(
    spec: Spec, params: PyTree, rates: Mapping[str, Fraction], channels: Channels | None = None
) -> tuple[schedules.Targets, ...]:
    """Returns what each ranked group keeps at levels 0 to `spec.levels`; of channels, how many.

    Raises:
      SpecError: a group would be pruned to nothing, or the scope does not take these rates.
    """
    pruning = spec.pruning
    shapes = {name: tuple(leaf.shape) for name, leaf in named_leaves(params).items()}
    granularity = granularity_of(pruning.granularity)
    if granularity.of_each:
        last = granularity.rows - granularity.of_each
        if spec.levels > last:
            raise SpecError(
                f"config.levels={spec.levels}: {pruning.granularity} is reached at level {last}, "
                f"one more of each {granularity.rows} pruned at each; accepted: 0 to {last}"
            )
        of = {name: shapes[name] for name in rates}
        return tuple(nm_targets(granularity, of, spec.levels))
    if pruning.densities:
        fractions = schedules.fractions_of(pruning.densities)[: spec.levels]
    else:
        fractions = [exact(pruning.fraction)] * spec.levels
    if channels:
        shapes, rates = {n: (units,) for n, units in channels.units.items()}, channels.rates
    try:
        found = schedules.targets(shapes, rates, fractions, scope=pruning.scope)
    except ValueError as error:
        raise SpecError(f"config.pruning.{error}") from None
    by_level = [
        {names: count if channels else granularity.whole(count) for names, count in kept.items()}
        for kept in found
    ]
    for level, kept in enumerate(by_level):
        # Groups of channels that are ranked together keep one each.
        least = {names: len(names) if channels else 1 for names in kept}
        empty = [name for names, count in kept.items() if count < least[names] for name in names]
        if empty:
            raise SpecError(
                f"config.levels={spec.levels}: level {level} would prune {', '.join(empty)} to "
                f"nothing; accepted: 0 to {level - 1}, or a smaller pruning.fraction"
            )
    return tuple(by_level)


def pixels_of(spec: Spec, whole: data.Dataset) -> Pixels:
    """Returns how the network sees the images of the whole dataset."""
    standard = ((), ())
    if spec.data.standardize and whole.train_images.ndim != 4:
        raise SpecError(
            f"config.data.standardize=True: the inputs of {whole.name} are no images, whose "
            "channels it is of; accepted: False"
        )
    if spec.data.standardize:
        images = whole.train_images
        stored = data.is_stored(images)
        standard = images.moments() if stored else statistics(images, whole.scale)
    return Pixels(whole.scale, *standard, crop=spec.data.crop, flip=spec.data.flip)


def check_known(field: str, name: str, registry: Iterable[str]) -> None:
    """Raises a SpecError, with the nearest name, unless `name` is in `registry`."""
    if name not in registry:
        raise SpecError(f"config.{field}={shown(name)}: no such name; {nearest(name, registry)}")
