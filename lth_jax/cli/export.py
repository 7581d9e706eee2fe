"""`lth-jax export RUN --level=N --format=F --out=FILE`: a ticket in a file of its own."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.table import Table

from lth_jax import data
from lth_jax.cli.command import Parser, add_own_rows, exit_status
from lth_jax.cli.output import check_file
from lth_jax.errors import DataError, SpecError
from lth_jax.report.terminal import make_console
from lth_jax.store import RunDirectory
from lth_jax.store.tables import TRUNK, RunId
from lth_jax.system.streams import say, show

# The functions import what imports JAX: `--help` and a wrong argument need not wait for it.
if TYPE_CHECKING:
    from lth_jax.config import Spec
    from lth_jax.export.whole import Origin
    from lth_jax.lottery.start_points import StartPoint
    from lth_jax.pruning.trees import PyTree

DESCRIPTION = """Writes the ticket of a level to FILE, whole or not at all, or the network of a
branch. safetensors and npz hold all of it (mask, rewound and trained weights), for
lth_jax.load_ticket; torch is a state_dict in safetensors, with masks as torch.nn.utils.prune has
them; compact is a smaller network with the same logits, for lth_jax.load_compact."""
FORMATS = ("safetensors", "npz", "torch", "compact")
WEIGHTS = {"ticket": "ticket's rewound weights", "trained": "trained weights"}


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
        """Returns parameters and batch statistics of one network, on the host."""
        import jax

        params, model_state = self.trained
        if self.what == "ticket":
            params, model_state = self.ticket.state.params, self.ticket.state.model_state
        return jax.device_get((params, model_state.get("batch_stats", {})))

    def heading(self, path: Path, size: int) -> str:
        """Says which ticket is in a file of that many bytes."""
        _, level, replicate, _ = network = self.origin.network
        which = f"level {level} of replicate {replicate}" if network.branch == TRUNK else network
        return f"{path}: {size:,} bytes, {which}"


def main(arguments: Sequence[str]) -> int:
    """Writes the file and says what is in it; returns the exit status."""
    return exit_status(lambda: _export(_parser().parse(arguments)))


def _parser() -> Parser:
    parser = Parser("export", description=DESCRIPTION)
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="the run directory")
    add("--level", type=int, required=True, metavar="N", help="which level's ticket")
    add("--replicate", type=int, default=0, metavar="R", help="of which replicate (0)")
    add("--branch", default=TRUNK, metavar="NAME", help="of which branch, if its networks are kept")
    add("--draw", type=int, default=0, metavar="D", help="which of the branch's draws (0)")
    add("--format", choices=FORMATS, required=True, help="the form of the file")
    add("--out", type=Path, required=True, metavar="FILE", help="the file, named just so")
    add(
        "--what",
        choices=tuple(WEIGHTS),
        default="ticket",
        help="of torch and compact: the ticket's rewound weights (default) or the trained ones; "
        "safetensors and npz hold both",
    )
    add_own_rows(parser)
    return parser


def _export(options: argparse.Namespace) -> None:
    from lth_jax.training import backend

    with backend.prepared(lambda line: say(f"warning: {line}")):
        _write(options)


def _write(options: argparse.Namespace) -> None:
    from lth_jax.export import tickets
    from lth_jax.export.containers import is_ours
    from lth_jax.lottery.custom import recall

    check_file(options.out, is_ours, "file of this command")

    store = RunDirectory.read(options.run)
    # Called where the network itself is needed: whole tickets are arrays, and run nobody's code.
    recalled = partial(
        recall,
        options.run,
        store.record_of_spec(),
        store.spec(),
        "network",
        config=options.config,
        trust=options.trust,
    )
    network = RunId(options.branch, options.level, options.replicate, options.draw)
    source = Source(
        origin=tickets.origin(store, network),
        spec=store.spec(),
        ticket=tickets.ticket_to_export(
            options.run, network, config=options.config, trust=options.trust
        ),
        trained=tickets.load_trained(
            options.run, network.level, network.replicate, branch=network.branch, draw=network.draw
        ),
        what=options.what,
    )
    if options.format == "torch":
        _write_torch(source, options.out, recalled)
    elif options.format == "compact":
        if options.config or options.trust:  # without its data, random images do
            recalled()
        _write_compact(source, options.out)
    else:
        _write_whole(source, options.format, options.out)


def _write_whole(source: Source, file_format: str, path: Path) -> None:
    from lth_jax.export import whole

    mask, state, step = source.ticket
    size = whole.save(
        path, file_format, source.origin, mask=mask, state=state, step=step, trained=source.trained
    )
    show(source.heading(path, size))
    start = f"state of step {step} with the optimizer's" if step else "initial weights"
    show(_kept(source.origin, f"mask, {start}, trained weights"))
    show(f"to load it: lth_jax.load_ticket({str(path)!r})")


def _write_torch(source: Source, path: Path, recalled: Callable[[], None]) -> None:
    from lth_jax.export import pytorch
    from lth_jax.export.inference import Inference, inference_of

    params, statistics = source.weights()
    spec = source.spec
    name, facts = spec.model.name, data.facts(spec.data.name)

    def inference() -> Inference:
        recalled()
        return inference_of(spec)

    def channels() -> int:
        return spec.data.channels or (facts.shape if facts else inference().shape)[-1]

    try:
        if pytorch.is_custom(name):
            found = inference()
            variables = {"params": params, "batch_stats": statistics}
            pytorch.check_layouts(found.model, variables, found.shape)
        arrays = pytorch.tensors(
            params,
            statistics,
            source.ticket.mask,
            prunable=source.origin.layers,
            flattened=pytorch.flattened_of(name, params, channels),
        )
    except (SpecError, DataError):
        raise
    except ValueError as error:
        raise SpecError(f"--format=torch: {name} cannot go over: {error}") from None
    show(source.heading(path, pytorch.save(path, source.origin, source.what, arrays)))
    show(_kept(source.origin, f"a state_dict of {name} with the {WEIGHTS[source.what]}"))
    show(
        f'to load it: prune.identity(layer, "weight") on the {len(source.origin.layers)} prunable '
        "layers, then module.load_state_dict(safetensors.torch.load_file(…))"
    )


def _write_compact(source: Source, path: Path) -> None:
    """Writes the compact form, provided that its logits are the original's."""
    import jax

    from lth_jax.export import compact, compaction, shrinking

    original = compaction.original_of(source.spec, *source.weights())
    mask = jax.device_get(source.ticket.mask)
    shrunk = shrinking.shrink(
        original.layers, original.params, mask, original.statistics, original.shape
    )
    packed = compact.pack(shrunk, original.pixels, original.shape)
    network = compact.unpack(*packed)  # as it will be read
    difference = compaction.difference(original, network)
    size = compact.save(path, source.origin, source.what, packed)

    table = Table(box=None, pad_edge=False)
    for name in ("", "dense", "compact", "share"):
        table.add_column(name, justify="right" if name else "left")
    for name, (dense, small) in compaction.counts(original, mask, network, size).items():
        table.add_row(name, f"{dense:,}", f"{small:,}", f"{small / dense:.1%}")
    for name, (dense, small) in compaction.milliseconds(original, network).items():
        table.add_row(name, f"{dense:.3f}", f"{small:.3f}", f"{small / dense:.1%}")
    units = [f"{name} {left.sum():,} of {len(left):,}" for name, left in shrunk.units.items()]
    console = make_console()
    console.print(f"{source.heading(path, size)}, the {WEIGHTS[source.what]}", soft_wrap=True)
    console.print(table)
    console.print(
        f"units left: {', '.join(units)}\n"
        f"logits: the same to {difference:.1e}, on {original.origin}\n"
        "FLOPs: of linear layers and convolutions, zeros counted; bytes: arrays as they are, and "
        f"the whole file; milliseconds: medians on {jax.devices()[0].device_kind}. Units that went "
        "save time; pruned weights among those that stay do not, they are computed as zeros.\n"
        f"to load it: lth_jax.load_compact({str(path)!r})",
        soft_wrap=True,
    )


def _kept(origin: Origin, what: str) -> str:
    kept, total = (sum(pair[i] for pair in origin.layers.values()) for i in (0, 1))
    return f"  {kept:,} of {total:,} weights kept ({kept / total:.2%}): {what}"
