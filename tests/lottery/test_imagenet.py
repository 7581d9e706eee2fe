"""`configs/resnet50_imagenet.py` on a few dozen JPEGs in ImageNet's format, by a small network."""

import dataclasses

import jax
import numpy as np
import pytest

pytest.importorskip("grain")

from lth_jax.config import files, from_config
from lth_jax.data import CROP_DRAWS
from lth_jax.errors import Interrupted
from lth_jax.lottery import placement
from lth_jax.lottery.branches import BRANCHES
from lth_jax.lottery.building import build
from lth_jax.lottery.checks import check
from lth_jax.training import keys
from lth_jax.training.devices import ONE_DEVICE
from lth_jax.training.order import BatchOrder

from ..data.fake_data import photographs, prepare_imagenet
from ..tiny import StopAt, assert_same_run, results, train

CONFIG = "configs/resnet50_imagenet.py"


def spec_of(variant="256", *overrides):
    return from_config(files.load_config(f"{CONFIG}:{variant}", list(overrides), list(BRANCHES)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imagenet")
    prepare_imagenet(folder, photographs(30), photographs(7, seed=1))
    return folder


@pytest.fixture
def spec(folder):
    fields = {
        "data.data_dir": folder, "data.cache_dir": folder / "cache", "data.validation_size": 6,
        "data.side": 12, "model.name": "mlp", "model.hidden": "(6,)", "model.stem": "small",
        "train.batch_size": 4, "train.steps": "2ep", "train.warmup": 0, "train.drops": (),
        "train.learning_rate": 0.01, "rewind.step": 3, "eval.every": 4, "eval.batch_size": 3,
        "levels": 1, "replicates": 2, "branch.reinit.levels": "(1,)", "execution.workers": 1,
        "pruning.layer_rates": "()", "checkpoint.every_seconds": 1e6,
    }  # fmt: skip
    return spec_of("256", *(f"{name}={value}" for name, value in fields.items()))


@pytest.mark.slow
def test_the_protocol_holds_together_before_anything_is_loaded():
    for variant, epoch in (("256", 4965), ("1024", 1241)):
        network = check(spec_of(variant))
        assert (network.shape, network.classes) == ((224, 224, 3), 1000)
        assert (1_281_167 - 10_000) // int(variant) == epoch
    assert check(spec_of("small")).shape == (64, 64, 3)
    assert spec_of("1024").train.learning_rate == 0.4


@pytest.mark.slow
def test_an_experiment_runs_and_goes_on_with_the_same_bits(spec, tmp_path, single_steps):
    train(tmp_path / "whole", spec)
    assert [row["steps"] for row in results(tmp_path / "whole")] == ["12"] * 2 + ["9"] * 2 + [
        "12"
    ] * 2
    with pytest.raises(Interrupted):
        train(tmp_path / "stopped", spec, StopAt(level=1, updates=5))
    train(tmp_path / "stopped", spec)
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.slow
def test_crops_are_functions_of_seed_replicate_step_and_place_alone(spec, monkeypatch):
    monkeypatch.setattr(placement, "BLOCK_BYTES", 2 * 4 * (12 * 12 * 3 + 4))
    e = build(spec)
    data_keys = [keys.data_key(0, replicate) for replicate in (0, 1)]
    feed = e.training_examples(data_keys, 12, ONE_DEVICE)
    seen = {}
    for step in (5, 6, 7, 8, 3):  # forwards, and back
        batches, first = feed.block(step)
        assert first == step // 2 * 2
        seen[step] = jax.device_get(batches.inputs[:, step - first])
    feed.close()
    for replicate, key in enumerate(data_keys):
        order = BatchOrder(key, 24, 4)
        for step, batch in seen.items():
            (indices,) = order.indices(step, step + 1)
            wanted = e.train.inputs.cropped(indices, order.uniforms(step, CROP_DRAWS))
            np.testing.assert_array_equal(batch[replicate], wanted)
    plain = dataclasses.replace(spec, data=dataclasses.replace(spec.data, resized_crop=False))
    feed = build(plain).training_examples(data_keys[:1], 12, ONE_DEVICE)
    (indices,) = BatchOrder(data_keys[0], 24, 4).indices(1, 2)
    np.testing.assert_array_equal(feed.block(1)[0].inputs[0, 1], e.train.inputs[indices])
    feed.close()


@pytest.mark.slow
def test_pixels_are_standardized_as_everybody_does(spec):
    pixels = build(spec).pixels
    assert pixels.mean == (0.485, 0.456, 0.406)
    assert pixels.deviation == (0.229, 0.224, 0.225)
