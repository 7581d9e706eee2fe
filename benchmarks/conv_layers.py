"""Milliseconds of single convolutions, dense and packed, beside what our rules say of them.

    python benchmarks/conv_layers.py                         # each layer of Conv-2 to -6, ResNet-20
    taskset -c 0 python benchmarks/conv_layers.py --rounds=9 # on one core, as the rules were fitted
    python benchmarks/conv_layers.py --nets=conv6 --densities=0.2,0.1

Forward and both gradients of every layer shape, at its network's batch size, in compiled loops:
dense by definition, dense by Winograd's way where the layer has it, and packed with random masks.
Contenders take turns; ratios are of their least times over all rounds, which company disturbs
least. `rule` is the ratio that `lth_jax/native/choice.py` reckons with; packing pays where a ratio
is below 1. Nothing here fails for being slow.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
from layer_cases import CONFIGS, Case, Operands, layers_of
from layers import Ours, repetitions
from options import densities_of, names_of, parser_of
from timing import load, take_turns, versions

from lth_jax.data.directories import resolve
from lth_jax.native import build
from lth_jax.native.choice import dense_time, packed_time
from lth_jax.native.dense_conv import dense_conv

NETS = tuple(net for net in CONFIGS if net != "lenet")


class Dense:
    """Computes a dense layer in a compiled loop."""

    def __init__(self, operands: Operands, winograd: bool):
        window = operands.case.window
        self.arguments = tuple(map(jnp.asarray, (operands.kernel, operands.x, operands.given)))

        @jax.jit
        def loop(repetitions, kernel, x, given):
            def body(_, carry):
                # Each repetition needs the one before, and an entry of each result is kept.
                kernel, *_ = carry
                y, back = jax.vjp(
                    lambda k, x: dense_conv(x, k, window.strides, window.padding, winograd),
                    kernel,
                    x,
                )
                gradient, dx = back(given)
                inward = dx[0, 0, 0, 0] if operands.inward else 0.0
                return kernel - 1e-12 * gradient, y[0, 0, 0, 0], inward

            return jax.lax.fori_loop(0, repetitions, body, (kernel, 0.0, 0.0))

        self.loop = loop

    def train(self, steps: int) -> tuple[float]:
        """Returns the seconds of that many repetitions."""
        start = time.perf_counter()
        jax.block_until_ready(self.loop(steps, *self.arguments))
        return (time.perf_counter() - start,)


def make_contenders(case: Case, densities: Sequence[float]) -> dict[str, Dense | Ours]:
    """Returns what computes a layer, by name; packed ones are named by their density."""
    # The gradient of a network's input is wanted of none: training has no use for it.
    dense = Operands(case, 1.0, whole=False)
    contenders: dict[str, Dense | Ours] = {"definition": Dense(dense, False)}
    if case.layer.winograd:
        contenders["winograd"] = Dense(dense, True)
    packed = {f"{share:g}": Ours(Operands(case, share, whole=False)) for share in densities}
    return contenders | packed


def report(case: Case, densities: Sequence[float], rounds: Sequence[dict[str, float]]) -> str:
    """Returns a line: least times of dense layers, and of packed ones as ratios to the faster."""
    least = {name: min(one[name] for one in rounds) for name in rounds[0]}
    dense = least.get("winograd", least["definition"])
    line = f"{case!s:<34}{least['definition']:>9.3f}"
    if "winograd" in least:
        line += f"{least['winograd']:>9.3f}{least['definition'] / dense:>7.2f}×"
    else:
        line += f"{'–':>9}{'':>8}"
    size = Operands(case, 1.0, whole=False).mask.size
    for share in densities:
        rule = packed_time(case.layer, round(share * size)) / dense_time(case.layer)
        line += f"{least[f'{share:g}'] / dense:>9.2f} ({rule:.2f})"
    return line


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--nets", default=",".join(NETS), help="any of these, by commas")
    parser.add_argument("--densities", default="0.3,0.2,0.15,0.1,0.06", help="by commas")
    parser.add_argument("--seconds", type=float, default=0.1, help="of a turn, about")
    options = parser.parse_args(arguments)
    options.nets = names_of(parser, "nets", options.nets, NETS)
    options.densities = densities_of(parser, options.densities)
    if options.rounds < 1 or not options.seconds > 0:
        parser.error("--rounds: accepted: 1 or more; --seconds: above 0")
    return options


def main(arguments: Sequence[str] | None = None) -> dict[Case, list[dict[str, float]]]:
    options = parse(arguments)
    print(f"{versions()}; {len(os.sched_getaffinity(0))} cores; load average {load()}")
    try:
        build.load(("dense_conv", "winograd_conv", "sparse_conv"), resolve().cache_dir / "kernels")
    except build.Unavailable as error:
        sys.exit(f"no native kernels to measure: {error}")
    shares = "".join(f"{f'{share:g} (rule)':>16}" for share in options.densities)
    print(f"\n{'layer':<34}{'by def.':>9}{'Winograd':>9}{'':>8}{shares}")
    cases = dict.fromkeys(case for net in options.nets for case in layers_of(net))
    found = {}
    for case in cases:
        if case.layer.kind != "conv":
            continue
        contenders = make_contenders(case, options.densities)
        steps = repetitions(contenders, options.seconds)
        found[case], company = take_turns(contenders, rounds=options.rounds, steps=steps, warmup=1)
        print(f"{report(case, options.densities, found[case])}  {company}", flush=True)
    return found


if __name__ == "__main__":
    main()
