"""What `gpu.py` compiles and measures: the programs in which an experiment trains its runs."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from problem import load, synthetic

from lth_jax import data
from lth_jax.config import Spec, from_config
from lth_jax.config.files import load_config
from lth_jax.lottery import building
from lth_jax.lottery.experiment import Experiment
from lth_jax.pruning.masks import ones_mask
from lth_jax.training.keys import data_key, initialization_key
from lth_jax.training.states import Inputs, LoopState, new_loop_state


class Net(NamedTuple):
    """Says in which programs a network is compiled and measured.

    Attributes:
      config: its experiment, at the paper's scale.
      runs: how many train in one program, of each.
      small: what makes it small enough to try this file by.
    """

    config: str
    runs: tuple[int, ...]
    small: tuple[str, ...]


_SMALL = ("data.validation_size=200", "data.test_size=200", "eval.batch_size=100")
_SMALL_CONV = (*_SMALL, "data.train_size=600", "train.batch_size=20", "model.width=0.1")
NETS = {
    "lenet": Net(
        "configs/lenet_mnist.py:paper",
        (1, 9, 32, 125),
        (*_SMALL, "data.train_size=3000", "replicates=1", "model.hidden=(20,10)"),
    ),
    **{
        net: Net(f"configs/{net}_cifar10.py:paper", (1, 9), _SMALL_CONV)
        for net in ("conv2", "conv4", "conv6")
    },
    "resnet20": Net("configs/resnet20_cifar10.py:low,paper", (1, 9), _SMALL_CONV),
}
# XLA computes the network, as on every GPU; and no more than one device.
_OVERRIDES = ("train.kernel=xla", "execution.mesh=runs:1")


def spec_of(net: str, overrides: Sequence[str] = ()) -> Spec:
    """Returns the experiment of a net, with some fields changed, as `a.b=value`."""
    return from_config(load_config(NETS[net].config, [*_OVERRIDES, *overrides], ()))


def build(spec: Spec, kind: str, data_dir: str) -> Experiment:
    """Builds an experiment on its dataset, or on random images of its shape.

    Args:
      spec: the experiment.
      kind: `real`, `synthetic`, or `auto`: its dataset where that can be had.
      data_dir: of prepared datasets.
    """
    with on_dataset(spec.data.name, kind, data_dir):
        return building.build(spec)


@contextlib.contextmanager
def on_dataset(name: str, kind: str, data_dir: str) -> Iterator[None]:
    """Lets a dataset's name mean within what `build` says of `kind`."""
    dataset, row = _dataset(name, kind, data_dir), data.DATASETS[name]
    data.DATASETS[name] = data.Loader(lambda *_: dataset, row.facts)
    try:
        yield
    finally:
        data.DATASETS[name] = row


@functools.cache
def _dataset(name: str, kind: str, data_dir: str) -> data.Dataset:
    facts = data.facts(name)
    assert facts is not None, f"nothing is known of {name}"
    if kind == "synthetic":
        return synthetic(name, facts.test)
    return load(name, data_dir, kind == "auto")


def beginnings(e: Experiment, runs: int) -> tuple[LoopState, Inputs]:
    """Returns so many runs of level 0 where they begin, as an experiment trains them in a group.

    Their replicates are 0, 1 and so on, of which each has a network and an order of its own.
    """

    def one(initialization: jax.Array, order: jax.Array) -> tuple[LoopState, Inputs]:
        state = e.fresh(initialization)
        begun = new_loop_state(state, len(e.train.targets))
        return begun, Inputs(ones_mask(state.params), order)

    def keys(of: Callable[[int, int], jax.Array]) -> jax.Array:
        return jnp.stack([of(e.spec.seed, replicate) for replicate in range(runs)])

    return jax.jit(jax.vmap(one))(keys(initialization_key), keys(data_key))
