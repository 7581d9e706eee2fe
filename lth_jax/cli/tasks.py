"""Workers of one experiment from the command line: what starts them, and what they are."""

from __future__ import annotations

import argparse
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lth_jax import config as specs
from lth_jax.sweep.tasks import Task, program
from lth_jax.system.machine import cores

if TYPE_CHECKING:
    from lth_jax.api.running import Running
    from lth_jax.sweep.shares import ShareTask, Tasks


def shares_of(
    options: argparse.Namespace,
    spec: specs.Spec,
    path: Path,
    config: str,
    overrides: Sequence[str],
) -> Tasks:
    """Returns what has the runs of each level trained by workers, as `--tasks` asks for.

    Args:
      options: of the command.
      spec: its experiment.
      path: its run directory.
      config, overrides: where the spec comes from.
    """
    from lth_jax.sweep import local, ray_cluster, slurm
    from lth_jax.sweep.shares import Tasks, on_slurm

    count = options.tasks
    share = max(1, cores() // count)
    script = program()
    command = [*script, *(() if script[-1].endswith(".py") else ("run",)), config]
    command += [f"--config.{override}" for override in overrides]
    command += [f"--workdir={path}", "--ends-with-parent"]
    devices = [] if options.ray or options.slurm is not None else local.gpus()
    if devices:
        # This process joins on the first, beside a worker, which takes most of its memory.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    elif options.slurm is None:
        command.append(f"--take-cores={1 if options.ray else share}")

    def here(
        tasks: Sequence[ShareTask],
        told: Callable[[Task, str], None],
        stop_signal: Callable[[], int],
    ) -> Mapping[str, str]:
        return local.run(tasks, local.places(len(tasks), share, devices, 1), told, stop_signal)

    def on_ray(
        tasks: Sequence[ShareTask],
        told: Callable[[Task, str], None],
        stop_signal: Callable[[], int],
    ) -> Mapping[str, str]:
        return ray_cluster.run(tasks, options.ray, told, stop_signal, cores=1)

    def as_jobs(
        tasks: Sequence[ShareTask],
        told: Callable[[Task, str], None],
        stop_signal: Callable[[], int],
    ) -> Mapping[str, str]:
        def submit(some: Sequence[Task]) -> list[Any]:
            return slurm.submit(some, path / "slurm", parameters)

        return on_slurm(tasks, told, stop_signal, submit)

    parameters = slurm.parameters_of(options.slurm or "")
    engine = here if options.slurm is None else as_jobs
    return Tasks(spec, path, count, command, on_ray if options.ray else engine)


def take_place(options: argparse.Namespace) -> None:
    """Makes this process a worker of the one that started it, before JAX is imported."""
    if options.ends_with_parent:
        threading.Thread(target=end_with_parent, name="parent", daemon=True).start()
    if options.take_cores:  # before JAX starts a thread on each core
        from lth_jax.sweep.cores import take_cores

        take_cores(options.take_cores)


def work(running: Running, spec: specs.Spec, path: Path, share: str) -> None:
    """Trains the share that this worker was started for."""
    from lth_jax.sweep.shares import parse

    index, level, runs = parse(spec, share)
    running.train_share(spec, path=path, index=index, level=level, runs=runs)


def end_with_parent() -> None:
    """Asks this process to save and end once its standard input does, which its parent holds."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
