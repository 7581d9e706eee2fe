"""A level and the memory of its devices: what is done at once, and that nothing else changes."""

import math
from types import SimpleNamespace

import jax
import pytest

from lth_jax.errors import Interrupted
from lth_jax.lottery.memory import AtOnce, Need, Portions, at_once, need_of
from lth_jax.lottery.runs import RunGroup
from lth_jax.system import machine
from lth_jax.training.devices import ONE_DEVICE, Memory, RunDevices

from ..tiny import (
    Recorder,
    StopAt,
    assert_same_run,
    finished_run,
    results,
    tiny_spec,
    train,
)

SPEC = tiny_spec(levels=1)
ONE = Need(held=10, training=30, evaluation=50)


@pytest.mark.parametrize(
    ("there_is", "workers", "on_host", "found"),
    [
        (math.inf, 2, False, AtOnce(2, 4)),
        (100 + 2 * 50 + 40, 2, False, AtOnce(2, 4)),
        (100 + 2 * 50 + 39, 2, False, AtOnce(2, 3)),
        (100 + 2 * 50 + 19, 2, False, AtOnce(1, 4)),  # two do not fit, and one leaves room
        (100 + 50 + 10, 2, False, AtOnce(1, 1)),
        (100 + 50 + 9, 2, False, None),
        # What has not begun is in the same memory: fewer at a time gain what they compute alone.
        (100 + 2 * 50 + 39, 2, True, AtOnce(1, 4)),
        (100 + 50 + 39, 2, True, None),
        (math.inf, 9, False, AtOnce(4, 4)),
    ],
)
def test_as_many_groups_are_begun_as_memory_holds(there_is, workers, on_host, found):
    assert at_once([ONE] * 4, 100, there_is, workers, on_host=on_host) == found


def test_groups_are_halved_before_evaluations_and_these_where_they_take_most():
    portions, sizes = Portions(), [9]
    while portions.halve(sizes[-1], 5, [ONE]):
        sizes.append(portions.runs)
    assert sizes == [9, 5, 3, 2, 1, 1, 1, 1]
    assert (portions.runs, portions.parts) == (1, 8)  # of 5 examples
    assert not Portions().halve(1, 5, [ONE._replace(training=50)])


def test_what_a_group_needs_is_what_its_compiled_functions_take():
    found = need_of(
        {
            "train": Memory(arguments=107, besides=30),
            "evaluate": Memory(arguments=90, besides=5),
            "test": Memory(arguments=90, besides=6),
            "gradients": Memory(arguments=1, besides=31),
        },
        examples=100,
    )
    assert found == Need(held=7, training=31, evaluation=6)


@pytest.mark.parametrize(
    ("platform", "stats", "has"),
    [
        ("gpu", {"bytes_limit": 7, "bytes_in_use": 3}, 7),
        ("gpu", {}, math.inf),
        ("tpu", None, math.inf),
        ("cpu", None, 12.0),
    ],
)
def test_a_device_has_what_jax_may_take_of_it_and_a_cpu_what_the_machine_has(
    monkeypatch, platform, stats, has
):
    device = SimpleNamespace(platform=platform, memory_stats=lambda: stats)
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    monkeypatch.setattr(machine, "memory", lambda: 12.0)
    assert ONE_DEVICE.memory() == has


@pytest.mark.slow
def test_too_little_memory_halves_the_groups_says_so_once_and_trains_the_same(
    tmp_path, monkeypatch
):
    """Groups of one have the bits that they have where there is memory for all."""
    monkeypatch.setattr(RunDevices, "memory", lambda self: 1.0)
    recorder, sizes = Recorder(), []
    begin = RunGroup.begin
    monkeypatch.setattr(RunGroup, "begin", lambda self: [sizes.append(self.size), begin(self)])
    train(tmp_path, tiny_spec(levels=1, execution__group_size=4), observer=recorder)
    assert set(sizes) == {1}
    (note,) = (text for (text,) in recorder.of("note"))
    assert note.startswith("level 0 asks for 0.0 GiB for 2 runs at once, and each device has 0.0")
    assert " GiB of memory: groups of 1;" in note
    assert note.endswith("it may run out")
    assert_same_run(tmp_path, finished_run(SPEC))


@pytest.mark.slow
def test_evaluations_in_parts_give_the_same_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "lth_jax.lottery.experiment.Portions", lambda: pytest.fail("made by the test")
    )
    portions = Portions(parts=3)
    monkeypatch.setattr("tests.tiny.Portions", lambda: portions)
    train(tmp_path, SPEC)
    for row, same in zip(results(tmp_path), results(finished_run(SPEC)), strict=True):
        for name, value in row.items():
            if "loss" in name:
                assert float(value) == pytest.approx(float(same[name]), rel=1e-6), name
            else:
                assert value == same[name], name


@pytest.mark.slow
@pytest.mark.parametrize("stop", [None, 30])
def test_states_are_on_the_device_while_their_group_trains_and_no_longer(
    tmp_path, monkeypatch, stop
):
    """One group after the other, stopped on the way and resumed, with the bits of all at once."""
    monkeypatch.setattr("lth_jax.lottery.level.at_once", lambda *_, **__: AtOnce(1, 1))
    monkeypatch.setattr("lth_jax.lottery.runs.CHUNK_SECONDS", 0.0)
    groups, held = [], set()
    init, advance = RunGroup.__init__, RunGroup.advance

    def noted(self, *arguments):
        groups.append(self)
        init(self, *arguments)

    def watched(self, *arguments):
        found = advance(self, *arguments)
        held.add(sum(group.state is not None for group in groups))
        assert self.runs[0].start.state is None
        return found

    monkeypatch.setattr(RunGroup, "__init__", noted)
    monkeypatch.setattr(RunGroup, "advance", watched)
    if stop:
        with pytest.raises(Interrupted, match="level 1, step 0 of 12"):
            train(tmp_path, SPEC, StopAt(level=1, updates=stop))
        groups.clear()
    train(tmp_path, SPEC)
    assert held == {1}
    assert_same_run(tmp_path, finished_run(SPEC))
