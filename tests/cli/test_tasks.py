"""`run.py --tasks`: workers of one experiment, in processes of their own."""

import os
import signal
import time

import pytest

from ..tiny import arguments, assert_same_run, finished_run, tiny_spec
from . import command_line

FIELDS = {
    "levels": 0, "replicates": 2, "branches": (), "train__steps": "60", "train__kernel": "xla",
}  # fmt: skip


def worker_of(path):
    """The process of the second worker, once it has saved."""
    until = time.monotonic() + 120
    while not list(path.glob("checkpoints/share_1/progress_*")):
        assert time.monotonic() < until
        time.sleep(0.01)
    for place in os.listdir("/proc"):
        if place.isdigit():
            with open(f"/proc/{place}/cmdline", "rb") as line:
                if b"--share=1:" in line.read() and os.getpid() != int(place):
                    yield int(place)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc"), reason="finds the worker by /proc")
def test_a_worker_is_killed_and_goes_on_with_the_bits_of_one_process(tmp_path):
    given = arguments(**FIELDS, checkpoint__every_seconds=0.01)
    with command_line.start(*given, "--workdir=run", "--tasks=2", cwd=tmp_path) as process:
        (worker,) = worker_of(tmp_path / "run")
        os.kill(worker, signal.SIGKILL)
        status, _, err = command_line.finish(process)
    assert status == 0, err
    assert "share_1 of level 0: killed, and is started again" in err
    assert "2 workers, joined on 1 × cpu" in err
    assert_same_run(tmp_path / "run", finished_run(tiny_spec(**FIELDS)))


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--tasks=-1",), "--tasks=-1: accepted: 1 to 1,024"),
        (("--tasks=2", "--hosts=auto"), "--tasks=2: --hosts, too; accepted: one of them"),
        (("--ray=auto",), "--ray=auto: --tasks is missing; accepted: --tasks=N, too"),
        (("--tasks=2", "--ray=auto", "--slurm"), "--ray=auto: --slurm, too; accepted: one of them"),
    ],
)
def test_what_does_not_go_together_is_refused(main, flags, line):
    assert main("lenet_digits", *flags) == (2, "", f"error: {line}\n")
