"""The engine of one machine: places, restarts and stops processes."""

import os
import signal
import subprocess
import sys
import time

import pytest

from lth_jax.sweep import local, tasks
from lth_jax.sweep.tasks import RETRIES, Task


def task(tmp_path, name, code):
    path = tmp_path / name
    path.mkdir()
    return Task(name, (sys.executable, "-c", code), str(path), path, tmp_path / f"{name}.log")


def run(*every, places=2, stop_signal=lambda: 0):
    """(what failed, the lines that were told)."""
    told = []
    failed = local.run(
        every, [{}] * places, lambda task, what: told.append((task.name, what)), stop_signal
    )
    return failed, told


def test_what_ends_well_ran_once_in_its_folder_with_its_environment(tmp_path):
    code = "import os; open('here', 'a').write(os.environ['PLACE'] + '.')"
    one, other = task(tmp_path, "one", code), task(tmp_path, "other", code)
    failed = local.run([one, other], [{"PLACE": "a"}], lambda *_: None)
    assert failed == {}
    assert [(t.path / "here").read_text() for t in (one, other)] == ["a.", "a."]


def test_no_more_run_at_a_time_than_there_are_places(tmp_path):
    code = (
        "import os, pathlib, time; beside = pathlib.Path('..'); me = beside / f'in{os.getpid()}'\n"
        "me.touch(); n = len(list(beside.glob('in*'))); time.sleep(0.3); me.unlink()\n"
        "print(n, flush=True)"
    )
    every = [task(tmp_path, f"t{n}", code) for n in range(5)]
    run(*every, places=2)
    assert {int(each.log.read_text()) for each in every} <= {1, 2}


def test_what_fails_is_not_started_again(tmp_path):
    bad = task(tmp_path, "bad", "open('starts', 'a').write('x'); raise SystemExit(2)")
    good = task(tmp_path, "good", "")
    failed, told = run(bad, good)
    assert list(failed) == ["bad"]
    assert "exit status 2" in failed["bad"]
    assert (bad.path / "starts").read_text() == "x"
    assert ("good", "finished") in told


KILLED = "import os; open('starts', 'a').write('x'); {}os.kill(os.getpid(), 9)"


def test_a_killed_worker_is_started_again_but_not_for_ever(tmp_path):
    lost = task(tmp_path, "lost", KILLED.format(""))
    failed, _ = run(lost)
    assert (lost.path / "starts").read_text() == "x" * (1 + RETRIES)
    assert "signal 9" in failed["lost"]


def test_one_that_saves_before_each_kill_is_started_again_however_often(tmp_path):
    saving = "open('results.csv', 'a').write('row'); n = len(open('starts').read());"
    saving += "n < 9 and "
    slow = task(tmp_path, "slow", KILLED.format(saving))
    failed, told = run(slow)
    assert failed == {}
    assert (slow.path / "starts").read_text() == "x" * 9
    assert told.count(("slow", "killed, and is started again")) == 8


def test_a_stop_ends_all_and_starts_none(tmp_path):
    wait = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(143))\n"
    wait += "print('here', flush=True); time.sleep(60)"
    first, second = task(tmp_path, "first", wait), task(tmp_path, "second", wait)

    def came():
        return signal.SIGTERM if first.log.exists() and "here" in first.log.read_text() else 0

    failed, told = run(first, second, places=1, stop_signal=came)
    assert failed == {}
    assert told == [("first", "started"), ("first", "stopped")]


def test_a_worker_can_tell_that_its_engine_is_gone(tmp_path):
    """The engine is killed; its worker reads the end of its standard input."""
    code = "import sys; sys.stdin.read(); open('ended', 'w').close()"
    orphan = task(tmp_path, "orphan", code)
    engine = (
        "import time; from pathlib import Path; from lth_jax.sweep.tasks import Task\n"
        f"t = Task('orphan', {orphan.command!r}, {orphan.folder!r}, Path({orphan.folder!r}), "
        f"Path({str(orphan.log)!r})); p = t.start(); print('started', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", engine], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"started\n"
        process.kill()
    until = time.monotonic() + 60
    while not (orphan.path / "ended").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert (orphan.path / "ended").exists()


# Cores and GPUs


def test_cores_are_shared_out_so_that_no_core_is_taken_twice(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from lth_jax.sweep.cores import take_cores\n"
        f"print(*take_cores(1, Path({str(tmp_path)!r})), flush=True)\n"
        "print(*sorted(os.sched_getaffinity(0)), flush=True); sys.stdin.read()"
    )
    mine = sorted(os.sched_getaffinity(0))
    if len(mine) < 2:
        pytest.skip("one core")
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    taken = []
    for process in both:
        core, affinity = process.stdout.readline(), process.stdout.readline()
        assert core == affinity
        taken.append(int(core))
    for process in both:
        process.communicate()
    assert len(set(taken)) == 2
    assert set(taken) <= set(mine)
    assert sorted(os.sched_getaffinity(0)) == mine


def test_cores_of_a_worker_that_is_gone_are_free_again(tmp_path):
    code = (
        "import os; from pathlib import Path; from lth_jax.sweep.cores import take_cores\n"
        f"print(*take_cores(1, Path({str(tmp_path)!r})), flush=True); os.kill(os.getpid(), 9)"
    )
    found = [subprocess.run([sys.executable, "-c", code], capture_output=True) for _ in range(2)]
    assert found[0].stdout == found[1].stdout != b""


def test_the_cores_of_all_that_run_at_a_time_are_no_more_than_there_are(monkeypatch):
    monkeypatch.setattr(local, "cores", lambda: 8)
    for share in range(1, 12):
        count = len(local.places(100, share, [], 1))
        assert count >= 1
        assert count * share <= 8 or count == 1
    assert len(local.places(3, 1, [], 1)) == 3


def test_gpus_are_filled_in_turns_each_worker_with_its_share_of_memory():
    found = local.places(5, 1, ["0", "3"], 3)
    assert [place["CUDA_VISIBLE_DEVICES"] for place in found] == ["0", "3", "0", "3", "0"]
    fractions = {float(place["XLA_PYTHON_CLIENT_MEM_FRACTION"]) for place in found}
    assert fractions == {0.3}
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" not in local.places(1, 1, ["0"], 1)[0]


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({"CUDA_VISIBLE_DEVICES": "2,5"}, ["2", "5"]),
        ({"CUDA_VISIBLE_DEVICES": ""}, []),
        ({"CUDA_VISIBLE_DEVICES": "0", "JAX_PLATFORMS": "cpu"}, []),
    ],
)
def test_gpus_are_those_that_this_process_may_see(environment, found):
    assert local.gpus(environment) == found


def test_gpus_are_counted_by_the_driver_where_nothing_is_said(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: H100'; echo 'GPU 1: H100'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert local.gpus({}) == ["0", "1"]


def test_a_process_that_a_signal_ended_may_go_on_and_others_not():
    assert all(map(tasks.was_killed, (-9, -15, 130, 137, 143)))
    assert not any(map(tasks.was_killed, (0, 1, 2, 141)))
