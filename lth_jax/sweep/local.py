"""The engine of one machine: a process for each experiment, pinned to cores, or to a GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from lth_jax.sweep.tasks import RETRIES, Task, close, ending, gpu_environment, was_killed
from lth_jax.system.machine import cores

POLL_SECONDS = 0.1


def gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Returns the GPUs of this machine that processes may use, without using any."""
    if environment.get("JAX_PLATFORMS", "cuda") not in ("cuda", "gpu"):
        return []
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [device for device in named.split(",") if device.strip()]
    tool = shutil.which("nvidia-smi")
    if not tool:
        return []
    listed = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False)
    lines = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(lines))]


def places(
    count: int, per_process: int, devices: Sequence[str], per_gpu: int
) -> list[dict[str, str]]:
    """Returns the environment of each process that may run at a time.

    Args:
      count: the experiments.
      per_process: cores of each; on a GPU, cores do not limit their number.
      devices: the GPUs.
      per_gpu: how many experiments share one.
    """
    if devices:  # in turns, so that each GPU has one before any has two
        found = [gpu_environment(device, per_gpu) for _ in range(per_gpu) for device in devices]
    else:
        found = [{} for _ in range(max(1, cores() // per_process))]
    return found[: max(1, count)]


def run(
    tasks: Sequence[Task],
    environments: Sequence[Mapping[str, str]],
    told: Callable[[Task, str], None],
    stop_signal: Callable[[], int] = lambda: 0,
) -> dict[str, str]:
    """Runs every task to its end, as many at a time as there are environments.

    One whose worker is killed is started again, up to `RETRIES` times in a row without anything
    new saved.

    Args:
      tasks: in the order in which they begin.
      environments: of the processes that run at a time.
      told: takes a task and what became of it: `started`, `killed`, `finished` or why it failed.
      stop_signal: gives the number of a signal that asks for a stop, or 0. Workers save then.

    Returns:
      What ended without success: name -> exit status in words; none of those that were stopped.
    """
    waiting, free = deque(tasks), deque(environments)
    running: dict[Task, tuple[subprocess.Popen[bytes], Mapping[str, str], tuple]] = {}
    kills: dict[str, int] = {}
    failed: dict[str, str] = {}
    stopping = False
    try:
        while running or (waiting and not stopping):
            if stop_signal() and not stopping:
                stopping = True
                for process, *_ in running.values():
                    process.terminate()
            while waiting and free and not stopping:
                task, environment = waiting.popleft(), free.popleft()
                running[task] = task.start(environment), environment, task.saved()
                told(task, "started")
            for task, (process, environment, before) in list(running.items()):
                status = process.poll()
                if status is None:
                    continue
                del running[task]
                free.append(environment)
                close(process)
                if status == 0:
                    told(task, "finished")
                elif stopping:
                    told(task, "stopped")
                elif was_killed(status) and _again(task, before, kills):
                    told(task, "killed, and is started again")
                    waiting.appendleft(task)
                else:
                    failed[task.name] = ending(status)
                    told(task, "failed")
            time.sleep(POLL_SECONDS)
    finally:
        for process, *_ in running.values():  # an error of ours: workers save, and end
            process.terminate()
            close(process)
    return failed


def _again(task: Task, before: tuple, kills: dict[str, int]) -> bool:
    kills[task.name] = 1 if task.saved() != before else kills.get(task.name, 0) + 1
    return kills[task.name] <= RETRIES
