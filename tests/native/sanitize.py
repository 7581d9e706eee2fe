"""Runs native code under the sanitizers: `python tests/native/sanitize.py [address] [thread]`.

Needs a C++ compiler that has them (`$CXX` or `c++`), neither JAX nor XLA. Compiles the driver in
`sanitize/`, which calls every native function over the tests' shapes and compares with naive loops,
runs it, and ends with 0 where nothing was found.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[1] / "lth_jax" / "native" / "source"
SANITIZERS = {
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-fsanitize=thread"],
}
# With and without the machine's own instructions: vectors have other lengths there. GCC notes that
# vectors as arguments are passed otherwise without them, which concerns no inline function.
FLAGS = ["-std=c++17", "-O1", "-g", "-pthread", "-Wall", "-Werror", "-Wno-psabi"]
FLAGS += ["-DLTH_EXACT_SCRATCH"]
TUNINGS = (("-march=native",), ())


def compiler() -> list[str]:
    """Returns the command of `$CXX`, or `c++`."""
    return shlex.split(os.environ.get("CXX") or "c++")


def build(sanitizer: str, tuning: tuple[str, ...], path: Path) -> None:
    """Compiles the driver to `path`."""
    sources = [str(source) for source in sorted((HERE / "sanitize").glob("*.cc"))]
    flags = [*FLAGS, *SANITIZERS[sanitizer], *tuning, f"-I{SOURCE}", f"-I{HERE / 'sanitize'}"]
    subprocess.run([*compiler(), *flags, *sources, "-o", str(path)], check=True)


def main(names: list[str]) -> int:
    """Builds and runs the driver under each sanitizer named; returns the exit status."""
    unknown = set(names) - set(SANITIZERS)
    if unknown:
        print(f"no sanitizer {sorted(unknown)}; there are {sorted(SANITIZERS)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        driver = Path(folder) / "driver"
        for name in names or SANITIZERS:
            for tuning in TUNINGS:
                print(" ".join([name, *tuning]), end=": ", flush=True)
                try:
                    build(name, tuning, driver)
                    subprocess.run([str(driver)], check=True)
                except (OSError, subprocess.CalledProcessError) as error:
                    print(error, file=sys.stderr)
                    return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
