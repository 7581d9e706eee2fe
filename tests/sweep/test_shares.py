"""One experiment by many workers: the bits of one process, however often a worker is lost."""

import re
import signal

import pytest

from lth_jax.errors import Interrupted, RunError, SpecError
from lth_jax.lottery.observer import Observer
from lth_jax.lottery.plan import planned_runs
from lth_jax.lottery.runner import Runner
from lth_jax.store import RunDirectory
from lth_jax.store.share import Share
from lth_jax.sweep.shares import ShareTask, Tasks, name_of, on_slurm, parse

from ..tiny import (
    Recorder,
    StopAt,
    StopAtPause,
    assert_same_run,
    experiment,
    finished_run,
    tiny_spec,
    train,
)

SPEC = tiny_spec(levels=1, replicates=5, rewind__step="7", branches=("random_mask",))


class Here:
    """An engine whose workers are this process, one after another.

    Args:
      lost: for each worker by its name, the pauses after which it is lost, as often as there are.
      fails: the worker that fails for good.
    """

    def __init__(self, path, spec, lost=(), fails=""):
        self.path, self.spec, self.lost, self.fails = path, spec, dict(lost), fails
        self.started = []

    def __call__(self, tasks, told, stop_signal):
        for task in tasks:
            if stop_signal():
                return {}
            if task.name == self.fails:
                task.log.parent.mkdir(exist_ok=True)
                task.log.write_text("loading\nerror: the disk is full\n")
                return {task.name: "exit status 1"}
            self._work(task, self.lost.pop(task.name, None), told)
        return {}

    def _work(self, task, pause, told):
        before = task.saved()
        index, level, runs = parse(self.spec, task.command[-1].removeprefix("--share="))
        self.started.append((task.name, len(runs)))
        store = Share(self.path, index, RunDirectory.read(self.path).rows.values())
        runner = Runner(experiment(self.spec), store, Observer())
        told(task, "started")
        try:
            runner.train_share(level, runs, Observer(), StopAtPause(pause) if pause else lambda: 0)
        except Interrupted:
            assert task.saved() != before
            told(task, "killed, and is started again")
            self._work(task, None, told)
        else:
            told(task, "finished")


def run(path, spec, engine, count=5, came=lambda: 0, observer=None):
    store = RunDirectory.open(path, spec, "tiny", ["run.py"])
    shares = Tasks(spec, path, count, ["worker"], engine)
    try:
        Runner(experiment(spec), store, observer or Observer(), None, came, shares).run()
    finally:
        store.close()


@pytest.mark.slow
def test_five_replicates_on_five_workers_have_the_bits_of_one_and_a_lost_one_goes_on(
    tmp_path, single_steps
):
    engine, seen = Here(tmp_path, SPEC, {"share_1": 3, "share_4": 8}), Recorder()
    run(tmp_path, SPEC, engine, observer=seen)
    first = [("share_0", 1), ("share_1", 1), ("share_1", 1), ("share_2", 1), ("share_3", 1),
             ("share_4", 1), ("share_4", 1)]  # fmt: skip
    assert engine.started == [*first, *((f"share_{n}", 2) for n in range(5))]
    assert_same_run(tmp_path, finished_run(SPEC))
    assert list((tmp_path / "checkpoints").glob("share_*")) == []
    assert [(runs, steps) for _, _, runs, steps, _ in seen.of("level_started")] == [
        (5, 60), (10, 50)
    ]  # fmt: skip
    assert sum(steps for _, steps, *_ in seen.of("advanced")) == 110
    assert ("share_1 of level 0: killed, and is started again",) in seen.of("note")


@pytest.mark.slow
def test_a_level_may_be_begun_by_workers_and_ended_by_one_process_or_fewer_of_them(
    tmp_path, single_steps
):
    with pytest.raises(RunError, match=r"^share_2 of level 0: the disk is full$"):
        run(tmp_path, SPEC, Here(tmp_path, SPEC, fails="share_2"))
    with pytest.raises(Interrupted):
        train(tmp_path, SPEC, StopAt(level=0, updates=30))
    engine = Here(tmp_path, SPEC)
    stop = StopAfter(engine, 5)
    with pytest.raises(Interrupted) as stopped:
        run(tmp_path, SPEC, engine, count=3, came=stop)
    assert stopped.value.signum == signal.SIGTERM
    train(tmp_path, SPEC)
    assert_same_run(tmp_path, finished_run(SPEC))


class StopAfter:
    """A signal that comes once so many workers were started."""

    def __init__(self, engine, count):
        self.engine, self.count = engine, count

    def __call__(self):
        return signal.SIGTERM if len(self.engine.started) >= self.count else 0


def test_a_share_has_a_name_that_says_all_of_it():
    runs = [run for run in planned_runs(SPEC) if run.level == 1]
    assert parse(SPEC, name_of(SPEC, 3, 1, runs[::2])) == (3, 1, runs[::2])
    for wrong in ("", "1:0", "0:0:99", "0:1:0", "a:0:0", "0:0:"):
        with pytest.raises(SpecError, match=re.escape(f"--share={wrong}: ")):
            parse(SPEC, wrong)


class Job:
    """A job as submitit has it."""

    def __init__(self, error=None, said=""):
        self.error, self.said, self.cancelled = error, said, False

    def done(self):
        return True

    def exception(self):
        return self.error

    def stdout(self):
        return None

    def stderr(self):
        return self.said

    def cancel(self, check):
        self.cancelled = True


def test_a_job_that_is_lost_is_submitted_again_and_one_that_fails_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr("lth_jax.sweep.shares.POLL_SECONDS", 0.0)
    tasks = [ShareTask(n, (), "", tmp_path / n, tmp_path / "log") for n in ("a", "b", "c")]
    lost = RuntimeError("Job 7 has not produced any output (state: NODE_FAIL)")
    trace = "Job failed with trace:\nRuntimeError: {}: exit status {}\n  - logs"
    failing = RuntimeError(trace.format("b", 2))
    ends = {
        "a": [Job(lost), Job(RuntimeError(trace.format("a", 137))), Job()],
        "b": [Job(failing, "error: no such data\nTraceback")],
        "c": [Job(lost)] * 9,
    }
    told = []
    failed = on_slurm(
        tasks,
        lambda task, what: told.append((task.name, what)),
        lambda: 0,
        lambda some: [ends[task.name].pop(0) for task in some],
    )
    assert failed == {"b": "no such data", "c": str(lost)}
    assert [what for name, what in told if name == "a"] == [
        "lost, and is submitted again", "lost, and is submitted again", "finished"
    ]  # fmt: skip
    assert len(ends["c"]) == 9 - 4
    job = Job()
    assert on_slurm(tasks[:1], lambda *_: None, lambda: 15, lambda _: [job]) == {}
    assert job.cancelled
