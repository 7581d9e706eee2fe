"""Building: from a checked spec, with its data, to the experiment that the algorithm works with."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax

from lth_jax import data
from lth_jax.config import Spec, duration_steps
from lth_jax.data.directories import resolve
from lth_jax.errors import SpecError
from lth_jax.lottery.checks import check, check_durations, check_images, check_network, trainings
from lth_jax.lottery.examples import inputs_of, load, notes_of, split
from lth_jax.lottery.experiment import Experiment, packing
from lth_jax.lottery.narrowing import Narrowing
from lth_jax.lottery.network import Network, example_of, network_of, pixels_of
from lth_jax.lottery.optimizing import (
    keeps_optimizer_state,
    optimizer_like,
    optimizer_of,
)
from lth_jax.lottery.placement import placed, streaming_of
from lth_jax.models.base import Model
from lth_jax.native.build import Unavailable
from lth_jax.native.choice import XLA, NativeCode, choose
from lth_jax.pruning.criteria import CRITERIA
from lth_jax.pruning.granularity import CHANNEL, granularity_of
from lth_jax.pruning.masks import prunable
from lth_jax.training.devices import run_devices
from lth_jax.training.optimizers import OPTIMIZERS


def source_optimizer(source: Spec) -> optax.GradientTransformation:
    """Returns the optimizer of a finished source, whose code is not run: one that is known here.

    Raises:
      SpecError: it is not known here, and the source's tickets hold its state.
    """
    if source.train.optimizer in OPTIMIZERS:
        return optimizer_like(source)
    if keeps_optimizer_state(source):
        raise SpecError(
            f"config.source.run: its tickets hold a state of the optimizer "
            f"'{source.train.optimizer}'; accepted: a config whose OPTIMIZERS has it"
        )
    return optax.identity()  # tickets begin with this experiment's own state


def build(spec: Spec, network: Network | None = None) -> Experiment:
    """Loads the data and builds everything that a checked spec names.

    Args:
      spec: the spec.
      network: what `check` gave; made here by default.

    Raises:
      SpecError: a name, or a combination that the data shows to be wrong.
      DataError: the data cannot be had, or the split sizes do not fit it.
    """
    network = network or check(spec)
    devices = run_devices(spec.execution.mesh)
    whole = load(spec)
    content, facts = data.content_of(whole), data.facts_of(whole)
    stored = facts.shape
    check_images(spec, stored)
    if network is None:
        network = network_of(spec, facts)
        check_network(spec, network, facts)
    whole = data.reshaped(whole, side=spec.data.side, channels=spec.data.channels)
    scaled, shape = whole.train_images.shape[1:], network.shape
    pixels = pixels_of(spec, whole)
    splits = split(spec, whole, shape)
    examples = len(splits.train.labels)
    check_durations(spec, examples)
    steps_per_epoch = examples // spec.train.batch_size
    native = native_code(spec, network.model, shape, tokens=facts.tokens, platform=devices.platform)
    if devices.data > 1:  # XLA cannot divide what it does not know
        native = dataclasses.replace(XLA, platform=devices.platform)
    streaming = streaming_of(spec, splits, devices, native.operations.permutation)
    notes = notes_of(spec, network.classes, splits.train.labels)
    narrowing = None
    if network.channels:
        example = example_of(shape, facts.tokens)
        narrowing = Narrowing(network.channels, network.model, example)
        notes += (narrowing.note,) if narrowing.note else ()
    return Experiment(
        spec=spec,
        model=network.model,
        optimizer=optimizer_of(spec, steps_per_epoch),
        criterion=CRITERIA[spec.pruning.criterion],
        targets=network.targets,
        **placed(splits, streaming, spec.eval.batch_size, devices.data),
        example=jnp.zeros_like(example_of(shape, facts.tokens)),
        pixels=pixels,
        steps=spec.train.cycles * duration_steps(spec.train.steps, steps_per_epoch),
        eval_every=duration_steps(spec.eval.every, steps_per_epoch),
        steps_per_epoch=steps_per_epoch,
        rates=network.rates,
        channels=network.channels,
        narrowing=narrowing,
        parameters=network.rows(spec.pruning.fraction),
        content=content,
        notes=(*notes, *left_whole(spec, network), *unpacked(spec, native)),
        native=packing(native, spec.train.optimizer),
        devices=devices,
        streaming=streaming,
        data=f"{whole.name}: {examples} training, {len(splits.validation.labels)} validation, "
        f"{len(splits.test.labels)} test {inputs_of(scaled, facts.tokens)}"
        f"{f', padded to {shape[0]}×{shape[1]}' if shape != scaled else ''} "
        f"({whole.origin}{', streamed' if streaming else ''})",
    )


def left_whole(spec: Spec, network: Network) -> tuple[str, ...]:
    """Returns a line that names kernels that the granularity leaves whole, if there are any."""
    wanted = prunable(network.params, spec.pruning.layer_rates)
    names = [name for name in wanted if name not in network.rates]
    if not names:
        return ()
    if network.channels:
        return (f"not pruned, since no channels of theirs can be: {', '.join(names)}",)
    return (
        f"not pruned, since they do not divide evenly by {spec.pruning.granularity}: "
        f"{', '.join(names)}",
    )


def unpacked(spec: Spec, native: NativeCode) -> tuple[str, ...]:
    """Returns a line that names the optimizers that must see every weight in its place, if any."""
    used = dict.fromkeys(one.train.optimizer for one in trainings(spec).values())
    dense = [name for name in used if not OPTIMIZERS[name].elementwise]
    channels = granularity_of(spec.pruning.granularity) == CHANNEL
    if not dense or not (native.layers or channels):
        return ()
    what = "pruned layers are not packed for"
    if channels:
        what = "pruned channels stay in the network as zeros for"
    return (
        f"{what} {', '.join(dense)}: not said to be elementwise, as "
        "lth_jax.Optimizer(…, elementwise=True) says it",
    )


def native_code(
    spec: Spec,
    model: Model,
    shape: tuple[int, ...],
    *,
    tokens: bool = False,
    platform: str | None = None,
) -> NativeCode:
    """Returns what native code computes of the spec's network, for inputs of `shape`.

    Args:
      spec: the spec.
      model: its network.
      shape: of an input.
      tokens: whether inputs are those.
      platform: that programs are compiled for; None for JAX's own choice.

    Raises:
      SpecError: `train.kernel` is `sparse`, and there is no compiler.
    """
    x = example_of(shape, tokens, spec.train.batch_size)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    folder = resolve(cache_dir=spec.data.cache_dir).cache_dir / "kernels"
    try:
        return choose(spec.train.kernel, folder, model.apply, variables, x, platform)
    except Unavailable as error:
        raise SpecError(f"config.train.kernel={spec.train.kernel!r}: {error}") from None
