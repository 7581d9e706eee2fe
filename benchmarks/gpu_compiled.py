"""Compiles the programs of `gpu_programs` for an H100 where there is none, and counts in them.

XLA compiles for a card that it is told of. What it would choose by timing on the card (the tiles of
a product, a library's way of a convolution) it takes by its rules instead, so a card may run other
kernels than these; it runs as many, save where a library takes several for one call.
"""

from __future__ import annotations

import csv
import dataclasses
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import thunks
from gpu_programs import beginnings
from thunks import Counts

from lth_jax.errors import SpecError, first_line
from lth_jax.lottery.experiment import Experiment
from lth_jax.training.backend import precise

TARGET = Path(__file__).with_name("gpu_h100.txtpb")
RECORDED = Path(__file__).with_name("gpu_compiled.csv")
# So much more memory passes as the same: addresses are rounded up by rules that change.
MEMORY_SLACK = 1.01


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What a net's programs take, as compiled.

    Attributes:
      net: its name.
      runs: how many train in one program.
      block: how many steps one turn of the loop takes.
      turn: what such a turn takes.
      rest: what a step of the rest takes, which fills no block; of `turn` where blocks are one.
      train_bytes, evaluate_bytes, test_bytes: the memory of each program at its peak: its
        arguments, results and all between.
      jax: the version that compiled it.
      loose: how many products of any of the three are less exact than `highest`, which is what
        experiments ask for; not in the table, where there should be none.
    """

    net: str
    runs: int
    block: int
    turn: Counts
    rest: Counts
    train_bytes: int
    evaluate_bytes: int
    test_bytes: int
    jax: str = jax.__version__
    loose: int = 0

    @property
    def step(self) -> tuple[float, ...]:
        """What a step takes within a block: kernels, launches and waits."""
        return tuple(count / self.block for count in self.turn)

    def to_row(self) -> dict[str, Any]:
        """Returns it as a row of the recorded table."""
        row = {"jax": self.jax} | dataclasses.asdict(self)
        del row["loose"]
        for part in ("turn", "rest"):
            row |= {f"{part}_{name}": n for name, n in row.pop(part)._asdict().items()}
        return row

    @classmethod
    def from_row(cls, row: dict[str, str]) -> Compiled:
        """Returns what a row of the recorded table says."""
        counts = {
            part: Counts(*(int(row[f"{part}_{name}"]) for name in Counts._fields))
            for part in ("turn", "rest")
        }
        numbers = ("runs", "block", "train_bytes", "evaluate_bytes", "test_bytes")
        return cls(row["net"], **{n: int(row[n]) for n in numbers}, **counts, jax=row["jax"])


def target() -> Any:
    """Returns the card that is compiled for, as a device of JAX.

    Raises:
      SpecError: this installation cannot compile for GPUs.
    """
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(
            platform="cuda", target_config=TARGET.read_text(), topology="1x1x1"
        ).devices[0]
    except Exception as error:  # of a kind that differs by what is missing
        raise SpecError(
            f"nothing can be compiled for a GPU here ({first_line(error)}); accepted: "
            f'pip install "jax[cuda12]=={jax.__version__}", or of it jax-cuda12-plugin, '
            "jax-cuda12-pjrt and nvidia-cuda-nvcc-cu12 alone"
        ) from None


def compile_for(device: Any, net: str, runs: int, e: Experiment) -> Compiled:
    """Compiles an experiment's programs for a device that need not be there.

    Args:
      device: what `target` gave.
      net: the experiment's name.
      runs: how many train in one program.
      e: the experiment, whose arrays lie where they lie: shapes are all that is looked at.
    """
    there = jax.sharding.SingleDeviceSharding(device)

    def shapes(tree: Any) -> Any:
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=there), tree
        )

    run, inputs = jax.eval_shape(lambda: beginnings(e, runs))
    args = [shapes(tree) for tree in (run, inputs, e.train, e.validation, e.test)]
    e.together  # noqa: B018  it takes arrays to find out, and is kept
    # JAX traces for the device that is its default one; no array is made there.
    with jax.default_device(device), precise(e.spec.execution.precision):
        program = e.program(runs)
        lowered = program.lowered(*args)
        # There is no card to time kernels on.
        made = {n: compiled(one, xla_gpu_autotune_level=0) for n, one in lowered.items()}
    trained, listings = made["train"]
    turn, rest = counts_of_steps(listings, program.block, trained.as_text())
    memory = {
        f"{name}_bytes": int(executable.memory_analysis().peak_memory_in_bytes)
        for name, (executable, _) in made.items()
    }
    loose = sum(loose_products(executable.as_text() or "") for executable, _ in made.values())
    return Compiled(net, runs, program.block, turn, rest, **memory, loose=loose)


_PRODUCT = re.compile(r" (dot|convolution)\(|custom_call_target=\"__(cudnn\$conv|cublas)")


def loose_products(program: str) -> int:
    """Returns how many products of a compiled program may be less exact than `highest`.

    Args:
      program: as XLA writes it, an operation a line.
    """
    products = [line for line in program.splitlines() if _PRODUCT.search(line)]
    # A bias, which a library adds, comes third.
    return sum("operand_precision={highest,highest" not in line for line in products)


def compiled(lowered: jax.stages.Lowered, **options: Any) -> tuple[jax.stages.Compiled, list[str]]:
    """Compiles a program for a GPU, with some of XLA's options; returns XLA's lists of it, too."""
    with tempfile.TemporaryDirectory(prefix="lth_jax_xla_") as folder:
        executable = lowered.compile(
            compiler_options={"xla_dump_to": folder, "xla_dump_hlo_as_text": True, **options}
        )
        return executable, thunks.listings(Path(folder))


def counts_of_steps(
    listings: Sequence[str], block: int, program: str | None = None
) -> tuple[Counts, Counts]:
    """Returns what a turn of the loop over blocks takes, and one of the loop over the rest.

    Args:
      listings: of training's program.
      block: how many steps a turn takes.
      program: as XLA writes it; without it a loop within a step counts as one turn.

    Raises:
      ValueError: it is not one list, or it does not say so.
    """
    if len(listings) != 1:
        raise ValueError(f"XLA dumped {len(listings)} lists of operations; expected one")
    # The loop over epochs holds that over blocks and that over the rest; without blocks, one.
    found = thunks.turns(thunks.parse(listings[0], program), within=1)
    if len(found) != (1 if block == 1 else 2):
        raise ValueError(f"{len(found)} loops over steps in an epoch, where blocks are of {block}")
    return found[0], found[-1]


# The table


HEADING = (
    f"{'net':<10}{'runs':>5}{'block':>6} |{'kernels':>8}{'launches':>9}{'waits':>6} |"
    f"{'kernels':>8}{'launches':>9}{'waits':>6} |{'training':>9}{'evaluation':>11}{'test':>7}"
)
HEADINGS = (
    f"{'':<22}|{'a step within a block':^23} |{'a step of the rest':^23} |{'MB at peak':^27}",
    HEADING,
)


def line(one: Compiled) -> str:
    """Returns the line of a program in the printed table."""
    kernels, launches, waits = one.step
    rest = one.rest
    megabytes = [
        f"{size / 1e6:,.0f}" for size in (one.train_bytes, one.evaluate_bytes, one.test_bytes)
    ]
    return (
        f"{one.net:<10}{one.runs:>5}{one.block:>6} |{kernels:>8.1f}{launches:>9.1f}{waits:>6.2f} |"
        f"{rest.kernels:>8}{rest.launches:>9}{rest.waits:>6} |"
        f"{megabytes[0]:>9}{megabytes[1]:>11}{megabytes[2]:>7}"
    )


def recorded() -> dict[tuple[str, int], Compiled]:
    """Returns the recorded table, by net and number of runs; empty where there is none."""
    if not RECORDED.exists():
        return {}
    with RECORDED.open(newline="") as file:
        rows = map(Compiled.from_row, csv.DictReader(file))
        return {(row.net, row.runs): row for row in rows}


def record(found: Iterable[Compiled], order: Sequence[tuple[str, int]]) -> None:
    """Writes rows into the recorded table; those of other programs stay.

    Args:
      found: the rows.
      order: of all that there are, by net and number of runs.
    """
    table = recorded() | {(row.net, row.runs): row for row in found}
    rows = [table[key].to_row() for key in order if key in table]
    with RECORDED.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def compare(one: Compiled, before: Compiled | None) -> tuple[list[str], list[str]]:
    """Returns what is worse than it was recorded, and what is better, a phrase each.

    Raises:
      SpecError: it was not recorded, or compiled by another version of jax, or in other blocks.
    """
    name = f"{one.net}, {one.runs} runs"
    if before is None:
        raise SpecError(f"{name}: not in {RECORDED.name}; --record adds it")
    for what in ("jax", "block"):
        here, there = getattr(one, what), getattr(before, what)
        if here != there:
            raise SpecError(f"{name}: {what} {here}; accepted: {there}, as in {RECORDED.name}")
    worse, better = [], []
    if one.loose:
        worse.append(f"{name}: {one.loose:,} products less exact than `highest`")
    then = before.to_row()
    for field, now in one.to_row().items():
        if not isinstance(now, int) or field in ("runs", "block"):
            continue
        slack = MEMORY_SLACK if field.endswith("_bytes") else 1
        if now > then[field] * slack:
            worse.append(f"{name}: {field} {now:,}, recorded {then[field]:,}")
        elif now * slack < then[field]:
            better.append(f"{name}: {field} {now:,}, recorded {then[field]:,}")
    return worse, better
