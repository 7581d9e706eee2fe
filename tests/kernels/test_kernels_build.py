"""Kernels are built once, by one process or several at once, and only where it is safe."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lth_jax.kernels import build

ROOT = Path(__file__).resolve().parents[2]
LOAD = "import sys, pathlib; from lth_jax.kernels import build; "
LOAD += "build.load('dense_conv', pathlib.Path(sys.argv[1]))"
pytestmark = pytest.mark.usefixtures("built")


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch):
    """As in a process that has loaded nothing yet; XLA is told nothing twice."""
    monkeypatch.setattr(build, "_loaded", {})
    monkeypatch.setattr(build.jax.ffi, "register_ffi_target", lambda *_, **__: None)


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """A source that compiles at once."""
    (tmp_path / "source").mkdir()
    names = build.TARGETS["dense_conv"]
    code = "".join(f'extern "C" void {name}() {{}}\n' for name in names)
    (tmp_path / "source" / "dense_conv.cc").write_text(code)
    monkeypatch.setattr(build, "SOURCE", tmp_path / "source")
    return tmp_path / "kernels"


def libraries(folder):
    return sorted(folder.iterdir())


def test_built_once_and_again_when_source_or_compiler_change(quick, monkeypatch):
    build.load("dense_conv", quick)
    [first] = libraries(quick)
    before = first.stat().st_mtime_ns
    build._loaded.clear()
    build.load("dense_conv", quick)
    assert libraries(quick) == [first]
    assert first.stat().st_mtime_ns == before
    build._loaded.clear()
    with (build.SOURCE / "dense_conv.cc").open("a") as file:
        file.write("// other\n")
    build.load("dense_conv", quick)
    assert len(libraries(quick)) == 2
    build._loaded.clear()
    monkeypatch.setenv("CXX", "c++ -DOTHER=1")
    build.load("dense_conv", quick)
    assert len(libraries(quick)) == 3


def test_a_damaged_library_is_built_again(quick, tmp_path):
    build.load("dense_conv", quick)
    build._loaded.clear()
    (tmp_path / "other").mkdir(mode=0o700)
    library = tmp_path / "other" / libraries(quick)[0].name
    library.write_bytes(b"no library")
    library.chmod(0o700)
    build.load("dense_conv", tmp_path / "other")
    assert library.stat().st_size > 1000


def test_without_a_compiler_the_reason_says_so(quick, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(build.Unavailable, match=r"no C\+\+ compiler .*no-such-compiler"):
        build.load("dense_conv", quick)
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(build.Unavailable, match=r"no C\+\+ compiler .*c\+\+"):
        build.load("dense_conv", quick)


def test_a_build_that_fails_leaves_nothing_and_tells_the_first_error(quick):
    (build.SOURCE / "dense_conv.cc").write_text("not C++ at all;\n")
    with pytest.raises(build.Unavailable, match=r"the compiler .* fails: .*error") as caught:
        build.load("dense_conv", quick)
    assert "\n" not in str(caught.value)
    assert libraries(quick) == []


@pytest.mark.parametrize("writable", ["folder", "library"])
def test_nothing_is_loaded_that_others_could_have_written(quick, writable):
    build.load("dense_conv", quick)
    build._loaded.clear()
    path = quick if writable == "folder" else libraries(quick)[0]
    path.chmod(0o777)
    with pytest.raises(build.Unavailable, match="others can write"):
        build.load("dense_conv", quick)


def test_nothing_is_loaded_that_another_user_owns(quick, monkeypatch):
    build.load("dense_conv", quick)
    build._loaded.clear()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(build.Unavailable, match="another user owns"):
        build.load("dense_conv", quick)


@pytest.mark.slow
def test_two_processes_that_start_together_do_not_disturb_each_other(tmp_path):
    command = [sys.executable, "-c", LOAD, str(tmp_path / "kernels")]
    processes = [subprocess.Popen(command, cwd=ROOT) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert len(libraries(tmp_path / "kernels")) == 1
