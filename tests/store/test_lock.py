import errno
import os
import signal
import socket
import subprocess
import sys

import pytest

from lth_jax.errors import StoreError
from lth_jax.store.lock import Lock, held_by

HOLD = """
import sys, time
from pathlib import Path
from lth_jax.store.lock import Lock
lock = Lock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of `tmp_path`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_by_host_and_pid(tmp_path, holder):
    with pytest.raises(StoreError) as error:
        Lock(tmp_path / "lock")
    message = str(error.value)
    assert f"process {holder.pid} on {socket.gethostname()}" in message
    assert str(tmp_path) in message
    assert "\n" not in message
    assert held_by(tmp_path / "lock") == f"process {holder.pid} on {socket.gethostname()}"


def test_a_dead_process_s_lock_is_taken_over(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert held_by(tmp_path / "lock") == ""
    lock = Lock(tmp_path / "lock")
    assert held_by(tmp_path / "lock") == f"process {os.getpid()} on {socket.gethostname()}"
    lock.release()


def test_a_lock_is_free_once_released_and_may_be_released_twice(tmp_path):
    lock = Lock(tmp_path / "deep" / "lock")
    with pytest.raises(StoreError):
        Lock(tmp_path / "deep" / "lock")
    lock.release()
    lock.release()
    assert held_by(tmp_path / "deep" / "lock") == ""
    Lock(tmp_path / "deep" / "lock").release()


def test_looking_takes_nothing(tmp_path):
    assert held_by(tmp_path / "lock") == ""
    assert os.listdir(tmp_path) == []


def test_a_holder_that_wrote_no_name_still_refuses(tmp_path):
    lock = Lock(tmp_path / "lock")
    (tmp_path / "lock").write_text("]")
    with pytest.raises(StoreError, match="in use by another process"):
        Lock(tmp_path / "lock")
    assert held_by(tmp_path / "lock") == "another process"
    lock.release()


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    import fcntl

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StoreError, match=r"cannot lock .*lock: No locks available"):
        Lock(tmp_path / "lock")
