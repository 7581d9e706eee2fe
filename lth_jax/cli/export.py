"""`python -m lth_jax export RUN --level=N --format=F --out=FILE`: a ticket in a file of its own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lth_jax.cli.command import Parser, exit_status
from lth_jax.errors import DataError, SpecError

if TYPE_CHECKING:
    from lth_jax.config import Spec
    from lth_jax.export.views import View
    from lth_jax.export.whole import Origin
    from lth_jax.lottery.branches import StartPoint
    from lth_jax.pruning.trees import PyTree

DESCRIPTION = """Writes the ticket of a level to FILE, whole or not at all. safetensors and npz hold
all of it (mask, rewound and trained weights), for lth_jax.load_ticket; torch is a state_dict in
safetensors, with masks as torch.nn.utils.prune has them; compact is a smaller network with the same
logits, for lth_jax.load_compact."""
FORMATS = ("safetensors", "npz", "torch", "compact")
SETS = ("ticket", "trained")


class Source(NamedTuple):
    """What is exported.

    Attributes:
      origin: where it comes from; spec: the run's.
      ticket: mask and rewound state.
      trained: parameters and model state of the trained network.
      what: which of the two a format with one set of weights takes.
    """

    origin: Origin
    spec: Spec
    ticket: StartPoint
    trained: tuple[PyTree, PyTree]
    what: str

    def weights(self) -> tuple[PyTree, PyTree]:
        """Parameters and batch statistics of one network, on the host."""
        import jax

        params, model_state = self.trained
        if self.what == "ticket":
            params, model_state = self.ticket.state.params, self.ticket.state.model_state
        return jax.device_get((params, model_state.get("batch_stats", {})))


def main(arguments: Sequence[str]) -> int:
    """Writes the file and says what is in it; gives the exit status."""
    return exit_status(lambda: _export(_parser().parse(arguments)))


def _parser() -> Parser:
    parser = Parser(prog="python -m lth_jax export", description=DESCRIPTION)
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="the run directory")
    add("--level", type=int, required=True, metavar="N", help="which level's ticket")
    add("--replicate", type=int, default=0, metavar="R", help="of which replicate (0)")
    add("--format", choices=FORMATS, required=True, help="the form of the file")
    add("--out", type=Path, required=True, metavar="FILE", help="the file, named just so")
    add(
        "--what",
        choices=SETS,
        default="ticket",
        help="of torch and compact: the ticket's rewound weights (default) or the trained ones; "
        "safetensors and npz hold both",
    )
    return parser


def _export(options: argparse.Namespace) -> None:
    from lth_jax.config.custom import recall
    from lth_jax.export import tickets
    from lth_jax.store import RunDirectory

    if options.out.is_dir():
        raise SpecError(f"--out={options.out}: a folder is there; accepted: the name of a file")
    store = RunDirectory.read(options.run)
    recall(store.record_of_spec())
    level, replicate = options.level, options.replicate
    source = Source(
        origin=tickets.origin(store, level, replicate),
        spec=store.spec(),
        ticket=tickets.load_ticket(options.run, level, replicate),
        trained=tickets.load_trained(options.run, level, replicate),
        what=options.what,
    )
    writers = {"torch": _write_torch, "compact": _write_compact}
    writers.get(options.format, _write_whole)(source, options.format, options.out)


def _write_whole(source: Source, file_format: str, path: Path) -> None:
    from lth_jax.export import whole

    mask, state, step = source.ticket
    size = whole.save(
        path, file_format, source.origin, mask=mask, state=state, step=step, trained=source.trained
    )
    start = f"state of step {step} with the optimizer's" if step else "initial weights"
    _say(source, path, size, f"mask, {start}, trained weights")
    print(f"to load it: lth_jax.load_ticket({str(path)!r})")


def _write_torch(source: Source, _format: str, path: Path) -> None:
    from lth_jax.export import pytorch

    params, statistics = source.weights()
    name = source.spec.model.name
    try:
        if pytorch.is_custom(name):
            seen = view(source.spec)
            variables = {"params": params, "batch_stats": statistics}
            pytorch.check_layouts(seen.model, variables, seen.shape)
        arrays = pytorch.tensors(
            params,
            statistics,
            source.ticket.mask,
            prunable=source.origin.layers,
            flattened=pytorch.flattened_of(name, params, _channels(source.spec)),
        )
    except ValueError as error:
        if isinstance(error, SpecError | DataError):
            raise
        raise SpecError(f"--format=torch: {name} cannot go over: {error}") from None
    size = pytorch.save(path, source.origin, source.what, arrays)
    _say(source, path, size, f"a state_dict of {name} with the {SET_NAMES[source.what]}")
    print(
        f'to load it: prune.identity(layer, "weight") on the {len(source.origin.layers)} prunable '
        "layers, then module.load_state_dict(safetensors.torch.load_file(…))"
    )


def _write_compact(source: Source, _format: str, path: Path) -> None:
    from lth_jax.cli.compacting import compact

    compact(source, path)


SET_NAMES = {"ticket": "ticket's rewound weights", "trained": "trained weights"}


def _say(source: Source, path: Path, size: int, what: str) -> None:
    origin = source.origin
    kept, total = (sum(pair[i] for pair in origin.layers.values()) for i in (0, 1))
    print(f"{path}: {size:,} bytes, level {origin.level} of replicate {origin.replicate}")
    print(f"  {kept:,} of {total:,} weights kept ({kept / total:.2%}): {what}")


def view(spec: Spec) -> View:
    """What the run's networks look at.

    Raises:
      DataError: the data cannot be had.
    """
    from lth_jax.export.views import view

    return view(spec)


def _channels(spec: Spec) -> int:
    """The channels of the images that an MLP flattens; 1 where nothing depends on it."""
    from lth_jax import data

    if spec.model.name != "mlp":
        return 1
    facts = data.facts(spec.data.name)
    if spec.data.channels:
        return spec.data.channels
    return facts.shape[-1] if facts else view(spec).shape[-1]
