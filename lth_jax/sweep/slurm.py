"""The engine of Slurm: an array of jobs by submitit, or the script of one to be read and sent.

A job that is preempted, or whose time is over, saves and is queued again; it goes on from its run
directory, as every start does.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lth_jax.errors import SpecError, spans
from lth_jax.sweep.tasks import Task, close, memory_share, start

INSTALL = "pip install submitit"
# submitit's names of what every cluster has -> sbatch's, and how it writes the value.
COMMON = {
    "timeout_min": ("time", "{}"),
    "cpus_per_task": ("cpus-per-task", "{}"),
    "mem_gb": ("mem", "{}G"),
    "gpus_per_node": ("gpus-per-node", "{}"),
}
DEFAULTS = {"timeout_min": "240", "cpus_per_task": "2", "mem_gb": "4"}
POLL_SECONDS = 0.2
MOST_TIMEOUTS = 1000  # each goes on from what the one before saved
SAVE_SECONDS = 60  # between the signal and the end of a job


def parameters_of(text: str) -> dict[str, str]:
    """Returns the parameters that `--slurm=NAME=VALUE,NAME=VALUE` sets, the defaults among them.

    Raises:
      SpecError: a part is of another form.
    """
    found = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not (equals and value and name.replace("_", "").isalnum()):
            raise SpecError(
                f"--slurm={text!r}: accepted: NAME=VALUE,…, such as partition=gpu,timeout_min=60"
            )
        if name in COMMON and not value.isdigit():
            raise SpecError(f"--slurm: {name}={value}: accepted: an integer")
        found[name] = value
    return DEFAULTS | found


class Job:
    """What a job does: it is pickled by submitit, and called on the node."""

    def __init__(self, task: Task, environment: Mapping[str, str]):
        self.task, self.environment = task, dict(environment)
        self.process: subprocess.Popen[bytes] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "process": None}

    def __call__(self) -> str:
        """Runs the experiment to its end.

        Raises:
          RuntimeError: it failed; Slurm's own log says no more than the experiment's.
        """
        self.process = start(self.task.command, self.task.folder, None, self.environment)
        # Not `wait`, which would hold a lock that `checkpoint`, called by a signal, waits for.
        while (status := self.process.poll()) is None:
            time.sleep(POLL_SECONDS)
        close(self.process)
        if status:
            raise RuntimeError(f"{self.task.name}: exit status {status}")
        return self.task.name

    def checkpoint(self) -> Any:
        """Lets the experiment save, and returns what is to be queued again."""
        import submitit

        if self.process:
            self.process.terminate()
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        return submitit.helpers.DelayedSubmission(Job(self.task, self.environment))


def submit(
    tasks: Sequence[Task],
    folder: Path,
    parameters: Mapping[str, str],
    *,
    most: int = 0,
    per_gpu: int = 1,
    cluster: str = "slurm",
) -> list[Any]:
    """Submits an array of jobs, one for each task, and returns submitit's jobs without waiting.

    Args:
      tasks: what to run.
      folder: where submitit keeps what it pickles, and logs; every node sees it.
      parameters: as `parameters_of` gives them.
      most: how many run at a time; 0 for no limit.
      per_gpu: how many experiments share a GPU, where the cluster lets jobs do so.
      cluster: `slurm`, or another of submitit's, such as `local`.

    Raises:
      SpecError: submitit is not installed, or there is no Slurm here.
    """
    try:
        import submitit
    except ModuleNotFoundError:
        raise SpecError(f"--slurm: submitit is not installed: {INSTALL}, or --print") from None
    try:
        executor = submitit.AutoExecutor(
            folder=folder, cluster=cluster, slurm_max_num_timeout=MOST_TIMEOUTS
        )
    except RuntimeError as error:
        raise SpecError(f"--slurm: {error}; --print writes the script instead") from None
    known = {name: int(value) for name, value in parameters.items() if name in COMMON}
    own: dict[str, Any] = {
        f"slurm_{name}": value for name, value in parameters.items() if name not in COMMON
    }
    if cluster == "slurm":
        own["slurm_signal_delay_s"] = SAVE_SECONDS
        own["slurm_additional_parameters"] = {"requeue": True}
        if most:
            own["slurm_array_parallelism"] = most
    executor.update_parameters(name="lth_jax", **known, **own)
    with executor.batch():
        return [executor.submit(Job(task, memory_share(per_gpu))) for task in tasks]


def script(
    numbers: Sequence[int], command: Sequence[str], logs: Path, parameters: Mapping[str, str],
    most: int = 0,
) -> str:  # fmt: skip
    """Returns the script of an array of jobs, to be sent by `sbatch`.

    Args:
      numbers: of the experiments that are not finished.
      command: what runs one, but for its number.
      logs: the folder of what the jobs say.
      parameters: as `parameters_of` gives them.
      most: how many run at a time; 0 for no limit.
    """
    array = spans(numbers).replace(" to ", "-").replace(", ", ",") + (f"%{most}" if most else "")
    flags = {"job-name": "lth_jax", "array": array, "output": f"{logs}/%a.log"}
    for name, value in parameters.items():
        flag, form = COMMON.get(name, (name.replace("_", "-"), "{}"))
        flags[flag] = form.format(value)
    lines = [f"#SBATCH --{flag}={value}" for flag, value in flags.items()]
    return "\n".join([
        "#!/bin/bash",
        *lines,
        "#SBATCH --open-mode=append --requeue",
        f"#SBATCH --signal=TERM@{SAVE_SECONDS}",
        f'srun {shlex.join(command)} --only="$SLURM_ARRAY_TASK_ID"',
        "status=$?",
        "# It was asked to end, and has saved: the same command goes on.",
        '[ "$status" = 143 ] && scontrol requeue "$SLURM_JOB_ID"',
        'exit "$status"',
        "",
    ])  # fmt: skip
