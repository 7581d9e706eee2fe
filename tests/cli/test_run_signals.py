"""`run.py` interrupted, and started again."""

import contextlib
import re
import shlex
import signal

import pytest

from lth_jax.cli import run
from lth_jax.system.signals import INTERRUPTED

from ..tiny import StopAtPause, arguments, assert_same_run, finished_run, tiny_spec
from . import command_line
from .command_line import QUICK

# Enough steps that a signal finds it training: chunks of a second, many of them.
LONG = arguments(
    levels=1, replicates=1, branches="()", train__steps="2000000", eval__every="250000"
)


def wait_until_training(process):
    """Until the first level is told of on standard error."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "level 0" in line:
            return line
    raise AssertionError("".join(lines))


def stop(process, signum):
    """Sends the signal; gives the line that says how to go on."""
    process.send_signal(signum)
    status, out, err = command_line.finish(process)
    assert (status, out) == (128 + signum, "")
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if "to go on" in line]
    return line


@pytest.mark.slow
def test_ctrl_c_stops_it_and_the_same_command_goes_on(main, tmp_path, monkeypatch):
    with command_line.start(*LONG, "--workdir=x y", cwd=tmp_path) as process:
        wait_until_training(process)
        # Meanwhile a second process, this one, is refused, and leaves the first alone.
        status, out, err = main(*LONG, "--workdir=x y")
        assert (status, out) == (2, "")
        assert err.count("\n") == 1
        assert re.match(rf"error: x y is in use by process {process.pid} on \S+; ", err)
        line = stop(process, signal.SIGINT)
    again = shlex.split(line.partition("to go on: ")[2])
    assert again == ["python", str(command_line.RUN), *LONG, "--workdir=x y"]
    step = int(re.search(r"level 0, step (\d+) of 2000000", line)[1])
    monkeypatch.setattr(run, "listening", lambda: contextlib.nullcontext(StopAtPause(1)))
    status, out, err = main(*again[2:])
    assert status == 128 + signal.SIGINT
    assert f"level 0 goes on from step {step} of 2000000" in err


@pytest.mark.slow
def test_sigterm_stops_it_too(tmp_path):
    with command_line.start(*LONG, "--workdir=x", cwd=tmp_path) as process:
        wait_until_training(process)
        assert "level 0, step" in stop(process, signal.SIGTERM)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_training_is_an_interruption_too(tmp_path, signum):
    """A config file that is slow stands in for data that is."""
    (tmp_path / "slow.py").write_text(
        "import time\ndef get_config():\n    print('here', flush=True)\n    time.sleep(60)\n"
    )
    with command_line.start("--config=slow.py", cwd=tmp_path) as process:
        assert process.stdout.readline() == "here\n"
        process.send_signal(signum)
        status, _, err = command_line.finish(process)
    assert (status, err) == (128 + signum, f"{INTERRUPTED}\n")


@pytest.mark.slow
def test_an_interruption_in_process_exits_with_its_signal(main, tmp_path, monkeypatch):
    """The same without a process of its own: at the second pause of level 1."""
    calls = []

    class Signals:
        def __enter__(self):
            calls.append("enter")
            return StopAtPause(2, signal.SIGTERM)

        def __exit__(self, *_):
            calls.append("exit")

    with monkeypatch.context() as patch:
        patch.setattr(run, "listening", Signals)
        status, out, err = main(*QUICK, "--workdir=x")
    assert status == 143
    assert out == ""
    assert calls == ["enter", "exit"]
    assert "stopped at level 0, step" in err
    assert main(*QUICK, "--workdir=x")[0] == 0
    assert_same_run(tmp_path / "x", finished_run(tiny_spec(levels=1, replicates=1)))
