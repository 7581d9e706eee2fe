"""Trains tiny experiments on all devices of this process, for tests in processes of their own.

    XLA_FLAGS=--xla_force_host_platform_device_count=4 \
        python -m tests.lottery.mesh_runs FOLDER late conv      # or: FOLDER shared

JAX counts its devices once, when it begins: so the tests' own process has one, always.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax.config import Spec
from lth_jax.data.streaming import is_installed
from lth_jax.errors import Interrupted
from lth_jax.lottery import runs as running
from lth_jax.pruning.masks import ones_mask
from lth_jax.training.devices import run_devices
from lth_jax.training.loop import Program
from lth_jax.training.parameterization import dense_apply
from lth_jax.training.pixels import Pixels
from lth_jax.training.states import Inputs, new_loop_state, new_state
from lth_jax.training.streamed import StreamedProgram

from ..small_networks import (
    SCALE,
    SHAPE,
    norm_and_dropout,
    optimizer,
    training_set,
    validation_set,
)
from ..tiny import StopAt, experiment, host, tiny_spec, train

# Level 1 has 6 runs: on 4 devices a second group with idle ones. The rewind point is captured on
# the way.
LATE = tiny_spec(levels=1, rewind__step="7", train__kernel="xla")
# By name: what each has that the others have not, and whose bits could differ between devices.
SPECS = {
    "late": LATE,
    "native": tiny_spec(levels=1, train__kernel="auto"),
    "packed": tiny_spec(levels=1, train__kernel="sparse", train__optimizer="sgd"),
    **(
        {"streamed": tiny_spec(levels=1, train__kernel="xla", data__placement="stream")}
        if is_installed()
        else {}
    ),
    "pairs": tiny_spec(levels=1, replicates=3, execution__group_size=2),
    "moving": tiny_spec(
        levels=1, branches=("rigl", "gmp", "reinit"), train__kernel="sparse",
        branch={name: {"every": "3", "end": 0.75} for name in ("rigl", "gmp")},
    ),
    "conv": tiny_spec(
        levels=1, branches=("reinit",), model__name="conv2", model__hidden=(300, 100),
        model__width=0.05, model__dropout=0.2,
        data__flip=True, data__crop=1, train__steps="6",
    ),
}  # fmt: skip


SHARED = "runs:2,data:2"  # two devices have the same runs, and share their batches


def on(mesh: str, spec: Spec) -> Spec:
    return dataclasses.replace(spec, execution=dataclasses.replace(spec.execution, mesh=mesh))


def shared(folder: Path) -> None:
    """Trains with batches that two devices share, from the start and in the middle."""
    spec = on(SHARED, LATE)
    train(folder / "late", spec)
    program = experiment(spec).program(2, run_devices(SHARED))
    for name in ("train", "evaluate", "test"):
        (text,) = (one.as_text() for key, one in program._compiled.items() if key[0] == name)
        assert "all-reduce" in text, name
        assert "[10,64]" in text or name != "train", "each device computes the whole batch"
    train(folder / "resumed", spec)
    running.CHUNK_SECONDS = 0.0
    try:
        train(folder / "stopped", spec, StopAt(level=1, updates=20))
    except Interrupted:
        print("stopped")
    assert_whole_batches_are_seen()


def assert_whole_batches_are_seen() -> None:
    """Asserts that norms and dropout are of the whole batch, whatever shares it."""
    # Not Adam: the gradient of a bias before a norm is nothing but rounding, which it would divide
    # by its own size.
    model, transform = norm_and_dropout(), optimizer("sgd")
    start = new_state(model.init, transform, jax.random.key(5), jnp.zeros((1, *SHAPE)))

    def ended(mesh: str, size: int, evaluated: int):
        devices, mask = run_devices(mesh), ones_mask(start.params)
        runs = devices.filled(new_loop_state(start, 50), size)
        inputs = devices.filled(Inputs(mask, jax.random.key(0)), size)
        inputs = devices.with_run(inputs, Inputs(mask, jax.random.key(1)), size - 1)
        program = Program(
            dense_apply(model.apply), transform,
            batch_size=8, pixels=Pixels(SCALE), group_size=size, devices=devices,
        )  # fmt: skip
        runs = program.train(runs, inputs, training_set(50), 0, 9)
        runs, found, _ = program.evaluate(runs, validation_set(23, evaluated), 9, 9)
        return host((runs.state, found))

    # One run on each pair of devices, and two; 23 examples in batches of 10, and of 5, which two
    # devices cannot divide.
    for size, evaluated in ((2, 10), (4, 5)):
        shared, alone = ended(SHARED, size, evaluated), ended("runs:1", size, evaluated)
        for name, leaf in alone.items():
            np.testing.assert_allclose(shared[name], leaf, rtol=2e-4, atol=1e-6)
    print("whole")


def main(folder: Path, names: Sequence[str]) -> None:
    used = set()

    def watched(train_on):
        def on(self, run, *args):
            used.add(len(run.loss_sum.devices()))
            return train_on(self, run, *args)

        return on

    for kind in (Program, StreamedProgram):
        kind.train = watched(kind.train)
    for name in names:
        used.clear()
        train(folder / name, SPECS[name])
        # The host moves masks, of runs that are on one device.
        assert used == {jax.device_count(), *([1] if name == "moving" else [])}, (name, used)
    train(folder / "resumed", LATE)
    running.CHUNK_SECONDS = 0.0
    try:
        train(folder / "stopped", LATE, StopAt(level=1, updates=20))
    except Interrupted:
        print("stopped")
    assert_runs_come_back(jax.device_count())


def assert_runs_come_back(count: int) -> None:
    """Asserts that what is spread over devices comes back run by run, in all its bits."""
    devices = run_devices("auto")
    special = np.array([-0.0, np.nan, np.inf, 1e-42], np.float32)
    runs = [
        {
            "float": jnp.asarray(np.roll(special, index)),
            "bool": jnp.array([index % 2 == 0]),
            "key": jax.random.key(index),
            "number": jnp.int32(index),
        }
        for index in range(3 * count)
    ]
    stacked = devices.filled(runs[0], len(runs))
    for index, run in enumerate(runs):
        stacked = devices.with_run(stacked, run, index)
    for index, run in enumerate(runs):
        found = devices.run(stacked, index)
        assert jax.random.key_data(found.pop("key")).tolist() == (
            jax.random.key_data(run.pop("key")).tolist()
        )
        mine, other = host(found), host(run)
        assert {n: a.tobytes() for n, a in mine.items()} == {
            n: a.tobytes() for n, a in other.items()
        }
    print("came back")


if __name__ == "__main__":
    if sys.argv[2:] == ["shared"]:
        shared(Path(sys.argv[1]))
    else:
        main(Path(sys.argv[1]), sys.argv[2:])
