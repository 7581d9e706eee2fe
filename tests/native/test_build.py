"""Native code is built once, by one process or several at once, and only where it is safe."""

import os
import shutil
import signal
import subprocess
import sys
import threading
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
    shutil.copytree(ROOT / "configs", project / "configs")
    for name in ("pyproject.toml", "setup.py", "README.md", "requirements.txt"):
        shutil.copy(ROOT / name, project)
    # `build_py` collects what a wheel would hold, and needs neither `wheel` nor an index.
    command = [sys.executable, "setup.py", "-q", "build_py"]
    subprocess.run([*command, f"--build-lib={tmp_path / 'built'}"], cwd=project, check=True)
    built = tmp_path / "built" / "lth_jax" / "native" / "source"
    for file in (*build.SOURCE.glob("*.h"), *build.SOURCE.glob("*.cc")):
        assert (built / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("kept", [0.5, 0.0, 1.5])
def test_a_library_that_was_cut_short_or_changed_is_never_loaded_but_built_again(
    quick, kept, caplog
):
    """To load half of one kills the process."""
    build.load("dense_conv", quick)
    build._loaded.clear()
    content = libraries(quick)[0].read_bytes()
    folder = quick.with_name("other")  # this process has that one loaded
    folder.mkdir(mode=0o700)
    library = folder / libraries(quick)[0].name
    library.write_bytes((2 * content)[: int(kept * len(content))])
    library.chmod(0o700)
    build.load("dense_conv", folder)
    assert [path.read_bytes() for path in libraries(folder)] == [content]
    (record,) = caplog.records
    assert record.getMessage() == f"the native library {library} is damaged, and is built again"


def test_a_pipe_in_place_of_a_library_is_not_waited_for(quick):
    build.load("dense_conv", quick)
    build._loaded.clear()
    (library,) = libraries(quick)
    library.unlink()
    os.mkfifo(library, 0o700)
    with pytest.raises(build.Unavailable, match="it is no regular file"):
        build.load("dense_conv", quick)


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


# What a compiler may do


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """Makes a script the compiler; only `--version` is answered as by others."""

    def compiler(script, shell="sh"):
        path = tmp_path / "compiler"
        path.write_text(f'#!/bin/{shell}\n[ "$1" = --version ] && exit 0\n{script}\n')
        path.chmod(0o755)
        monkeypatch.setenv("CXX", str(path))

    return compiler


SCRIPTS = {
    "latin-1": ("printf 'error: gr\\366\\337e\\n' >&2; exit 1", r"fails: error: gr��e$"),
    "silent": ("exit 1", "fails: no output$"),
    "empty": ("exit 0", "makes no library$"),
    "killed": ("kill -9 $$", "was ended by another process$"),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_whatever_a_compiler_does_is_one_line(name, quick, compiler):
    script, said = SCRIPTS[name]
    compiler(script)
    with pytest.raises(build.Unavailable, match=said) as caught:
        build.load("dense_conv", quick)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "said"),
    [('g++ "', r"CXX='g\+\+ \"' is no command: No closing quotation$"), ("/", "no C++ compiler")],
)
def test_a_compiler_that_is_no_command_is_named(command, said, quick, monkeypatch):
    monkeypatch.setenv("CXX", command)
    with pytest.raises(build.Unavailable, match=said.replace("C++", r"C\+\+")):
        build.load("dense_conv", quick)


def test_whatever_a_loader_raises_is_one_line(quick, monkeypatch):
    def failing(path):
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid\nstart")

    monkeypatch.setattr(build.ctypes, "CDLL", failing)
    with pytest.raises(build.Unavailable, match=r"^UnicodeDecodeError: .*invalid$"):
        build.load("dense_conv", quick)
    monkeypatch.setattr(build.ctypes, "CDLL", lambda path: object())  # it has no functions
    with pytest.raises(build.Unavailable, match=r"^AttributeError: .*DenseConvForward"):
        build.load("dense_conv", quick)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_compiler_and_its_temporary_files(signum, compiler, tmp_path):
    """All who hold the pipe have ended when it ends: the compiler, and what the compiler calls."""
    os.mkfifo(tmp_path / "pipe")
    compiler(
        f"exec 3>'{tmp_path}/pipe'\necho temporary > \"$TMPDIR/temporary.s\"\n"
        'echo "$TMPDIR" >&3\nsleep 1000 & sleep 1000; exit 1'
    )
    begin = "from lth_jax.system import signals; signals.end_in_one_line(); "
    command = [sys.executable, "-c", begin + LOAD, str(tmp_path / "kernels")]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        with open(tmp_path / "pipe") as pipe:
            scratch = Path(pipe.readline().strip())
            assert os.listdir(scratch) == ["temporary.s"]
            process.send_signal(signum)
            assert pipe.read() == ""
        assert process.stderr.read() == "interrupted; nothing that was done is lost\n"
        assert process.wait(60) == 128 + signum
    assert not scratch.exists()
    assert libraries(tmp_path / "kernels") == []


def test_an_interrupted_call_waits_for_no_compiler(quick, compiler, tmp_path):
    """In another's process a signal is an exception, in the main thread alone."""
    os.mkfifo(tmp_path / "pipe")
    compiler(f"exec 3>'{tmp_path}/pipe'\necho here >&3\nsleep 1000")

    def interrupt():
        with open(tmp_path / "pipe") as pipe:
            pipe.readline()
            os.kill(os.getpid(), signal.SIGINT)
            pipe.read()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        build.load("dense_conv", quick)
    thread.join(60)
    assert not thread.is_alive()
    assert libraries(quick) == []
