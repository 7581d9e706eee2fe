"""The engine of Slurm, as far as a machine without one can try it: submitit's own local jobs."""

import os
import pickle
import re
import signal
import subprocess
import sys
import time

import pytest

from lth_jax.errors import SpecError
from lth_jax.sweep import slurm
from lth_jax.sweep.tasks import Task

# It is asked to end, saves, and says so; started again, it finishes.
RESUMED = """
import os, pathlib, signal, sys, time
saved = pathlib.Path("saved")
if not saved.exists():
    signal.signal(signal.SIGTERM, lambda *_: (saved.touch(), sys.exit(143)))
    pathlib.Path("part").write_text(str(os.getppid()))
    pathlib.Path("part").rename("begun")
    time.sleep(60)
pathlib.Path("finished").touch()
"""


def task(tmp_path, code, name="one"):
    path = tmp_path / name
    path.mkdir()
    return Task(name, (sys.executable, "-c", code), str(path), path, tmp_path / "log")


def test_parameters_have_defaults_and_are_checked():
    found = slurm.parameters_of("partition=gpu,timeout_min=60")
    assert found == {**slurm.DEFAULTS, "partition": "gpu", "timeout_min": "60"}
    for wrong in ("partition", "=1", "a b=1", "timeout_min=1h"):
        with pytest.raises(SpecError, match="--slurm"):
            slurm.parameters_of(wrong)


def test_the_script_is_one_that_a_shell_can_read(tmp_path):
    parameters = slurm.parameters_of("partition=gpu,gpus_per_node=1,mem_gb=8")
    text = slurm.script(
        [0, 2, 3, 4], ["lth-jax", "sweep", "--grid=a=(1, 2)"], tmp_path, parameters, 2
    )
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    flags = dict(re.findall(r"#SBATCH --([\w-]+)=(\S+)", text))
    assert flags["array"] == "0,2-4%2"
    assert flags["mem"] == "8G"
    assert flags["partition"] == "gpu"
    assert flags["gpus-per-node"] == "1"
    assert flags["signal"] == "TERM@60"
    assert """srun lth-jax sweep '--grid=a=(1, 2)' --only="$SLURM_ARRAY_TASK_ID"\n""" in text


def test_the_script_queues_itself_again_where_it_was_asked_to_end(tmp_path):
    """`srun` and `scontrol` stand in for those of Slurm."""
    text = slurm.script([0], ["true"], tmp_path, slurm.parameters_of(""))
    for status, queued in ((0, False), (1, False), (143, True)):
        fake = f"srun() {{ return {status}; }}; scontrol() {{ echo queued $2 $1; }}\n"
        done = subprocess.run(
            ["bash", "-c", fake + text], env={"SLURM_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "0"},
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == status
        assert done.stdout == ("queued 7 requeue\n" if queued else "")


def test_without_submitit_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(SpecError, match=r"pip install submitit, or --print"):
        slurm.submit([], tmp_path, slurm.parameters_of(""))


def test_without_slurm_it_says_so(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SpecError, match="--print writes the script instead"):
        slurm.submit([], tmp_path, slurm.parameters_of(""))


def test_a_job_is_pickled_without_its_process(tmp_path):
    job = slurm.Job(task(tmp_path, ""), {"A": "b"})
    assert job() == "one"
    again = pickle.loads(pickle.dumps(job))
    assert (again.task, again.environment, again.process) == (job.task, {"A": "b"}, None)


def test_a_job_that_is_preempted_saves_and_goes_on(tmp_path):
    pytest.importorskip("submitit")
    one = task(tmp_path, RESUMED)
    parameters = {"timeout_min": "5"}
    (job,) = slurm.submit([one], tmp_path / "jobs", parameters, cluster="local")
    until = time.monotonic() + 60
    while not (one.path / "begun").exists() and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(int((one.path / "begun").read_text()), signal.SIGUSR2)  # as Slurm sends it
    assert job.result() == "one"
    assert (one.path / "saved").exists()
    assert (one.path / "finished").exists()


def test_a_job_that_fails_says_so(tmp_path):
    submitit = pytest.importorskip("submitit")
    (job,) = slurm.submit(
        [task(tmp_path, "raise SystemExit(3)")], tmp_path / "jobs", {}, cluster="local"
    )
    with pytest.raises(submitit.core.utils.FailedJobError, match="exit status 3"):
        job.result()
