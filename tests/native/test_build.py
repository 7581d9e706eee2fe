"""Native code is built once, by one process or several at once, and only where it is safe."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lth_jax.native import build

ROOT = Path(__file__).resolve().parents[2]
LOAD = "import sys, pathlib; from lth_jax.native import build; "
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


@pytest.mark.parametrize("kind", build.TARGETS)
def test_every_file_that_a_kind_includes_is_in_its_key(kind, monkeypatch, tmp_path):
    shutil.copytree(build.SOURCE, tmp_path / "source")
    monkeypatch.setattr(build, "SOURCE", tmp_path / "source")
    compiler = build._compiler()
    command = (*compiler, "-MM", f"-I{build.jax.ffi.include_dir()}", f"{build.SOURCE / kind}.cc")
    rule = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    included = [Path(word) for word in rule.split() if word.startswith(str(build.SOURCE))]
    assert len(included) >= 4
    keys = {build._key(compiler)}
    for path in included:
        path.write_text(path.read_text(encoding="utf-8") + "// other\n", encoding="utf-8")
        keys.add(build._key(compiler))
    assert len(keys) == 1 + len(included)


def test_an_installation_has_every_source(tmp_path):
    pytest.importorskip("setuptools")
    project = tmp_path / "project"
    shutil.copytree(ROOT / "lth_jax", project / "lth_jax")
    for name in ("pyproject.toml", "README.md", "requirements.txt"):
        shutil.copy(ROOT / name, project)
    # `build_py` collects what a wheel would hold, and needs neither `wheel` nor an index.
    command = [sys.executable, "-c", "import setuptools; setuptools.setup()", "-q", "build_py"]
    subprocess.run([*command, f"--build-lib={tmp_path / 'built'}"], cwd=project, check=True)
    built = tmp_path / "built" / "lth_jax" / "native" / "source"
    for file in (*build.SOURCE.glob("*.h"), *build.SOURCE.glob("*.cc")):
        assert (built / file.name).read_bytes() == file.read_bytes()


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
