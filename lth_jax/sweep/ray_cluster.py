"""The engine of Ray: a task for each experiment, placed and retried by the cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lth_jax.errors import SpecError, first_line
from lth_jax.sweep.tasks import RETRIES, Task, ending, memory_share, was_killed

INSTALL = "pip install ray"
POLL_SECONDS = 0.5


class Killed(Exception):
    """A worker was ended by a signal; the experiment goes on when it is started again."""


def run(
    tasks: Sequence[Task],
    address: str,
    told: Callable[[Task, str], None],
    stop_signal: Callable[[], int] = lambda: 0,
    *,
    cores: int,
    per_gpu: int = 0,
) -> dict[str, str]:
    """Runs every task on a Ray cluster; returns what failed: name -> why.

    Args:
      tasks: every node sees their folders.
      address: of the cluster; `auto` for the one that this machine is of, `local` for one of this
        process's own.
      told: takes a task and what became of it.
      stop_signal: gives the number of a signal that asks for a stop, or 0. Workers, which lose
        their parent then, save.
      cores: of each task.
      per_gpu: how many tasks share a GPU; 0 for none.

    Raises:
      SpecError: Ray is not installed, or there is no cluster.
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise SpecError(f"--ray: Ray is not installed: {INSTALL}") from None
    try:
        ray.init(address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise SpecError(
            f"--ray={address}: {first_line(error)}; accepted: local, auto, or a cluster's address"
        ) from None
    remote = ray.remote(
        num_cpus=cores, num_gpus=1 / per_gpu if per_gpu else 0, max_retries=RETRIES,
        retry_exceptions=[Killed],
    )(_work)  # fmt: skip
    try:
        pending: dict[Any, Task] = {}
        for task in tasks:
            pending[remote.remote(task, memory_share(per_gpu or 1))] = task
        failed: dict[str, str] = {}
        while pending:
            ended, _ = ray.wait(list(pending), timeout=POLL_SECONDS)
            if stop_signal():
                break
            if not ended:
                continue
            (done,) = ended
            task = pending.pop(done)
            try:
                status = ray.get(done)
            except Exception as error:  # of many kinds: a node that is gone, too little memory
                failed[task.name] = first_line(error)
            else:
                if status:
                    failed[task.name] = ending(status)
            told(task, "failed" if task.name in failed else "finished")
        return failed
    finally:
        ray.shutdown()


def _work(task: Task, environment: dict[str, str]) -> int:
    """Runs an experiment on a node; returns its exit status."""
    before = task.saved()
    with task.start(environment) as process:
        status = process.wait()
    if was_killed(status):
        raise Killed(f"{task.name}: {ending(status)}" if task.saved() == before else task.name)
    return status
