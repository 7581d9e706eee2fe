"""Signals end a process at any instant, in one line; training is asked instead."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lth_jax.system import signals

ROOT = Path(__file__).resolve().parents[2]
BEGIN = "import os, sys, time\nfrom lth_jax.system import signals\nsignals.end_in_one_line()\n"
READY = "print('ready', flush=True)\n"
# What the main thread is at: Python's own waiting, and a call into C that lasts for hours.
AT_WORK = {
    "waiting": "time.sleep(600)",
    "computing": "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)",
}


def start(code, *before, **options):
    """A process that runs `code`, by way of the command `before`."""
    return subprocess.Popen(
        [*before, sys.executable, "-c", BEGIN + code],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def end(process):
    """Its exit status, and the lines of its standard error."""
    try:
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, err.splitlines()


@pytest.mark.parametrize("at_work", AT_WORK)
@pytest.mark.parametrize("signum", signals.SIGNALS)
def test_a_signal_ends_it_in_one_line_with_nothing_left(signum, at_work, tmp_path):
    undo = f"signals.undone_if_ended(lambda: os.rmdir({str(tmp_path / 'begun')!r}))"
    failing = "signals.undone_if_ended(lambda: 1 / 0)"
    code = f"with {undo}, {failing}:\n os.mkdir({str(tmp_path / 'begun')!r})\n {READY} "
    process = start(code + AT_WORK[at_work])
    assert process.stdout.readline() == "ready\n"
    assert os.listdir(tmp_path) == ["begun"]
    process.send_signal(signum)
    assert end(process) == (128 + signum, [signals.INTERRUPTED])
    assert os.listdir(tmp_path) == []


def test_what_has_ended_is_not_undone(tmp_path):
    kept = tmp_path / "kept"
    code = f"with signals.undone_if_ended(lambda: os.rmdir({str(kept)!r})):\n"
    code += f" os.mkdir({str(kept)!r})\n{READY}time.sleep(600)"
    process = start(code)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 143
    assert kept.is_dir()


def test_an_ignored_signal_stays_ignored():
    ignoring = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh")
    process = start(READY + "time.sleep(600)", *ignoring)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    assert end(process) == (130, [signals.INTERRUPTED])


LISTENING = """
with signals.listening() as came:
    print("ready", flush=True)
    while not came():
        time.sleep(0.01)
    print(came(), flush=True)
    sys.stdin.readline()
    print(came(), flush=True)
"""


def test_two_signals_of_any_kind_let_it_save_and_a_third_insists():
    process = start(LISTENING)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "2\n"
    process.send_signal(signal.SIGTERM)
    assert process.stderr.readline() == f"{signals.SAVING}\n"
    process.send_signal(signal.SIGTERM)
    process.wait(60)  # `end` closes its input, at which it would end by itself
    assert end(process) == (143, [signals.INSISTED])


def test_a_signal_that_nobody_obeyed_counts_when_nobody_listens_any_more():
    process = start(LISTENING + "time.sleep(600)")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "15\n"
    process.stdin.write("go on\n")
    assert end(process) == (143, [signals.INTERRUPTED])


def test_in_the_process_of_another_handlers_are_lent_and_given_back(capfd):
    came = []
    before = {signum: signal.getsignal(signum) for signum in signals.SIGNALS}
    mine = dict.fromkeys(signals.SIGNALS, lambda signum, frame: came.append(signum))
    try:
        for signum, handler in mine.items():
            signal.signal(signum, handler)
        with signals.listening() as asked:
            assert asked() == 0
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            assert (asked(), came) == (signal.SIGTERM, [])
        assert came == [signal.SIGTERM]  # it stands for what was not obeyed
        assert {signum: signal.getsignal(signum) for signum in signals.SIGNALS} == mine
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    assert capfd.readouterr().err == f"{signals.SAVING}\n"


@pytest.mark.parametrize("command", ["run_path('run.py'", "run_module('lth_jax'"])
def test_ctrl_c_before_anything_is_imported_is_no_traceback(command):
    code = f"""
import runpy, sys
class Finder:
    def find_spec(name, *_):
        if name == "lth_jax.system.signals":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Finder)
runpy.{command}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (130, b"")


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", [["run.py"], ["-m", "lth_jax", "list"]])
def test_at_every_import_it_ends_in_one_line(command, signum, tmp_path):
    """An instant is told by how many modules are imported, not by a clock."""
    arguments = [] if command == ["run.py"] else [str(tmp_path)]
    arguments = arguments or ["--config.train.steps=999999", f"--workdir={tmp_path / 'x'}"]
    passed = 0
    for count in range(0, 1500, 250):
        process = subprocess.Popen(
            [sys.executable, "-X", "importtime", *command, *arguments],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        lines = iter(process.stderr.readline, "")
        next(line for line in lines if line.rstrip().endswith(("socket", "lth_jax.system.streams")))
        ended = sum(1 for _, _ in zip(range(count), lines, strict=False)) < count
        process.send_signal(signum)
        status, err = end(process)
        if ended or status == 0:  # it was faster
            break
        assert status == 128 + signum
        # The main thread goes on, and may name one more module, until the process has ended.
        said = [line for line in err if not line.startswith("import time:")]
        assert said == [signals.INTERRUPTED]
        passed += 1
    assert passed
    assert not list(tmp_path.rglob("*.tmp"))
