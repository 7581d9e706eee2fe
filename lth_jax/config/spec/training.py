"""How networks are trained, evaluated and saved, and on what."""

# ruff: noqa: RUF009 (`field` is a `dataclasses.field`, which ruff cannot see)

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from lth_jax.config.fields import (
    Duration,
    Rule,
    below_one,
    between,
    choice,
    each,
    field,
    is_duration,
    is_some_duration,
    plain,
)
from lth_jax.config.spec.accepted import DURATIONS, LARGEST, LEAST, MOST, NAMES, SOME_DURATION


@dataclasses.dataclass(frozen=True)
class TrainSpec:
    """How one network is trained."""

    steps: Duration = field(
        "1000", "How long one network trains.", accepted=SOME_DURATION, check=is_some_duration
    )
    batch_size: int = field(
        60,
        "How many examples one step takes.",
        **between(1, MOST),
        unit="examples",
    )
    optimizer: str = field("adam", "The optimizer.", accepted=NAMES)
    learning_rate: float = field(
        1.2e-3, "The learning rate after the warmup.", **between(LEAST, LARGEST)
    )
    weight_decay: float = field(
        0.0,
        "The factor of the weight decay, decoupled in `adamw`, an L2 penalty elsewhere.",
        **between(0.0, LARGEST),
    )
    momentum: float = field(
        0.9, "The momentum, of the optimizer `momentum`.", accepted="0 to below 1", check=below_one
    )
    nesterov: bool = field(False, "Whether the momentum is Nesterov's.")
    schedule: str = field(
        "constant",
        "How the learning rate goes on after the warmup; `cosine` ends at 0 with the last step.",
        accepted=NAMES,
    )
    warmup: Duration = field(
        "0",
        "How long the learning rate rises from 0, linearly.",
        accepted=DURATIONS,
        check=is_duration,
    )
    drops: tuple[tuple[Duration, float], ...] = field(
        (),
        "When a constant learning rate is multiplied, and by what.",
        accepted="(duration, factor) pairs such as (('20000', 0.1), ('120ep', 0.1)), factors from "
        f"{plain(LEAST)} to {plain(LARGEST)}",
        check=each(lambda drop: is_duration(drop[0]) and LEAST <= drop[1] <= LARGEST),
    )
    cycles: int = field(
        1,
        "How many times in a row a network trains for `steps`; the learning rate begins anew each "
        "time.",
        **between(1, 1000),
        unit="cycles",
    )
    label_smoothing: float = field(
        0.0,
        "The share of a label that is spread over all classes.",
        accepted="0 to below 1",
        check=below_one,
    )
    kernel: str = choice(
        "auto",
        ("auto", "xla", "sparse"),
        "What computes the layers on CPU: `xla` alone, `auto` native kernels where they pay, "
        "`sparse` these for every layer with a mask too.",
        identity=False,
    )

    def rules(self) -> Iterator[Rule]:
        """Gives what must hold of several fields."""
        yield (
            not self.drops or self.schedule == "constant",
            "drops",
            self.drops,
            "none unless train.schedule is constant",
        )


@dataclasses.dataclass(frozen=True)
class EvalSpec:
    """When a network is evaluated."""

    every: Duration = field(
        "100",
        "How long a network trains between two evaluations.",
        accepted=SOME_DURATION,
        check=is_some_duration,
    )
    batch_size: int = field(
        1000,
        "How many examples are evaluated at once.",
        **between(1, MOST),
        unit="examples",
    )


@dataclasses.dataclass(frozen=True)
class CheckpointSpec:
    """How often a running level is saved."""

    every_seconds: float = field(
        20.0,
        "How long a level runs, at least, between two checkpoints.",
        **between(0.0, 1e9),
        unit="seconds",
    )


@dataclasses.dataclass(frozen=True)
class ExecutionSpec:
    """How runs are executed."""

    group_size: int = field(
        0,
        "How many runs train at once in one program, on each device; 0 is 1 on CPU, where results "
        "then repeat bit for bit, and all runs of a level elsewhere.",
        **between(0, 100_000, zero="automatic"),
        identity=False,
        unit="runs",
    )
    group_as: str = choice(
        "auto",
        ("auto", "vmap", "sequence", "unrolled"),
        "How the networks of a group are computed: all in each operation (`vmap`), one after the "
        "other (`sequence`), or that without a loop (`unrolled`); `auto` takes networks that are "
        "mostly convolutions in sequence, and `vmap` else.",
        identity=False,
    )
    workers: int = field(
        0,
        "How many groups train side by side; 0 is one for each core on CPU, and 1 elsewhere and on "
        "several devices.",
        **between(0, 1024, zero="automatic"),
        identity=False,
        unit="groups",
    )
    mesh: str = field(
        "auto",
        "The devices that runs are spread over: all that there are, or `runs:N`, the first N; each "
        "run is on one of them. `runs:N,data:M` are N times M: each run is on M, which share its "
        "batches, and agrees with one on a single device to rounding.",
        accepted="auto, runs:N, or runs:N,data:M, with N and M from 1 to 9,999",
        check=lambda value: (
            re.fullmatch(r"auto|runs:[1-9][0-9]{0,3}(,data:[1-9][0-9]{0,3})?", value) is not None
        ),
        identity=False,
    )
    precision: str = choice(
        "highest",
        ("highest", "high", "default"),
        "How exactly products of float32 are computed on GPU and TPU, in JAX's words: `highest` as "
        "on CPU, which has no other; `high` and `default` are faster (TF32 on GPU).",
    )
    compilation_cache: bool = field(
        False, "Whether compiled programs are kept in `data.cache_dir`.", identity=False
    )
