"""What a GPU makes of our programs: measured on one, or compiled for one that is not there.

    python benchmarks/gpu.py                                     # on a GPU: under ten minutes
    python benchmarks/gpu.py --protocol                          # and LeNet's protocol for real
    python benchmarks/gpu.py --compile-only                      # anywhere: kernels, waits, memory
    python benchmarks/gpu.py --compile-only --programs=lenet --check
    python benchmarks/gpu.py --platform=cpu --quick              # tries this file without a GPU

On a GPU it trains each network for ten steps there and on the CPU and compares the weights, times
steps of one run and of several in one program, counts kernels, and reckons how long the paper's
protocol of LeNet takes. MNIST is enough: CIFAR-10 has a stand-in of its shape where it is absent.

With `--compile-only` XLA compiles the programs that training and evaluation use for an H100 that
`gpu_h100.txtpb` describes. It needs `jax[cuda12]`, or of it jax-cuda12-plugin, jax-cuda12-pjrt and
nvidia-cuda-nvcc-cu12 alone, and no GPU. `--check` fails where a count is worse than the recorded
one in `gpu_compiled.csv`, which `--record` writes.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA tells of drivers that are not there

import gpu_compiled
import gpu_measured
import jax
from gpu_measured import Source, Timed
from gpu_programs import NETS, build, spec_of
from options import add_data, names_of, parser_of, start
from timing import load, versions

from lth_jax.errors import SpecError, UserError, first_line
from lth_jax.lottery import experiment as experiments

PROGRAMS = [(net, runs) for net, chosen in NETS.items() for runs in chosen.runs]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of(__doc__, rounds=3)
    parser.add_argument("--programs", default=",".join(NETS), help="of these networks, by commas")
    parser.add_argument(
        "--block", type=int, default=experiments.BLOCK, help="steps in a turn of a GPU's loop"
    )
    measured = parser.add_argument_group("on a GPU")
    measured.add_argument("--platform", choices=("gpu", "cpu"), default="gpu")
    measured.add_argument("--quick", action="store_true", help="networks so small that CPUs do")
    measured.add_argument(
        "--minutes", type=float, default=8, help="after these no further program is begun"
    )
    measured.add_argument("--protocol", action="store_true", help="LeNet's protocol for real, too")
    add_data(parser)
    compiled = parser.add_argument_group("without a GPU")
    compiled.add_argument("--compile-only", action="store_true", help="compile and count, no more")
    compiled.add_argument("--record", action="store_true", help="keep the counts")
    compiled.add_argument("--check", action="store_true", help="fail where a count is worse")
    options = parser.parse_args(arguments)
    options.programs = names_of(parser, "programs", options.programs, tuple(NETS))
    kept = options.record or options.check
    if kept and not options.compile_only:
        parser.error("--record and --check: accepted: with --compile-only")
    if options.block < 1 or (kept and options.block != experiments.BLOCK):
        parser.error(f"--block: accepted: 1 or more; as it is, {experiments.BLOCK}, in the record")
    if options.rounds < 1 or options.minutes <= 0:
        parser.error("--rounds and --minutes: accepted: 1 or more, and more than 0")
    return options


def compile_only(options: argparse.Namespace) -> None:
    """Compiles all programs that are asked for, one after another, and prints the table.

    Raises:
      SpecError: nothing can be compiled for GPUs here, or there is nothing to compare with.
    """
    jax.config.update("jax_platforms", "cpu")
    device = gpu_compiled.target()
    print(f"{versions()}; compiled for {device.device_kind}, not run\n")
    print("\n".join(gpu_compiled.HEADINGS), flush=True)
    found, worse, better = [], [], []
    before, began = gpu_compiled.recorded(), time.perf_counter()
    for net in options.programs:
        e = build(spec_of(net), "synthetic", "")
        for runs in NETS[net].runs:
            one = gpu_compiled.compile_for(device, net, runs, e)
            print(gpu_compiled.line(one), flush=True)
            found.append(one)
            if options.check:
                more = gpu_compiled.compare(one, before.get((net, runs)))
                worse, better = worse + more[0], better + more[1]
    print(f"\n{len(found)} programs in {time.perf_counter() - began:.0f} s")
    if options.record:
        gpu_compiled.record(found, PROGRAMS)
        print(f"recorded in {gpu_compiled.RECORDED}")
    for phrase in better:
        print(f"better (--record keeps it): {phrase}")
    if worse:
        sys.exit("\n".join(f"WORSE: {phrase}" for phrase in worse))


def devices(platform: str) -> tuple[jax.Device, jax.Device]:
    """Returns the device that is measured, and the CPU.

    Raises:
      SpecError: there is no such device.
    """
    jax.config.update("jax_platforms", "cpu" if platform == "cpu" else "cuda,cpu")
    try:
        there, here = jax.local_devices()[0], jax.local_devices(backend="cpu")[0]
        why = "" if there.platform == platform else f"JAX takes {there.platform}"
    except RuntimeError as error:
        why = first_line(error)
    if why:
        raise SpecError(
            f"no GPU can be used here ({why}); accepted: --compile-only, or --platform=cpu "
            "--quick, which tries what needs none"
        )
    return there, here


def measure(options: argparse.Namespace) -> dict[tuple[str, int], Timed]:
    """Compares weights, times programs, and reckons the protocol; prints what it finds.

    Raises:
      SpecError: there is no GPU.
    """
    there, here = devices(options.platform)
    began = time.perf_counter()
    small = {net: NETS[net].small for net in NETS} if options.quick else {}
    source = Source(options.data, options.data_dir, small)
    print(f"{versions()}; {there.device_kind} ({there.platform}); load average {load()}\n")
    differ = compare_weights(options, source, there, here)

    print(f"\n{gpu_measured.HEADING}", flush=True)
    timed, left_out = {}, []
    for net in options.programs:
        e = source.experiment(net)
        for runs in gpu_measured.runs_timed(net, e.spec, options.quick):
            if time.perf_counter() - began > 60 * options.minutes:
                left_out.append(f"{net} {runs}")
                continue
            timed[net, runs] = gpu_measured.measure(e, runs, options.rounds)
            print(gpu_measured.line(net, runs, timed[net, runs]), flush=True)
    if left_out:
        print(f"left out, as {options.minutes:g} minutes were over: {', '.join(left_out)}")
    reckon(source, timed)
    print(f"\nall in {time.perf_counter() - began:.0f} s")
    if options.protocol:
        seconds = gpu_measured.run_protocol(source, (*_FEW, *small["lenet"]) if small else ())
        print(f"{gpu_measured.PROTOCOL}, run: {seconds / 60:.1f} minutes; aim: {_PROTOCOL_AIM}")
    if differ:
        sys.exit(f"OTHER NUMBERS THAN ON THE CPU: {', '.join(differ)}")
    return timed


# A protocol as short as it can be, to try this file by.
_FEW = ("levels=1", "train.steps=20", "eval.every=10")
_PROTOCOL_AIM = f"under {gpu_measured.PROTOCOL_AIM_MINUTES:g}"


def compare_weights(
    options: argparse.Namespace, source: Source, there: jax.Device, here: jax.Device
) -> list[str]:
    """Prints how far weights are from the CPU's after ten steps; names the nets that are too far.

    `default` stands beside `highest` to show what less exact products make.
    """
    most = gpu_measured.MOST_DIFFERENCE
    print(
        f"weights after {gpu_measured.COMPARED_STEPS} steps of {gpu_measured.COMPARED_RUNS} runs, "
        f"by how much they differ from the CPU's, as a share of the way they went; at `highest` "
        f"{most:g} at most:"
    )
    far = []
    for net in ("lenet", "conv2", "resnet20"):
        if net not in options.programs:
            continue
        exact, default = (
            gpu_measured.difference(net, source, there, here, precision)
            for precision in ("highest", "default")
        )
        print(f"  {net:<10}{exact:.1e} at highest, {default:.1e} at default", flush=True)
        if not exact <= most:
            far.append(net)
    return far


def reckon(source: Source, timed: Mapping[tuple[str, int], Timed]) -> None:
    """Prints how long LeNet's protocol takes by the times of its programs, if they were timed."""
    e = source.experiment("lenet")
    groups = gpu_measured.groups_of(e.spec)
    of_lenet = {runs: one for (net, runs), one in timed.items() if net == "lenet"}
    if not all(runs in of_lenet for _, runs in groups):
        return
    minutes = gpu_measured.reckoned(e, of_lenet) / 60
    levels = " and ".join(f"{levels} of {runs} runs" for levels, runs in groups)
    print(
        f"\n{gpu_measured.PROTOCOL}, {levels}, {e.spec.train.steps} steps each: {minutes:.1f} "
        f"minutes of training and evaluation, reckoned; aim, all included: {_PROTOCOL_AIM}"
    )


def main(arguments: Sequence[str] | None = None) -> dict[tuple[str, int], Timed] | None:
    options = parse(arguments)
    experiments.BLOCK = options.block
    try:
        return compile_only(options) if options.compile_only else measure(options)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    start(main)
