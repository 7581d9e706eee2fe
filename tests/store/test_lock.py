import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from lth_jax.disk import locking
from lth_jax.errors import RunError, StoreError
from lth_jax.store import lock as locks
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


def test_a_link_is_not_followed_and_its_target_stays(tmp_path):
    target = tmp_path / "mine"
    target.write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").symlink_to(target)
    with pytest.raises(StoreError, match=r"cannot lock .*/run/lock: it is a link"):
        Lock(tmp_path / "run" / "lock")
    assert held_by(tmp_path / "run" / "lock") == ""
    assert target.read_text() == "precious"


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(StoreError, match=r"cannot lock .*/lock: it is no file"):
        Lock(tmp_path / "lock")


def test_a_lock_whose_file_was_removed_still_refuses_others(tmp_path, holder):
    (tmp_path / "lock").unlink()
    with pytest.raises(StoreError, match="in use by"):
        Lock(tmp_path / "lock")
    assert held_by(tmp_path / "lock") != ""


def test_a_holder_makes_its_file_anew_when_it_was_removed(tmp_path):
    lock = Lock(tmp_path / "lock")
    (tmp_path / "lock").unlink()
    lock.keep()
    assert held_by(tmp_path / "lock") == f"process {os.getpid()} on {socket.gethostname()}"
    lock.release()
    assert held_by(tmp_path / "lock") == ""


def test_a_holder_writes_no_more_once_another_has_taken_its_place(tmp_path):
    """As where folders have no locks: on NFS."""
    lock = Lock(tmp_path / "lock")
    (tmp_path / "lock").unlink()
    with (tmp_path / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="was removed while this process held it, and another"):
            lock.keep()
    lock.release()


def test_an_observer_s_look_refuses_nobody(tmp_path, monkeypatch):
    Lock(tmp_path / "lock").release()
    look = (tmp_path / "lock").open()
    fcntl.flock(look, fcntl.LOCK_SH)
    monkeypatch.setattr(locks.time, "sleep", lambda _: look.close())
    Lock(tmp_path / "lock").release()


@pytest.fixture(params=[errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def without_locks(request, monkeypatch):
    """A file system that has none."""

    def refuse(*_):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_without_locks_a_claim_refuses_others_and_ends_with_its_holder(tmp_path, without_locks):
    lock = Lock(tmp_path / "lock")
    me = f"process {os.getpid()} on {socket.gethostname()}"
    with pytest.raises(StoreError) as error:
        Lock(tmp_path / "lock")
    assert f"in use by {me} (if that is gone: remove {tmp_path}/lock.holder)" in str(error.value)
    assert held_by(tmp_path / "lock").startswith(me)
    lock.release()
    assert held_by(tmp_path / "lock") == ""
    assert os.listdir(tmp_path) == ["lock"]
    lock = Lock(tmp_path / "lock")
    (tmp_path / "lock.holder").unlink()
    lock.keep()
    assert held_by(tmp_path / "lock").startswith(me)
    (tmp_path / "lock.holder").write_text('{"host": "elsewhere", "pid": 7}')
    with pytest.raises(RunError, match="process 7 on elsewhere"):
        lock.keep()
    lock.release()
    assert held_by(tmp_path / "lock").startswith("process 7 on elsewhere")


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({"started": "1"}, True),  # its number was given to another
        ({"pid": 2**22 + 1}, True),
        ({}, False),
        ({"boot": "another"}, False),  # of another machine nothing is known
        ({"space": "pid:[1]"}, False),
    ],
    ids=str,
)
def test_the_claim_of_a_process_that_is_gone_is_taken_over(tmp_path, without_locks, changes, gone):
    owner = locking.this_process() | changes
    (tmp_path / "lock.holder").write_text(json.dumps(owner))
    assert (held_by(tmp_path / "lock") == "") == gone
    if gone:
        Lock(tmp_path / "lock").release()
        assert os.listdir(tmp_path) == ["lock"]
    else:
        with pytest.raises(StoreError, match="if that is gone: remove"):
            Lock(tmp_path / "lock")
        (tmp_path / "lock.holder").unlink()
        Lock(tmp_path / "lock").release()


def test_a_claim_that_was_left_counts_where_there_are_locks(tmp_path):
    (tmp_path / "lock.holder").write_text('{"host": "elsewhere", "pid": 7}')
    with pytest.raises(StoreError, match="process 7 on elsewhere"):
        Lock(tmp_path / "lock")


class Windows:
    """The part of `msvcrt` that locks: bytes, exclusively, for a handle until it is closed."""

    LK_NBLCK = 2

    def __init__(self):
        self.locked = {}

    def locking(self, handle, mode, length):
        assert (mode, length) == (self.LK_NBLCK, 1)
        found = os.fstat(handle)
        place = found.st_ino, os.lseek(handle, 0, os.SEEK_CUR)
        assert place[1] > found.st_size, "what is locked can be read by nobody else"
        holder = self.locked.get(place)
        if holder is not None and holder != handle and is_open(holder, found):
            raise OSError(errno.EACCES, "Permission denied")
        self.locked[place] = handle


def is_open(handle, found):
    try:
        return os.fstat(handle).st_ino == found.st_ino
    except OSError:
        return False


def test_on_windows_a_byte_of_the_file_is_locked(tmp_path, monkeypatch):
    monkeypatch.setattr(locking, "fcntl", None)
    monkeypatch.setattr(locking, "msvcrt", Windows())
    monkeypatch.setattr(locks, "PAUSE_SECONDS", 0)
    lock = Lock(tmp_path / "lock")
    me = f"process {os.getpid()} on {socket.gethostname()}"
    assert held_by(tmp_path / "lock") == me
    with pytest.raises(StoreError, match=f"in use by {me}"):
        Lock(tmp_path / "lock")
    lock.keep()
    lock.release()
    assert held_by(tmp_path / "lock") == ""
    Lock(tmp_path / "lock").release()
    assert os.listdir(tmp_path) == ["lock"]
