"""Standard streams: text alone on them, and no reason to stop."""

import errno
import io
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lth_jax.system import streams
from lth_jax.system.streams import Quiet, printable, say

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x07\x9b2J\x7f", "␛[31mred␇�2J␡"),
        ("a\tb\nc\r", "a\tb\nc␍"),
        ("\u202eleft\u2066\u2028", "�left��"),
        (os.fsdecode(b"\xff.png"), "�.png"),
        ("✓ Größe 大 $[bold]<b>", "✓ Größe 大 $[bold]<b>"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(text, shown):
    assert printable(text) == shown
    assert len(shown) == len(text)


def test_a_line_has_no_end_within():
    assert printable("a\tb\nc", line=True) == "a␉b␊c"


class Failing(io.StringIO):
    """A stream that takes a few writes."""

    def __init__(self, error, takes=0):
        super().__init__()
        self.error, self.takes = error, takes

    def write(self, text):
        if not self.takes:
            raise self.error
        self.takes -= 1
        return super().write(text)


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EIO, ""), OSError(errno.ENOSPC, ""), BrokenPipeError(), ValueError("closed")],
    ids=repr,
)
def test_a_stream_that_fails_goes_quiet(error):
    stream = Quiet(failing := Failing(error, takes=1))
    assert stream.write("shown") == 5
    assert stream.write("not") == 3
    failing.takes = 9
    stream.write("nor this")
    stream.flush()
    assert failing.getvalue() == "shown"


def test_one_line_is_said_whatever_is_in_it_and_wherever_it_goes(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    say("error: \x1b]0;title\x07\nTraceback")
    assert stream.getvalue() == "error: ␛]0;title␇␊Traceback\n"
    monkeypatch.setattr(sys, "stderr", Failing(OSError(errno.ENOSPC, "")))
    say("nothing")


def shell(command, cwd=ROOT):
    """Exit status and both outputs of a line for bash; `lth` is `python -m lth_jax`."""
    line = command.replace("lth", f"{shlex.quote(sys.executable)} -m lth_jax", 1)
    environment = {n: v for n, v in os.environ.items() if n != "PYTHONUNBUFFERED"}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        ["bash", "-c", line], cwd=cwd, env=environment, capture_output=True, text=True, timeout=100
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("lth --help >/dev/full", 1, "error: No space left on device\n"),
        ("lth --help >&-", 0, ""),
        ("lth --help 2>&- <&- | tail -1", 0, ""),
        ("lth list --json . >/dev/full", 1, "error: No space left on device\n"),
        ("lth list . >/dev/full", 1, "error: No space left on device\n"),
        ("lth bogus 2>/dev/full", 2, ""),
        ("lth bogus >&- 2>&-", 2, ""),
    ],
)
def test_a_command_has_its_status_wherever_its_output_goes(command, status, said, tmp_path):
    found, out, err = shell(command, cwd=tmp_path)
    assert (found, err) == (status, said)
    assert "Traceback" not in out


@pytest.mark.parametrize("arguments", [["--help"], ["list", "."]])
def test_a_reader_that_went_away_is_no_traceback(arguments, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "lth_jax", *arguments]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, stdout=writer,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_stream_that_was_closed_gives_its_number_to_no_file():
    code = (
        "from lth_jax.system import signals, streams\n"
        "signals.end_in_one_line()\nstreams.open_standard()\n"
        "import os, sys\nfound = os.open('run.py', os.O_RDONLY)\nprint('nowhere')\n"
        "print('nowhere', file=sys.stderr)\nsys.exit(found)"
    )
    line = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} <&- >&- 2>&-"
    assert subprocess.run(["bash", "-c", line], cwd=ROOT).returncode > 2


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_what_is_shown_meanwhile_is_gone_afterwards(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())

    def refused():
        with streams.meanwhile("importing JAX"):
            assert sys.stderr.getvalue() == "importing JAX …"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refused()
    assert sys.stderr.getvalue() == "importing JAX …\r\x1b[2K"
    for name, stream in (("dumb", Terminal()), ("xterm", io.StringIO())):
        monkeypatch.setenv("TERM", name)
        monkeypatch.setattr(sys, "stderr", stream)
        with streams.meanwhile("importing JAX"):
            pass
        assert stream.getvalue() == ""
