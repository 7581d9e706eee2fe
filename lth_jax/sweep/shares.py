"""One experiment by many workers: each share of a level's runs is a task of the engines.

A worker is told which share is its own and nothing else: all that it needs lies in the run
directory, where it saves on the way and at the end. One that is lost is started again, here or
elsewhere, and goes on. The process that places them joins the shares, and writes what there is.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from lth_jax.config import Spec
from lth_jax.errors import Interrupted, RunError, SpecError
from lth_jax.lottery.level import LevelTrainer, mean_density
from lth_jax.lottery.observer import Observer
from lth_jax.lottery.plan import planned_runs
from lth_jax.lottery.rows import FinishedRun
from lth_jax.lottery.run import Run
from lth_jax.lottery.sharing import Shares, join, split
from lth_jax.store import RunDirectory
from lth_jax.store.progress import SHARE
from lth_jax.store.tables import RunId
from lth_jax.sweep.tasks import RETRIES, Task, was_killed

POLL_SECONDS = 0.5
Told = Callable[[Task, str], None]  # takes a task and what became of it


class Engine(Protocol):
    """Runs tasks to their end; returns what failed: name -> why. A signal lets them save."""

    def __call__(  # noqa: D102
        self,
        tasks: Sequence[ShareTask],
        told: Told,
        stop_signal: Callable[[], int],
    ) -> Mapping[str, str]: ...


class ShareTask(Task):
    """One share to be trained; its path is where its progress lies."""

    def saved(self) -> tuple[Any, ...]:
        """Returns what tells whether anything was saved since it was last asked."""
        return tuple(sorted(found.name for found in self.path.glob("progress_*")))


def name_of(spec: Spec, index: int, level: int, runs: Sequence[RunId]) -> str:
    """Returns what a worker is told of its share: `INDEX:LEVEL:RUN,RUN`, as `parse` reads it.

    Runs are counted in the order in which the spec plans them.
    """
    number = {run: number for number, run in enumerate(planned_runs(spec))}
    return f"{index}:{level}:{','.join(str(number[run]) for run in runs)}"


def parse(spec: Spec, text: str) -> tuple[int, int, list[RunId]]:
    """Returns the index, the level and the runs of a share.

    Raises:
      SpecError: it is none of this spec.
    """
    planned = planned_runs(spec)
    try:
        index, level, runs = text.split(":")
        found = [planned[int(number)] for number in runs.split(",")]
        if any(run.level != int(level) for run in found):
            raise ValueError("runs of another level")
        return int(index), int(level), found
    except (ValueError, IndexError) as error:
        raise SpecError(
            f"--share={text}: {error}; accepted: what a command with --tasks tells its workers"
        ) from error


class Tasks(Shares):
    """Has the runs of each level trained by workers, and trains none itself.

    Args:
      spec: the experiment.
      path: its run directory. The experiment that transfers start from has another one, and is
        trained by this process.
      count: how many shares a level is cut into, at most.
      command: the command line of a worker, but for its share.
      engine: places them.
    """

    def __init__(self, spec: Spec, path: Path, count: int, command: Sequence[str], engine: Engine):
        self._spec, self._path, self._count = spec, path, count
        self._command, self._engine = tuple(command), engine
        self.where = f"{count} workers, joined on "

    def train(
        self,
        level: int,
        runs: Sequence[Run],
        trainer: Callable[..., LevelTrainer],
        store: RunDirectory,
        observer: Observer,
        stop_signal: Callable[[], int],
    ) -> dict[RunId, FinishedRun]:
        """Has runs of a level trained, and joins them.

        Raises:
          Interrupted: a signal came, and the workers have saved; RunError: one failed.
        """
        if store.path != self._path:
            return super().train(level, runs, trainer, store, observer, stop_signal)
        by_id = {run.run_id: run for run in runs}
        shares = [share for share in split(list(by_id), [1] * self._count) if share]
        tasks = {self._task(index, level, share): share for index, share in enumerate(shares)}
        steps = {task: sum(_steps(by_id[run]) for run in share) for task, share in tasks.items()}
        observer.level_started(level, mean_density(runs), len(runs), sum(steps.values()), 0)

        def told(task: Task, what: str) -> None:
            if what == "finished":
                observer.advanced(level, steps[ShareTask(*task)], None, None)
            elif what != "started":
                observer.note(f"{task.name} of level {level}: {what}")

        failed = self._engine(list(tasks), told, stop_signal)
        if signum := stop_signal():
            raise Interrupted(signum, f"level {level}")
        for task in tasks:
            if task.name in failed:
                said = task.log.read_text(errors="replace") if task.log.exists() else ""
                why = _error_in(said) or failed[task.name]
                raise RunError(f"{task.name} of level {level}: {why}")
        joined = [[by_id[run] for run in share] for share in shares]
        return join(level, joined, trainer(store, Observer(), stop_signal))

    def _task(self, index: int, level: int, share: Sequence[RunId]) -> ShareTask:
        name = f"{SHARE}{index}"
        log = self._path / "logs" / f"{name}.log"
        log.unlink(missing_ok=True)  # an error of an earlier start would be taken for this one's
        return ShareTask(
            name,
            (*self._command, f"--share={name_of(self._spec, index, level, share)}"),
            str(Path.cwd()),
            self._path / "checkpoints" / name,
            log,
        )


def _steps(run: Run) -> int:
    return run.last_step - run.start.step


def _error_in(log: str) -> str:
    """Returns the error that a worker said last, or an empty string."""
    lines = [line for line in log.splitlines() if line.startswith("error: ")]
    return lines[-1].removeprefix("error: ") if lines else ""


def on_slurm(
    tasks: Sequence[ShareTask],
    told: Told,
    stop_signal: Callable[[], int],
    submit: Callable[[Sequence[Task]], list[Any]],
) -> dict[str, str]:
    """Runs tasks as jobs of Slurm, and waits for them, as an `Engine` does.

    What is preempted is queued again by itself; a job that is lost with its node is submitted
    again, up to `RETRIES` times in a row without anything new saved.

    Args:
      tasks, told, stop_signal: as those of an `Engine`.
      submit: submits jobs, and returns submitit's.
    """
    running = dict(zip(tasks, submit(tasks), strict=True))
    before = {task: task.saved() for task in tasks}
    tries = dict.fromkeys(tasks, 0)
    failed: dict[str, str] = {}
    while running:
        if stop_signal():
            for job in running.values():
                job.cancel(check=False)  # by SIGTERM: they save
            return failed
        for task, job in list(running.items()):
            if not job.done():
                continue
            del running[task]
            if not (error := job.exception()):
                told(task, "finished")
                continue
            tries[task] = 1 if task.saved() != before[task] else tries[task] + 1
            before[task] = task.saved()
            said = _error_in(f"{job.stdout() or ''}\n{job.stderr() or ''}")
            raised = re.findall(r"^\w[\w.]*(?:Error|Exception): .*$", str(error), re.MULTILINE)
            status = re.search(r"exit status (-?\d+)", str(error))
            killed = status is not None and was_killed(int(status[1]))
            if (raised and not killed) or tries[task] > RETRIES:  # it would fail again
                failed[task.name] = said or [str(error).strip(), *raised][-1]
                told(task, "failed")
            else:
                told(task, "lost, and is submitted again")
                (running[task],) = submit([task])
        time.sleep(POLL_SECONDS)
    return failed
