"""Builds native code on its first use, and loads it.

A library lies in a folder of this user's, and its name has a key of source, jaxlib, compiler and
processor: whatever changes one of them finds no library and builds its own. After the key stands a
checksum of its content, since to load one that was cut short kills the process: a damaged one is
built again. A library appears whole or not at all (it is written aside, synced and renamed), so
processes that build at once do not disturb each other.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.metadata
import logging
import os
import platform
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import jax

from lth_jax.disk.files import check_private, private_folder, read_bytes, write_bytes
from lth_jax.errors import StoreError, first_line
from lth_jax.system.signals import undisturbed, undone_if_ended

SOURCE = Path(__file__).parent / "source"
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-pthread")
# Tried in this order: not every compiler knows the machine that it runs on.
TUNING = (("-march=native",), ())
# The kinds of native code, and the functions of each that XLA calls. A kind is a library of its
# own, built from `source/KIND.cc`. It need not be a layer: who wants a kind asks for it by name.
TARGETS = {
    "chain": ("ChainLossAndGradients", "ChainLogits"),
    "loop": ("EpochOrder", "GatherRows", "UpdateByAdam", "UpdateByMomentum"),
    "dense_product": ("DenseProductForward", "DenseProductKernelGradient"),
    "dense_conv": ("DenseConvForward", "DenseConvInputGradient", "DenseConvKernelGradient"),
    "winograd_conv": (
        "WinogradConvForward",
        "WinogradConvInputGradient",
        "WinogradConvKernelGradient",
    ),
    "sparse_product": (
        "SparseProductForward",
        "SparseProductForwardWithTiles",
        "SparseProductInputGradient",
        "SparseProductKernelGradient",
    ),
    "sparse_conv": ("SparseConvForward", "SparseConvInputGradient", "SparseConvKernelGradient"),
}
_TIMEOUT_SECONDS = 300
_log = logging.getLogger(__name__)


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
    with _loading:
        _load([kind for kind in wanted if kind not in _loaded], folder)


def _load(missing: Sequence[str], folder: Path) -> None:
    if not missing:
        return
    try:
        for kind, library in zip(missing, _open_all(missing, folder), strict=True):
            for name in TARGETS[kind]:
                capsule = jax.ffi.pycapsule(getattr(library, name))
                jax.ffi.register_ffi_target(target(name), capsule, platform="cpu")
            _loaded[kind] = library
    except Unavailable:
        raise
    except Exception as error:  # a compiler, a loader and XLA raise of every kind
        raise Unavailable(f"{type(error).__name__}: {first_line(error)}") from error


_loading = threading.Lock()
_loaded: dict[str, ctypes.CDLL] = {}  # XLA keeps pointers into them: they stay
_compiling: set[subprocess.Popen[str]] = set()


def target(name: str) -> str:
    """Returns the name under which XLA knows a native function."""
    return f"lth_jax.{name}"


def _open_all(kinds: Sequence[str], folder: Path) -> list[ctypes.CDLL]:
    with ThreadPoolExecutor(len(kinds)) as pool:
        libraries = [pool.submit(_open, kind, folder) for kind in kinds]
        try:
            return [library.result() for library in libraries]
        except KeyboardInterrupt:  # it comes to this thread alone, which would wait for the others
            while wait(libraries, timeout=0.05).not_done:
                for process in list(_compiling):  # one may just have been started
                    _kill(process)
            raise


def _open(kind: str, folder: Path) -> ctypes.CDLL:
    """Returns the library of `kind`; builds it where there is none, or only a damaged one."""
    compiler = _compiler()
    try:
        private_folder(folder)
        start = f"{kind}-{_key(compiler)}"
        for path in sorted(folder.glob(f"{start}-*.so")):
            check_private(path)
            if path.name == _file_name(start, read_bytes(path)):
                return ctypes.CDLL(str(path))
            _log.warning("the native library %s is damaged, and is built again", path)
            path.unlink()
        content = _build(kind, compiler)
        path = folder / _file_name(start, content)
        write_bytes(path, content, mode=0o700)
        return ctypes.CDLL(str(path))
    except StoreError as error:
        raise Unavailable(str(error)) from error
    except OSError as error:
        raise Unavailable(f"what the compiler makes cannot be kept or loaded: {error}") from error


def _file_name(start: str, content: bytes) -> str:
    """Returns the name of a library: its kind and key, and the checksum of its content."""
    return f"{start}-{hashlib.sha256(content).hexdigest()[:32]}.so"


def _compiler() -> tuple[str, ...]:
    """Returns the command of `$CXX`, or `c++`.

    Raises:
      Unavailable: it does not exist, or `$CXX` is no command.
    """
    try:
        command = tuple(shlex.split(os.environ.get("CXX") or "c++"))
    except ValueError as error:
        raise Unavailable(f"CXX={os.environ['CXX']!r} is no command: {error}") from error
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


def _build(kind: str, compiler: tuple[str, ...]) -> bytes:
    """Compiles `kind`, and returns the library.

    Raises:
      Unavailable: no set of flags works; gives the compiler's first complaint.
    """
    _log.info("building native code: %s (once on this machine)", kind.replace("_", " "))
    source = str(SOURCE / f"{kind}.cc")
    include = f"-I{jax.ffi.include_dir()}"
    complaint = ""
    with (
        tempfile.TemporaryDirectory(prefix="lth_jax_library_") as folder,
        undone_if_ended(lambda: shutil.rmtree(folder)),
    ):
        library = Path(folder) / f"{kind}.so"
        for tuning in TUNING:
            done = _call((*compiler, *FLAGS, *tuning, include, source, "-o", str(library)))
            if done.returncode == 0 and not library.exists():
                raise Unavailable(f"the compiler {compiler[0]} makes no library")
            if done.returncode == 0:
                return library.read_bytes()
            if done.returncode < 0:
                raise Unavailable(f"the compiler {compiler[0]} was ended by another process")
            complaint = _complaint(done.stderr)
    raise Unavailable(f"the compiler {compiler[0]} fails: {complaint}")


def _call(command: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Runs a compiler; it ends, and its temporary files go, with this process at the latest.

    Raises:
      Unavailable: it cannot be run, or takes minutes.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="lth_jax_compiler_") as scratch:
            return _run(command, scratch)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise Unavailable(
            f"the compiler {command[0]} cannot be run: {first_line(error)}"
        ) from error


def _run(command: tuple[str, ...], scratch: str) -> subprocess.CompletedProcess[str]:
    started: list[subprocess.Popen[str]] = []

    def end() -> None:
        for process in started:
            _kill(process)
        shutil.rmtree(scratch)

    with undone_if_ended(end):
        with undisturbed():  # it never runs unknown
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",  # such as the name of a path in its complaint
                env={**os.environ, "TMPDIR": scratch, "LC_ALL": "C"},
                process_group=0,  # with the programs that it calls
            )
            started.append(process)
        _compiling.add(process)
        try:
            out, complaints = process.communicate(timeout=_TIMEOUT_SECONDS)
        finally:
            _kill(process)
            _compiling.discard(process)
        return subprocess.CompletedProcess(command, process.returncode, out, complaints)


def _kill(process: subprocess.Popen[str]) -> None:
    """Ends a compiler that is at work still, and whatever it called."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:  # Windows, which has no groups of processes
                process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)


def _complaint(output: str) -> str:
    """Returns the first line of a compiler's output that is an error."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), lines[0] if lines else "no output")
