"""What another system lacks stops nothing: modules that Unix alone has, hidden from a process."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import os, signal, sys
for name in ("fcntl", "resource", "termios", "pwd", "grp", "syslog", "tty", "pty"):
    sys.modules[name] = None
for name in ("sched_getaffinity", "getuid", "geteuid", "fchmod", "killpg", "pwrite", "pread",
             "mkfifo", "sysconf_names", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC",
             "statvfs", "fork"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGHUP", "SIGKILL"):
    delattr(signal, name)
from lth_jax.system import signals
signals.end_in_one_line()
import importlib, pkgutil
import lth_jax
for module in pkgutil.walk_packages(lth_jax.__path__, "lth_jax."):
    if not module.name.startswith(("lth_jax.__main__", "lth_jax.configs.")):
        importlib.import_module(module.name)
from pathlib import Path
from lth_jax.cli import main
from lth_jax.disk.files import private_folder, write_text
from lth_jax.native import build
from lth_jax.store.lock import Lock, held_by
from lth_jax.system import machine
here = Path(sys.argv[1])
private_folder(here / "kernels")
write_text(here / "text", "text")
lock = Lock(here / "run" / "lock")
assert "process" in held_by(here / "run" / "lock")  # a claim, where there is nothing else
lock.release()
assert machine.cores() and machine.memory()
signal.SIGKILL = 9  # which Python's own module needs here
process = build.subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
build._kill(process)
assert process.returncode
sys.exit(main(["list", str(here)]))
"""


@pytest.mark.slow
def test_without_what_unix_alone_has_everything_is_imported_and_the_lock_holds(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    # A long path is put on a line of its own.
    assert done.stdout.split() == f"no runs under {tmp_path}".split()
