"""Builds native code on its first use, and loads it.

A library lies in a folder of this user's, and its name has a key of source, jaxlib, compiler and
processor: whatever changes one of them finds no library and builds its own. A library appears whole
or not at all (it is written aside and renamed), so processes that build at once do not disturb each
other.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.metadata
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax

from lth_jax.disk.files import replacing

SOURCE = Path(__file__).parent / "source"
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-pthread")
# Tried in this order: not every compiler knows the machine that it runs on.
TUNING = (("-march=native",), ())
# The kinds of native code, and the functions of each that XLA calls. A kind is a library of its
# own, built from `source/KIND.cc`. It need not be a layer: who wants a kind asks for it by name.
TARGETS = {
    "dense_product": ("DenseProductForward", "DenseProductKernelGradient"),
    "dense_conv": ("DenseConvForward", "DenseConvInputGradient", "DenseConvKernelGradient"),
    "sparse_product": (
        "SparseProductForward",
        "SparseProductForwardWithTiles",
        "SparseProductInputGradient",
        "SparseProductKernelGradient",
    ),
    "sparse_conv": ("SparseConvForward", "SparseConvInputGradient", "SparseConvKernelGradient"),
}
_TIMEOUT_SECONDS = 300


class Unavailable(Exception):
    """Native code cannot be had here; the message is one line that says why."""


def load(kinds: str | Sequence[str], folder: Path) -> None:
    """Makes native code known to XLA; builds the missing libraries side by side.

    Args:
      kinds: one or several keys of `TARGETS`.
      folder: where libraries are kept; created if need be.

    Raises:
      Unavailable: there is no compiler, a build fails, or the folder is not this user's alone.
    """
    wanted = (kinds,) if isinstance(kinds, str) else kinds
    missing = [kind for kind in wanted if kind not in _loaded]
    if not missing:
        return
    with ThreadPoolExecutor(len(missing)) as pool:
        libraries = list(pool.map(lambda kind: _open(kind, folder), missing))
    for kind, library in zip(missing, libraries, strict=True):
        for name in TARGETS[kind]:
            capsule = jax.ffi.pycapsule(getattr(library, name))
            jax.ffi.register_ffi_target(target(name), capsule, platform="cpu")
        _loaded[kind] = library


_loaded: dict[str, ctypes.CDLL] = {}  # XLA keeps pointers into them: they stay


def target(name: str) -> str:
    """Returns the name under which XLA knows a native function."""
    return f"lth_jax.{name}"


def _open(kind: str, folder: Path) -> ctypes.CDLL:
    """Returns the library of `kind`; builds it where there is none, or only a damaged one."""
    compiler = _compiler()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_private(folder)
        path = folder / f"{kind}-{_key(compiler)}.so"
        if path.exists():
            _check_private(path)
            with contextlib.suppress(OSError):
                return ctypes.CDLL(str(path))
        _build(kind, compiler, path)
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise Unavailable(f"what the compiler makes cannot be kept or loaded: {error}") from error


def _check_private(path: Path) -> None:
    """Checks that nobody but this user could write there, since to load a library is to run it.

    Raises:
      Unavailable: somebody else could.
    """
    found = path.stat()
    if hasattr(os, "getuid") and found.st_uid != os.getuid():
        raise Unavailable(f"another user owns {path}, so no compiler's output is taken there")
    if found.st_mode & 0o022:
        raise Unavailable(f"others can write {path}, so no compiler's output is taken there")


def _compiler() -> tuple[str, ...]:
    """Returns the command of `$CXX`, or `c++`.

    Raises:
      Unavailable: it does not exist.
    """
    command = tuple(shlex.split(os.environ.get("CXX") or "c++"))
    path = shutil.which(command[0]) if command else None
    if path is None:
        name = command[0] if command else "$CXX"
        raise Unavailable(f"no C++ compiler ({name} is not on the PATH; $CXX names another)")
    return path, *command[1:]


def _key(compiler: tuple[str, ...]) -> str:
    """Returns 16 hex digits of all that a library depends on."""
    parts = [*compiler, _version(compiler), *FLAGS, importlib.metadata.version("jaxlib")]
    parts += [platform.machine(), _processor()]
    for file in sorted((*SOURCE.glob("*.h"), *SOURCE.glob("*.cc"))):
        parts += [file.name, file.read_text(encoding="utf-8")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@functools.cache
def _version(compiler: tuple[str, ...]) -> str:
    return _call((*compiler, "--version")).stdout


@functools.cache
def _processor() -> str:
    """Returns what `-march=native` looks at: the home directory may be shared by other machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    names = ("flags", "Features", "model name")
    return "\n".join(dict.fromkeys(line for line in lines if line.startswith(names)))


def _build(kind: str, compiler: tuple[str, ...], path: Path) -> None:
    """Compiles `kind` to `path`, in place of whatever is there.

    Raises:
      Unavailable: no set of flags works; gives the compiler's first complaint.
    """
    source = str(SOURCE / f"{kind}.cc")
    include = f"-I{jax.ffi.include_dir()}"
    with replacing(path) as temporary:
        complaint = ""
        for tuning in TUNING:
            done = _call((*compiler, *FLAGS, *tuning, include, source, "-o", str(temporary)))
            if done.returncode == 0:
                temporary.chmod(0o700)
                return
            complaint = _complaint(done.stderr)
        raise Unavailable(f"the compiler {compiler[0]} fails: {complaint}")


def _call(command: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"the compiler {command[0]} cannot be run: {error}") from error


def _complaint(output: str) -> str:
    """Returns the first line of a compiler's output that is an error."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), lines[0] if lines else "no output")
