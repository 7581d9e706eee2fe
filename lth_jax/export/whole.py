"""A whole ticket in a file: mask, rewound state and trained network, with spec and metrics."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lth_jax.export import containers
from lth_jax.export.containers import Header
from lth_jax.pruning.trees import PyTree, named_leaves
from lth_jax.store.record import is_own
from lth_jax.store.tables import ResultRow, RunId
from lth_jax.training.states import TrainState

# The names of the arrays begin so.
PARTS = (
    "mask", "rewound/params", "rewound/model_state", "rewound/opt_state", "trained/params",
    "trained/model_state",
)  # fmt: skip


class Origin(NamedTuple):
    """Where a ticket comes from.

    Attributes:
      record: the run's own, as `spec.json` has it.
      network: which ticket, or branch's network.
      row: its result; None where it has not been recorded.
      layers: prunable leaf -> (kept, total).
    """

    record: Mapping[str, Any]
    network: RunId
    row: ResultRow | None
    layers: Mapping[str, tuple[int, int]]

    def metadata(self, kind: str) -> dict[str, str]:
        """Returns it as strings of JSON, and the kind of file as it is."""
        record = {n: v for n, v in self.record.items() if n not in ("format", "branches")}
        values = record | {
            **self.network._asdict(),
            "metrics": dataclasses.asdict(self.row) if self.row else {},
            "layers": self.layers,
        }
        return {name: json.dumps(value) for name, value in values.items()} | {"kind": kind}


def save(
    path: Path,
    file_format: str,
    origin: Origin,
    *,
    mask: PyTree,
    state: TrainState,
    step: int,
    trained: tuple[PyTree, PyTree],
) -> int:
    """Writes a ticket to exactly `path`; returns the size of the file in bytes.

    Args:
      path: the file.
      file_format: `safetensors` or `npz`.
      origin: where it comes from.
      mask: bool, the parameters' structure; kept as bits, eight in a byte, the highest first.
      state: the rewound state; the optimizer's is kept where `step` is above 0.
      step: the updates behind `state`.
      trained: parameters and model state of the trained network.

    Raises:
      StoreError: it cannot be written.
    """
    rewound = {"params": state.params, "model_state": state.model_state}
    if step:
        rewound["opt_state"] = state.opt_state
    arrays = {
        f"mask/{name}": np.packbits(np.asarray(leaf)) for name, leaf in named_leaves(mask).items()
    }
    arrays |= named_leaves({"rewound": rewound})
    arrays |= named_leaves({"trained": {"params": trained[0], "model_state": trained[1]}})
    metadata = origin.metadata(containers.TICKET) | {"step": str(step)}
    return containers.write(path, arrays, metadata, file_format)


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns arrays by name, masks as bools of their leaves' shapes, and metadata as objects.

    Raises:
      StoreError: the file is missing, damaged, of another kind or of another version.
    """
    arrays, metadata = containers.read(path, containers.TICKET, _check)
    for name in [name for name in arrays if name.startswith("mask/")]:
        like = arrays[name.replace("mask/", "rewound/params/", 1)]
        bits = np.unpackbits(arrays[name])
        arrays[name] = bits[: like.size].astype(bool).reshape(like.shape)
    return arrays, objects(metadata)


def _check(headers: Mapping[str, Header], metadata: Mapping[str, str]) -> None:
    """Raises a ValueError unless the arrays fit one another, and the metadata, as in a ticket."""
    facts = objects(metadata)
    for name in ("level", "replicate", "step"):
        if type(facts[name]) is not int or facts[name] < 0:
            raise ValueError(f"its {name} is {facts[name]!r}")
    if not isinstance(facts["spec"], dict):
        raise ValueError("its spec is none")
    if not is_own(facts.get("own")):
        raise ValueError("its own rows are none")
    parts: dict[str, dict[str, Header]] = {part: {} for part in PARTS}
    for name, header in headers.items():
        part = next((part for part in PARTS if name.startswith(f"{part}/")), None)
        if part is None:
            raise ValueError(f"an array {name}")
        parts[part][name.removeprefix(f"{part}/")] = header
    params = parts["rewound/params"]
    if not params or parts["mask"].keys() != params.keys():
        raise ValueError("its mask is not of its parameters")
    for name, header in params.items():
        mask = parts["mask"][name]
        if mask.dtype != np.uint8 or mask.shape != (-(-header.size // 8),):
            raise ValueError(f"the mask of {name} has {mask.size} bytes for {header.size} weights")
    if parts["trained/params"] != params:
        raise ValueError("its trained parameters are not the rewound ones' equals")
    if parts["trained/model_state"] != parts["rewound/model_state"]:
        raise ValueError("its trained statistics are not the rewound ones' equals")
    for name, (_, total) in facts["layers"].items():
        if params[name].size != total:
            raise ValueError(f"{name} has {params[name].size} weights, not {total}")
    largest = max(header.size for header in params.values())
    for name, header in headers.items():
        if header.size > largest:  # of statistics, and of the optimizer's state
            raise ValueError(f"{name} has {header.size} numbers")


def objects(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Returns metadata as they were before they were strings."""
    return {n: v if n in containers.TEXTS else json.loads(v) for n, v in metadata.items()}
