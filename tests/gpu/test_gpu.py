"""What a GPU makes of experiments: numbers to rounding, exact counts, and resumed runs."""

import itertools

import jax
import numpy as np
import pytest

from lth_jax.errors import Interrupted
from lth_jax.lottery.building import build
from lth_jax.pruning.criteria import CRITERIA
from lth_jax.pruning.masks import kept_counts, ones_mask
from lth_jax.pruning.selection import prune_to
from lth_jax.training.keys import data_key, pruning_key
from lth_jax.training.states import Inputs, new_loop_state, stack_runs, unstack_run

from .. import tiny
from ..tiny import StopAt, arrays, host, results, tiny_spec

# Weights that differ by more of the way that they went are other numbers than rounding makes: on a
# CPU another order of LeNet's sums makes 1e-5, products in TF32 (imitated) 1e-2.
MOST_DIFFERENCE = 1e-3
RUNS, STEPS = 2, 10
# On one device, however many there are; what computes the network is XLA, on both sides.
FIELDS = {"execution__mesh": "runs:1", "train__kernel": "xla", "pruning__layer_rates": ()}
NETS = {
    "mlp": {"model__hidden": (30, 20)},
    "conv": {"model__name": "conv2", "model__hidden": (300, 100), "model__width": 0.1},
    "batch norm": {
        "model__name": "resnet20", "model__hidden": (300, 100), "model__width": 0.2,
        "train__optimizer": "momentum", "data__crop": 1, "data__flip": True,
    },
}  # fmt: skip


def weights(run):
    """All parameters and batch statistics of a run, float64 [n]."""
    leaves = jax.tree.leaves((run.state.params, run.state.model_state))
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in leaves])


def trained(e, starts, replicates):
    """The runs after ten steps in one program, each [n]; and the device that they are on."""
    begun = [new_loop_state(start, len(e.train.targets)) for start in starts]
    inputs = [
        Inputs(ones_mask(start.params), data_key(0, replicate))
        for start, replicate in zip(starts, replicates, strict=True)
    ]
    program = e.program(len(starts))
    runs = program.train(stack_runs(begun), stack_runs(inputs), e.train, 0, STEPS)
    ends = [weights(unstack_run(runs, index)) for index in range(len(starts))]
    return np.stack(ends), runs.loss_sum.devices()


@pytest.mark.parametrize("net", NETS)
def test_weights_after_ten_steps_are_the_cpus(on, gpu, cpu, net):
    """Two runs in one program there, one after the other here."""
    spec = tiny_spec(**FIELDS, **NETS[net])
    with on(cpu):
        e = build(spec)
        starts = jax.device_get([e.initial(replicate) for replicate in range(RUNS)])
        begun = np.stack([weights(new_loop_state(start, 1)) for start in starts])
        alone = [trained(e, [start], [replicate])[0] for replicate, start in enumerate(starts)]
    with on(gpu):
        # From the CPU's bits: initial weights that are drawn there may differ in the last ones.
        found, devices = trained(build(spec), starts, range(RUNS))

    assert devices == {gpu}
    expected = np.concatenate(alone)
    way = np.linalg.norm(expected - begun)
    assert way > 0
    assert np.linalg.norm(found - expected) <= MOST_DIFFERENCE * way


@pytest.mark.parametrize("criterion", ["magnitude", "snip"])
def test_scores_that_it_computes_give_masks_of_exact_counts(on, gpu, cpu, criterion):
    """By magnitude, which computes nothing, they are the CPU's masks, ties and all."""
    fields = {"pruning__criterion": criterion, "pruning__scope": "global", "levels": 6}
    spec = tiny_spec(**FIELDS, **NETS["conv"], **fields)
    with on(cpu):
        state = jax.device_get(build(spec).initial(0))
    # Many weights of one magnitude.
    state = state._replace(params=jax.tree.map(lambda leaf: np.round(leaf, 1), state.params))

    def masks():
        e, mask, found = build(spec), ones_mask(state.params), []
        assert CRITERIA[criterion].needs_probe == (criterion == "snip")
        for level in range(1, spec.levels + 1):
            key = pruning_key(0, 0, level)
            scores = e.scores(jax.device_put(state), state.params, key, spec.pruning)
            mask = prune_to(scores, mask, e.targets[level])
            kept = kept_counts(mask, e.rates)
            for names, wanted in e.targets[level].items():
                assert sum(kept[name][0] for name in names) == wanted
            found.append(host(mask))
        return found

    with on(gpu):
        there = masks()
    for before, after in itertools.pairwise(there):
        assert all(np.all(before[name] >= after[name]) for name in after)
    if criterion == "magnitude":
        with on(cpu):
            here = masks()
        for mine, other in zip(there, here, strict=True):
            assert all(np.array_equal(mine[name], other[name]) for name in other)


def train(path, spec, device, on, stopped=None):
    """Trains what is not done yet; until a signal comes, if one is to."""
    with on(device), pytest.MonkeyPatch.context() as patch:
        if stopped is None:
            tiny.train(path, spec)
            return
        patch.setattr("lth_jax.lottery.runs.CHUNK_SECONDS", 0.0)
        with pytest.raises(Interrupted):
            tiny.train(path, spec, stopped)


def kept_arrays(path):
    """Every array of the trunk's checkpoints, float64."""
    return {
        name: np.frombuffer(data, dtype).astype(np.float64)
        for name, (dtype, data) in arrays(path).items()
    }


@pytest.mark.parametrize("first", ["gpu", "cpu"])
def test_a_run_that_was_stopped_goes_on_there(tmp_path, on, gpu, cpu, first):
    """Stopped on it or on a CPU, in mid-level past the rewind point, and finished on it."""
    spec, began_on = (
        tiny_spec(**FIELDS, levels=1, rewind__step="7"),
        {"gpu": gpu, "cpu": cpu}[first],
    )
    whole, path = tmp_path / "whole", tmp_path / "stopped"
    train(whole, spec, began_on, on)

    train(path, spec, began_on, on, stopped=StopAt(level=0, updates=16))
    train(path, spec, gpu, on)

    exact = ("branch", "level", "replicate", "draw", "kept", "prunable", "steps")
    mine, others = ([[row[n] for n in exact] for row in results(p)] for p in (path, whole))
    assert mine == others
    found, expected = kept_arrays(path), kept_arrays(whole)
    assert found.keys() == expected.keys()
    for name, begun in found.items():
        folder, place = name.split("/")[0], name.split("/initial/")[-1]
        if "/initial/" in name:
            assert np.array_equal(begun, expected[name])
            for state in ("rewind", "level_00"):
                leaf = f"{folder}/{state}/{place}"
                way = np.linalg.norm(expected[leaf] - begun)
                assert np.linalg.norm(found[leaf] - expected[leaf]) <= MOST_DIFFERENCE * way
        # A weight beside the threshold may be pruned in the one and kept in the other. Pruned ones
        # are zero, and survivors begin where they were at the rewind point.
        if "/level_01/mask/" in name:
            assert not np.any(found[name.replace("/mask/", "/params/")][begun == 0])
