"""`run.py --hosts`: two processes of two devices each, over loopback."""

import contextlib
import os
import re
import socket
import time

import pytest

from ..tiny import arguments, assert_same_run, finished_run, tiny_spec
from . import command_line

FIELDS = {
    "levels": 1, "replicates": 3, "branches": ("reinit",), "rewind__step": "7",
    "train__steps": "40", "train__kernel": "xla",
}  # fmt: skip


def processes(stack, *more, cwd, save_seconds=0.01):
    """Starts both; by default each saves after every few steps."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = f"127.0.0.1:{free.getsockname()[1]}"
    given = arguments(**FIELDS, checkpoint__every_seconds=save_seconds)
    return [
        stack.enter_context(
            command_line.start(*given, "--workdir=run", f"--hosts={place},{i}/2", *more, cwd=cwd)
        )
        for i in (0, 1)
    ]


def wait_for_more(process, cwd):
    """Until the second process has saved its share once more."""

    def saved():
        return {path.name for path in cwd.glob("run/checkpoints/share_1/progress_*")}

    before, until = saved(), time.monotonic() + 120
    while not saved() - before:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.slow
def test_one_of_two_processes_is_killed_and_both_go_on_with_the_bits_of_one(tmp_path, monkeypatch):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    monkeypatch.setenv("XLA_FLAGS", flags)
    with contextlib.ExitStack() as stack:
        first, second = processes(stack, cwd=tmp_path)
        wait_for_more(second, tmp_path)
        second.kill()
        status, out, err = command_line.finish(first)
        assert (status, out) == (1, "")
        assert re.fullmatch(
            r"error: process 1 on \S+ is gone; what the other processes did is saved, and the "
            "same command goes on",
            err.splitlines()[-1],
        )
        assert "2 processes, here 2 × cpu" in err
    with contextlib.ExitStack() as stack:
        first, second = processes(stack, cwd=tmp_path)
        wait_for_more(second, tmp_path)
        first.kill()
        status, out, err = command_line.finish(second)
        assert (status, out) == (1, "")
        assert re.fullmatch(r"error: process 0 on 127.0.0.1 is gone; .* goes on\n", err)
    with contextlib.ExitStack() as stack:
        first, second = processes(stack, cwd=tmp_path, save_seconds=20)
        (status, out, err), other = command_line.finish(first), command_line.finish(second)
        assert status == 0, err
        assert other == (0, "", "")
        assert "level" in out
    assert_same_run(tmp_path / "run", finished_run(tiny_spec(**FIELDS)))


@pytest.mark.parametrize(
    "hosts", ["", "here", "10.0.0.1,0/2", "10.0.0.1:1,2/2", "10.0.0.1:99999,0/2"]
)
def test_a_wrong_place_is_refused_in_one_line(main, hosts, tmp_path):
    status, out, err = main("lenet_digits", f"--hosts={hosts}")
    assert (status, out) == (2, "")
    assert err.startswith(f"error: --hosts={hosts}: accepted: auto, or HOST:PORT,INDEX/COUNT, such")
    assert err.count("\n") == 1
