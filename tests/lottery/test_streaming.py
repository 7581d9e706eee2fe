"""Examples that are streamed from the host: the bits that they have on the device."""

import dataclasses

import jax
import numpy as np
import pytest

pytest.importorskip("grain")

from lth_jax import config as specs
from lth_jax.data import streaming
from lth_jax.errors import Interrupted, SpecError
from lth_jax.lottery import placement
from lth_jax.lottery.aligning import Aligner
from lth_jax.lottery.building import build
from lth_jax.lottery.checks import check
from lth_jax.lottery.path_meter import PathMeter
from lth_jax.training.devices import RunDevices

from ..small_networks import assert_same_bits
from ..tiny import StopAt, assert_alike, assert_same_run, experiment, finished_run, tiny_spec, train
from .mesh_runs import SPECS

# 65 steps an epoch; evaluations at 0, 70, 140 and 210, over 3 and 4 batches, the last one padded.
LENET = tiny_spec(
    levels=1, replicates=2, branches=("reinit",), model__hidden=(30, 10), train__steps="210",
    eval__every="70", eval__batch_size=90, data__train_size=0, data__validation_size=200,
    data__test_size=0, rewind__step="33",
)  # fmt: skip


def streamed(spec):
    return dataclasses.replace(spec, data=dataclasses.replace(spec.data, placement="stream"))


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 13 steps of `LENET`, which end within epochs; of two batches to evaluate."""
    monkeypatch.setattr(placement, "BLOCK_BYTES", 13 * 20 * (64 + 4))


@pytest.mark.slow
def test_streamed_runs_are_those_on_the_device_bit_for_bit(tmp_path, small_blocks, single_steps):
    with pytest.raises(Interrupted):
        train(tmp_path, streamed(LENET), StopAt(level=0, updates=101))
    train(tmp_path, streamed(LENET))
    assert_same_run(tmp_path, finished_run(LENET))


@pytest.mark.slow
def test_a_run_goes_on_wherever_its_examples_are(tmp_path, small_blocks, single_steps):
    with pytest.raises(Interrupted):
        train(tmp_path, LENET, StopAt(level=1, updates=77))
    train(tmp_path, streamed(LENET))
    assert_same_run(tmp_path, finished_run(LENET))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conv", "moving", "packed", "pairs"])
def test_dropout_augmentation_masks_that_move_and_groups_are_the_same(name, tmp_path, monkeypatch):
    monkeypatch.setattr(placement, "BLOCK_BYTES", 5 * 20 * (64 + 4))
    train(tmp_path, streamed(SPECS[name]))
    # Under one `vmap` as anything does: to rounding.
    same = assert_alike if name == "pairs" else assert_same_run
    same(tmp_path, finished_run(SPECS[name]))


def test_runs_of_one_replicate_share_what_is_read():
    e = experiment(streamed(LENET))
    assert e.streaming is not None
    keys = [jax.random.key(n) for n in (0, 1, 0)]
    read = []

    class Counting:
        def __getitem__(self, chosen):
            read.append(len(chosen))
            return np.zeros((len(chosen), 2), np.float32)

    Counting.shape, Counting.dtype = (1300, 2), np.dtype(np.float32)
    train_examples = e.train._replace(inputs=Counting())
    feed = e.streaming.feed(
        train_examples, keys, batch_size=20, last=50, devices=placement.RunDevices()
    )
    batches, first = feed.block(7)
    feed.close()
    assert first == 0
    assert batches.inputs.shape == (3, placement.MOST_STEPS, 20, 2)
    assert sum(read) == 2 * 50 * 20


def test_what_looks_at_examples_beside_training_sees_the_same(small_blocks):
    spec = dataclasses.replace(
        LENET,
        paths=specs.PathsSpec(examples=50),
        curvature=specs.CurvatureSpec(steps=("0",), examples=90),
        pruning=dataclasses.replace(LENET.pruning, probe="balanced", examples=40),
    )

    def seen(spec):
        e = build(spec)
        probe, meter = e.probe(jax.random.key(0), {}), PathMeter(e, spec.paths)
        chunks = Aligner(e, "activations", 70)._chunks()
        return (
            (probe.inputs, probe.targets),
            meter._train,
            meter._test,
            e.curvature._batches,
            chunks,
        )

    assert_same_bits(seen(spec), seen(streamed(spec)))


def test_what_does_not_fit_on_a_device_is_streamed(monkeypatch):
    needed = (1500 + 297) * (64 + 4)
    monkeypatch.setattr(RunDevices, "memory", lambda _: needed / 0.5)
    assert build(LENET).streaming is None
    monkeypatch.setattr(RunDevices, "memory", lambda _: needed / 0.5 - 1)
    e = build(LENET)
    assert e.streaming is not None
    assert e.data.endswith(", streamed)")
    on_device = dataclasses.replace(LENET.data, placement="device")
    assert build(dataclasses.replace(LENET, data=on_device)).streaming is None


REFUSED = [
    ({"data__placement": "stream"}, "config.data.placement='stream': examples are streamed by "
     f"Grain, which is not installed; {streaming.INSTALL}"),
    ({"data__name": "imagenet2012"}, "config.data.placement='auto': examples are streamed by "
     f"Grain, which is not installed; {streaming.INSTALL}"),
    ({"data__name": "imagenet2012", "data__placement": "device"}, "config.data.placement='device': "
     "imagenet2012 stays on disk, and its images are decoded as they are needed; accepted: auto "
     "or stream"),
    ({"data__resized_crop": True}, "config.data.resized_crop=True: the images of digits have one "
     "size; accepted: False (config.data.crop moves them)"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "line"), REFUSED)
def test_what_cannot_be_streamed_is_refused_before_anything_is_loaded(fields, line, monkeypatch):
    monkeypatch.setattr(streaming, "is_installed", lambda: False)
    with pytest.raises(SpecError) as refused:
        check(tiny_spec(**fields))
    assert str(refused.value) == line


def test_too_much_for_a_device_asks_for_what_streams_it(monkeypatch):
    monkeypatch.setattr(streaming, "is_installed", lambda: False)
    monkeypatch.setattr(RunDevices, "memory", lambda _: 100.0)
    with pytest.raises(SpecError, match=r"^config.data.placement='auto': the examples of digits "):
        build(LENET)
