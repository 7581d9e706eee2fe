"""Runs that are spread over several devices: the bits that they have on one."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from lth_jax.errors import Interrupted, SpecError
from lth_jax.lottery.checks import check_training
from lth_jax.training.devices import ONE_DEVICE, run_devices

from ..tiny import (
    StopAt,
    assert_alike,
    assert_same_run,
    experiment,
    finished_run,
    tiny_spec,
    train,
)
from .mesh_runs import LATE, SPECS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def on_one_device(built, tmp_path_factory):
    """The experiments, trained in this process."""
    folder = tmp_path_factory.mktemp("one")
    for name, spec in SPECS.items():
        train(folder / name, spec)
    return folder


# Which experiments train on how many devices: all on two, and on more those whose runs lie in
# groups with idle ones.
SPREAD = {2: tuple(SPECS), 4: ("late", "conv"), 8: ("late", "pairs")}


@pytest.mark.slow
@pytest.mark.parametrize("count", SPREAD)
def test_on_any_number_of_devices_all_bits_are_those_of_one(
    count, tmp_path, on_one_device, single_steps
):
    with pytest.raises(Interrupted):
        train(tmp_path / "resumed", LATE, StopAt(level=1, updates=20))
    assert on_devices(count, tmp_path, *SPREAD[count]) == ["stopped", "came back"]
    for name in SPREAD[count]:
        same = assert_alike if name == "pairs" else assert_same_run
        same(tmp_path / name, on_one_device / name)
    # Begun on one device and ended on several, and the other way round.
    assert_same_run(tmp_path / "resumed", on_one_device / "late")
    train(tmp_path / "stopped", LATE)
    assert_same_run(tmp_path / "stopped", on_one_device / "late")


def on_devices(count, *arguments):
    """What a process of its own says in which a CPU is so many devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    done = subprocess.run(
        [sys.executable, "-m", "tests.lottery.mesh_runs", *map(str, arguments)],
        cwd=ROOT, env={**os.environ, "XLA_FLAGS": flags}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().split("\n")


@pytest.mark.slow
def test_devices_that_share_batches_agree_with_one_to_rounding(tmp_path, single_steps):
    """Also where a run is stopped on the one and goes on on the other."""
    with pytest.raises(Interrupted):
        train(tmp_path / "resumed", LATE, StopAt(level=1, updates=20))
    assert on_devices(4, tmp_path, "shared") == ["stopped", "whole"]
    train(tmp_path / "stopped", LATE)
    for name in ("late", "resumed", "stopped"):
        assert_alike(tmp_path / name, finished_run(LATE))


def test_all_devices_are_taken_unless_fewer_are_named(monkeypatch):
    assert run_devices("auto") is run_devices("runs:1") is ONE_DEVICE
    (device,) = jax.local_devices()
    monkeypatch.setattr(jax, "local_devices", lambda: [device] * 3)
    with monkeypatch.context() as patch:
        patch.setattr("lth_jax.training.devices.Mesh", lambda *_: None)
        found = {m: run_devices(m) for m in ("auto", "runs:2", "runs:3", "runs:1,data:2")}
        assert [devices.count for devices in found.values()] == [3, 2, 3, 1]
        assert [devices.data for devices in found.values()] == [1, 1, 1, 2]
        assert [devices.number for devices in found.values()] == [3, 2, 3, 2]
    with pytest.raises(SpecError) as refused:
        run_devices("runs:4")
    assert str(refused.value) == (
        "config.execution.mesh='runs:4': more than the devices here (3 × cpu); "
        "accepted: auto, or at most runs:3"
    )
    with pytest.raises(SpecError, match="accepted: auto, or at most 3 in all"):
        run_devices("runs:2,data:2")


def test_a_batch_that_devices_cannot_share_is_refused():
    check_training(tiny_spec(execution__mesh="runs:1,data:4"))
    with pytest.raises(SpecError) as refused:
        check_training(tiny_spec(execution__mesh="runs:2,data:3"))
    assert str(refused.value) == (
        "config.train.batch_size=20: execution.mesh='runs:2,data:3' has 3 devices share it; "
        "accepted: a multiple of 3"
    )


def test_each_device_has_as_many_runs_as_any_other(monkeypatch):
    def sizes(**fields):
        e = experiment(tiny_spec(**fields))
        return [e.group_size(runs, devices=3) for runs in (1, 3, 4, 9, 10)]

    assert sizes() == [3, 3, 3, 3, 3]
    assert sizes(execution__group_size=2) == [3, 3, 6, 6, 6]
    assert sizes(execution__group_size=9) == [3, 3, 6, 9, 12]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert sizes() == [3, 3, 6, 9, 12]


def test_several_devices_work_on_one_group_at_a_time():
    class Three:
        count = number = 3

    spec = tiny_spec(execution__workers=0)
    assert dataclasses.replace(experiment(spec), devices=Three()).workers() == 1
    spec = tiny_spec(execution__workers=2)
    assert dataclasses.replace(experiment(spec), devices=Three()).workers() == 2
