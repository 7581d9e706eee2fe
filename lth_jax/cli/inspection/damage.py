"""What is wrong with a run directory, one line for each thing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from lth_jax.cli.inspection.kept import Kept
from lth_jax.config import Spec
from lth_jax.store import level_name
from lth_jax.store.tables import CURVES, TRUNK, ResultRow

LEFTOVERS = (
    ".*.tmp", "checkpoints/.*.tmp", "checkpoints/*/.*.tmp", "metrics/*/.*.tmp", "figures/.*.tmp",
)  # fmt: skip


def of_checkpoints(checkpoints: Mapping[str, Kept]) -> Iterator[str]:
    """The checkpoints whose bytes are not those that were written."""
    for name, kept in checkpoints.items():
        if kept.damage:
            yield f"checkpoints/{name}: {kept.damage}"


def missing_checkpoints(
    rows: Iterable[ResultRow], checkpoints: Mapping[str, Kept], spec: Spec | None
) -> Iterator[str]:
    """Checkpoints that the rows of the trunk promise and that are not there."""
    rows = [row for row in rows if row.branch == TRUNK]
    names = {f"replicate_{row.replicate}/initial": None for row in rows}
    if spec and not re.fullmatch(r"0+(ep)?", spec.rewind.step):
        names |= {f"replicate_{row.replicate}/rewind": None for row in rows}
    names |= {f"replicate_{row.replicate}/{level_name(row.level)}": None for row in rows}
    for name in names:
        if name not in checkpoints:
            yield f"checkpoints/{name} is missing, though results.csv has its run"


def of_curves(path: Path, rows: Iterable[ResultRow]) -> Iterator[str]:
    """Training curves that cannot be read, or that the rows promise and that are not there."""
    known = {f"metrics/{row.branch}/{level_name(row.level)}.csv": None for row in rows}
    found = sorted(file.relative_to(path).as_posix() for file in path.glob("metrics/*/level_*.csv"))
    for name in dict.fromkeys((*known, *found)):
        try:
            CURVES.from_csv((path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            if name in known:
                yield f"{name} is missing, though results.csv has its runs"
        except (OSError, ValueError) as error:
            yield f"{name} is damaged: {error}"


def leftovers(path: Path) -> list[str]:
    """What a killed save left behind; harmless, and removed by the next start."""
    return sorted(
        found.relative_to(path).as_posix() for pattern in LEFTOVERS for found in path.glob(pattern)
    )
