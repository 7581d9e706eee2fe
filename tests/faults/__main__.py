"""`python -m tests.faults`: injects faults for some minutes, and prints a table of what came.

`--seed` decides all of it. What went wrong is printed with kind and number; `--only=KIND:NUMBER`
repeats that one fault.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

from .disk import VARIABLE, compile_library

MOST_MEMORY = 12 * 2**30


def main() -> int:
    """Runs the campaign; returns 1 where something was lost, wrong, or ended in a traceback."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    add = parser.add_argument
    add("--minutes", type=float, default=2.0, help="how long faults are injected (2)")
    add("--each", type=int, metavar="N", help="N of each kind instead, however long")
    add("--seed", default="0", help="of all that is chosen (0)")
    add("--only", metavar="KIND[:NUMBER]", help="only these kinds, with commas, or one fault")
    add("--scenarios", help="only these, with commas between them")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lth_jax_faults_") as folder:
        if VARIABLE not in os.environ:  # the library has to be there before anything else
            os.environ[VARIABLE] = str(compile_library(Path(folder)))
            command = [sys.executable, "-m", "tests.faults", *sys.argv[1:]]
            return os.spawnve(os.P_WAIT, sys.executable, command, os.environ)
        return _run(options, Path(folder).resolve())


def _run(options: argparse.Namespace, folder: Path) -> int:
    warnings.simplefilter("ignore")
    sys.stdin = open(os.devnull)  # noqa: SIM115  nobody answers a command that asks
    # What reads without an end is to fail here, and not in another process of this machine.
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    os.environ["JAX_PLATFORMS"] = "cpu"
    from lth_jax.data.directories import resolve

    programs = resolve().cache_dir / "tests"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(programs))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    from . import campaign as campaigns
    from . import scenarios
    from .disk import Disk

    kind, _, number = str(options.only or "").partition(":")
    kinds = kind.split(",") if kind else list(campaigns.KINDS)
    names = [one.name for one in scenarios.SCENARIOS]
    campaign = campaigns.Campaign(folder, options.seed, Disk())
    began = time.monotonic()
    try:
        with scenarios.in_process():
            campaign.prepare(options.scenarios.split(",") if options.scenarios else names)
            if set(kinds) & {*campaigns.NEED_PROCESSES}:
                campaign.processes.start()
            print(f"prepared in {time.monotonic() - began:.0f} s", flush=True)
            if number:
                campaign.inject(kind, int(number))
            elif options.each:
                for one in kinds:
                    for index in range(options.each):
                        campaign.inject(one, index)
            else:
                campaigns.run(campaign, 60 * options.minutes, kinds)
    finally:
        campaign.processes.close()
    print(f"\nseed {options.seed}, {time.monotonic() - began:.0f} s\n")
    print(campaigns.table(campaign))
    return 1 if campaign.problems else 0


if __name__ == "__main__":
    sys.exit(main())
