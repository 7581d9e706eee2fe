"""Milliseconds of single pruned layers, forward and both gradients: ours, and SparseProp's.

    python benchmarks/layers.py                              # all layers at 10% and 5%
    python benchmarks/layers.py --nets=lenet,resnet20 --densities=0.1 --rounds=9

Every layer shape of LeNet-300-100, Conv-2, -4, -6 and ResNet-20, at its network's batch size, with
random masks. Ours is the packed kernel inside a compiled loop, as training has it. SparseProp
(Nikdan et al., ICML 2023; `sparseprop` on PyPI) is called eagerly, as its users call it; the better
of its two kinds of convolution counts. Images come as PyTorch's data, pooling and batch norm lay
them out; `--layout=own` lays them out as SparseProp's layers hand them to each other, which saves
it repacking. Its kernels over images compute wrong results where their number is no multiple of 8:
there it gets zero images up to one, and its time counts in proportion. It computes the gradient of
a network's input in any case; `--as-trained` leaves it out of ours. Results are compared before
anything is timed. Nothing here fails for being slow.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from layer_cases import CONFIGS, Case, Operands, layers_of
from options import densities_of, names_of, parser_of
from timing import load, ratios, spread, take_turns, versions

from lth_jax.data.directories import resolve
from lth_jax.native import build
from lth_jax.native.packing import Packed, layout_of

TARGET = 1.5  # how many times our time SparseProp's should be at least
LEAST_REPETITIONS = 8
AGREEMENT = 1e-4  # of the largest entry of a result


class Ours:
    """Computes our packed layer in a compiled loop."""

    def __init__(self, operands: Operands):
        case, mask = operands.case, operands.mask
        layout = layout_of({"kernel": int(mask.sum())}, {"kernel": mask.size}, mask.size)
        self.packed = Packed(layout, {"kernel": case.layer}, {"kernel": mask}).leaves["kernel"]
        self.arguments = (
            jnp.asarray(self.packed.pack(operands.kernel)),
            self.packed.tables,
            jnp.asarray(operands.x),
            jnp.asarray(operands.given),
        )

        def once(values, tables, x, given):
            y, back = jax.vjp(lambda v, x: case.product(v, tables, x), values, x)
            return y, *back(given)

        @jax.jit
        def loop(repetitions, values, tables, x, given):
            def body(_, carry):
                # Each repetition needs the one before, for all it computes, and an entry of each
                # result is kept: so nothing is hoisted out of the loop, and nothing left out.
                values, entry, _ = carry
                zero = (entry > 1e30).astype(jnp.int32)
                after = tables._replace(row_pointers=tables.row_pointers + zero)
                y, gradient, dx = once(values, after, x, given)
                inward = dx[(0,) * dx.ndim] if operands.inward else 0.0
                return values - 1e-12 * gradient, y[(0,) * y.ndim], inward

            return jax.lax.fori_loop(0, repetitions, body, (values, 0.0, 0.0))

        self.once, self.loop = jax.jit(once), loop

    def results(self) -> list[np.ndarray]:
        """Returns (output, gradient of the kernel, gradient of the input), in the layout of JAX."""
        y, gradient, dx = self.once(*self.arguments)
        return [np.asarray(y), self.packed.unpack(gradient), np.asarray(dx)]

    def train(self, steps: int) -> tuple[float]:
        """Returns the seconds of that many repetitions."""
        start = time.perf_counter()
        jax.block_until_ready(self.loop(steps, *self.arguments))
        return (time.perf_counter() - start,)


def make_contenders(operands: Operands, repacking: bool) -> dict[str, Any]:
    """Returns all contenders that can compute the layer here, except those with wrong results."""
    contenders: dict[str, Any] = {"ours": Ours(operands)}
    if not missing():
        from sparseprop_layers import contenders_of

        ours = contenders["ours"].results()
        for name, theirs in contenders_of(operands, repacking).items():
            # Theirs may lack the last, the gradient of the input.
            if all(agree(*pair) for pair in zip(ours, theirs.results(), strict=False)):
                contenders[name] = theirs
            else:
                print(f"{operands.case}: left out, since its results are others: {name}")
    return contenders


def missing() -> str:
    """Returns the names of the packages that SparseProp lacks here; empty if none."""
    names = [name for name in ("torch", "sparseprop") if not importlib.util.find_spec(name)]
    return " and ".join(names)


def agree(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Returns whether two results are the same but for rounding."""
    return bool(np.max(np.abs(ours - theirs)) <= AGREEMENT * max(1.0, np.max(np.abs(ours))))


def repetitions(contenders: dict[str, Any], seconds: float) -> int:
    """Returns how many repetitions of the slowest contender take about so many seconds.

    Some in any case: the first ones of a call mostly touch memory for the first time.
    """
    for contender in contenders.values():
        contender.train(1)  # compiles
    slowest = max(contender.train(3)[0] / 3 for contender in contenders.values())
    return max(LEAST_REPETITIONS, round(seconds / slowest))


def ratios_to_ours(rounds: Sequence[dict[str, float]]) -> list[float]:
    """Returns SparseProp's better time as a multiple of ours, in each round."""
    theirs = [name for name in rounds[0] if name != "ours"]
    return ratios(rounds, theirs, ["ours"])


def is_below(rounds: Sequence[dict[str, float]]) -> bool:
    """Returns whether the ratio of SparseProp to ours is below the target."""
    return len(rounds[0]) > 1 and bool(np.median(ratios_to_ours(rounds)) < TARGET)


def report(case: Case, density: float, rounds: Sequence[dict[str, float]]) -> str:
    """Returns a line with our time, and SparseProp's better one as a multiple of it."""
    line = f"{case!s:<36}{density:>5.3g}  {spread([one['ours'] for one in rounds])}"
    if len(rounds[0]) == 1:
        return line
    multiples = ratios_to_ours(rounds)
    theirs = [ratio * one["ours"] for ratio, one in zip(multiples, rounds, strict=True)]
    below = "  BELOW" if is_below(rounds) else ""
    return f"{line}{spread(theirs)}{spread(multiples, '{:.2f}')}≥ {TARGET}×{below}"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--nets", default=",".join(CONFIGS), help="any of these, by commas")
    parser.add_argument("--densities", default="0.1,0.05", help="by commas")
    parser.add_argument("--layout", choices=("contiguous", "own"), default="contiguous")
    parser.add_argument(
        "--as-trained",
        action="store_true",
        help="without the gradient of a network's input, for which training has no use",
    )
    parser.add_argument("--seconds", type=float, default=0.2, help="of a turn, about")
    options = parser.parse_args(arguments)
    options.nets = names_of(parser, "nets", options.nets, tuple(CONFIGS))
    options.densities = densities_of(parser, options.densities)
    if options.rounds < 1 or not options.seconds > 0:
        parser.error("--rounds: accepted: 1 or more; --seconds: above 0")
    return options


def main(arguments: Sequence[str] | None = None) -> dict[tuple[Case, float], list[Any]]:
    options = parse(arguments)
    print(f"{versions()}; {os.cpu_count()} cores; load average {load()}")
    try:
        for kind in ("sparse_product", "sparse_conv"):
            build.load(kind, resolve().cache_dir / "kernels")
    except build.Unavailable as error:
        sys.exit(f"no native kernels to measure: {error}")
    if missing():
        print(f"{missing()} not installed: SparseProp's columns are left out.")
    print(f"\n{'layer':<36}{'share':>5}  {'ours, ms':>8}  {'min–max':<14}", end="")
    print("" if missing() else f"{'theirs':>8}  {'min–max':<14}{'ratio':>8}  {'min–max':<14}target")
    found = {}
    for case in dict.fromkeys(case for net in options.nets for case in layers_of(net)):
        for density in options.densities:
            operands = Operands(case, density, not options.as_trained)
            contenders = make_contenders(operands, options.layout == "contiguous")
            steps = repetitions(contenders, options.seconds)
            found[case, density], company = take_turns(
                contenders, rounds=options.rounds, steps=steps, warmup=max(1, steps // 4)
            )
            print(f"{report(case, density, found[case, density])}  {company}", flush=True)
    below = [f"{case} at {share:g}" for (case, share), rounds in found.items() if is_below(rounds)]
    if not missing():
        print(f"below {TARGET}×: {'; '.join(below) or 'none'} (of {len(found)})")
    return found


if __name__ == "__main__":
    main()
