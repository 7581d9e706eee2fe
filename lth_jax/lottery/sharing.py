"""A level's runs shared out among processes, and joined again.

Runs know nothing of one another, so that none has to wait for another one. Each process prunes and
rewinds for itself what it trains (from what the run directory holds, which all see), saves its runs
on the way when it likes, and again at their end. To join a share is to go on with runs that are at
their end: the first process does what is left of them, which is to measure them on the test split,
and writes tables and checkpoints. So a level that was stopped goes on however many processes there
are, and where each run trains on one device, alone, with the same bits.

What all must agree on is said over the channel: which runs are whose, that a share is done, that
one got a signal, failed or is gone. Whichever comes, all save and end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from lth_jax.errors import Interrupted, RunError, StoreError
from lth_jax.lottery.level import LevelTrainer, mean_density
from lth_jax.lottery.observer import Observer, Observers
from lth_jax.lottery.rows import FinishedRun
from lth_jax.lottery.run import Run
from lth_jax.processes.channel import Channel, Message, Received
from lth_jax.store import RunDirectory
from lth_jax.store.share import Share, wait_to_see
from lth_jax.store.tables import ResultRow, RunId

POLL_SECONDS = 0.1
LAST_SECONDS = 60.0  # how long the first process waits for the others to have saved

GOES_ON = "what the other processes did is saved, and the same command goes on"


class Trainers(Protocol):
    """Makes what trains runs of one level, by default to their rows."""

    def __call__(  # noqa: D102
        self,
        store: RunDirectory,
        observer: Observer,
        stop_signal: Callable[[], int],
        kind: type[LevelTrainer] | None = None,
    ) -> LevelTrainer: ...


class ShareTrainer(LevelTrainer):
    """Trains runs to their end and saves them there, for the process that joins them."""

    def train(self, level: int, runs: Sequence[Run]) -> dict[RunId, FinishedRun]:
        """Trains `runs`; returns none as finished, as what finishes them is done once, at the join.

        Raises:
          Interrupted: a signal came; everything that was done is saved.
        """
        self._save(level, self._trained(level, runs))
        return {}


def split(runs: Sequence[RunId], weights: Sequence[int]) -> list[list[RunId]]:
    """Returns the runs of each process: as many as it has weight, replicates together.

    A replicate is pruned by every process that trains a run of it. Where there are too few runs,
    the first processes have them.

    Args:
      runs: all to be trained.
      weights: the number of devices of each process.
    """
    ordered = sorted(runs, key=lambda run: run.replicate)
    # Rounded up, so that the first process, which joins the others', is never without.
    ends = [-(-len(runs) * sum(weights[: n + 1]) // sum(weights)) for n in range(len(weights))]
    return [ordered[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


class Shares:
    """Where the runs of a level are trained: here, all of them.

    Attributes:
      where: that, as the beginning of a phrase on devices.
    """

    where = ""

    def open(self, store: RunDirectory, observer: Observer) -> None:
        """An experiment that has work left is about to be built."""

    def built(self, devices: int, digest: str) -> None:
        """It is built, for so many devices here, with data of this digest."""

    def close(self) -> None:
        """It is trained, or had no work left."""

    def begin(self, level: int, todo: Sequence[RunId], stop_signal: Callable[[], int]) -> None:
        """Runs of a level are about to be pruned, rewound and trained."""

    def train(
        self,
        level: int,
        runs: Sequence[Run],
        trainer: Trainers,
        store: RunDirectory,
        observer: Observer,
        stop_signal: Callable[[], int],
    ) -> dict[RunId, FinishedRun]:
        """Trains runs that `begin` told of, as `LevelTrainer.train` does."""
        return trainer(store, observer, stop_signal).train(level, runs)


def join(
    level: int, shares: Sequence[Sequence[Run]], trainer: LevelTrainer
) -> dict[RunId, FinishedRun]:
    """Returns the finished runs of shares that are trained: what is left of each is done here.

    Share by share, so that no more lies on the devices at a time than one process trained.
    """
    finished: dict[RunId, FinishedRun] = {}
    for share in filter(None, shares):
        finished |= trainer.train(level, share)
    return finished


class Leader(Shares):
    """The first of several processes: it shares runs out, joins them, and alone writes and speaks.

    Args:
      channel: to the others.
    """

    def __init__(self, channel: Channel):
        self.channel = channel
        self.where = f"{channel.count} processes, here "
        self._store: RunDirectory | None = None
        self._observer = Observer()
        self._came: Callable[[], int] = lambda: 0
        self._devices: dict[int, int] = {}  # of each process that has built the experiment
        self._digest = ""
        self._shares: list[list[RunId]] = []
        self._task, self._working = 0, set[int]()
        self._ended: set[int] = set()
        self._signum = 0
        self._failure: RunError | None = None

    def open(self, store: RunDirectory, observer: Observer) -> None:
        """Lets the others build the experiment of a directory, which has work left."""
        self._store, self._observer, self._devices = store, observer, {}
        self.channel.send_all({"do": "build"})

    def built(self, devices: int, digest: str) -> None:
        """Takes note of the devices here, and of the digest of the data, which all must have."""
        self._devices[0], self._digest = devices, digest

    def close(self) -> None:
        """Lets the others go on to what comes after the experiment that was opened."""
        self.channel.send_all({"do": "next"})

    def begin(self, level: int, todo: Sequence[RunId], stop_signal: Callable[[], int]) -> None:
        """Shares the runs of a level out; the others begin with theirs.

        Raises:
          RunError: another process failed, or is gone; Interrupted: one got a signal.
        """
        self._came = stop_signal
        with self._all_ending():
            self._wait(lambda: len(self._devices) == self.channel.count, f"level {level}")
        weights = [self._devices[index] for index in range(self.channel.count)]
        self._shares = split(todo, weights)
        assert self._store is not None, "it was opened"
        rows = [dataclasses.astuple(row) for row in self._store.rows.values()]
        self._task += 1
        task = {"do": "train", "task": self._task, "level": level, "rows": rows}
        self._working = {other for other, runs in enumerate(self._shares) if other and runs}
        for other in self._working:
            self.channel.send(other, {**task, "runs": self._shares[other]})

    def train(
        self,
        level: int,
        runs: Sequence[Run],
        trainer: Trainers,
        store: RunDirectory,
        observer: Observer,
        stop_signal: Callable[[], int],
    ) -> dict[RunId, FinishedRun]:
        """Trains the share of this process, and joins all."""
        shares = [[run for run in runs if run.run_id in share] for share in self._shares]
        steps = sum(run.last_step - run.start.step for run in runs)
        own = Share(store.path, 0, store.rows.values())
        try:
            with self._all_ending():
                watching = _Whole(observer, len(runs), steps)
                if shares[0]:
                    # Copies: a run gives up where it starts as it begins, and is joined below.
                    mine = [dataclasses.replace(run) for run in shares[0]]
                    trainer(own, watching, self._stop, ShareTrainer).train(level, mine)
                else:  # its own could not be pruned
                    watching.level_started(level, mean_density(runs), 0, 0, 0)
                self._wait(lambda: not self._working, f"level {level}, whose other runs train")
        finally:
            store.problems += own.problems
        return join(level, shares, trainer(store, Observer(), stop_signal))

    def _stop(self) -> int:
        """Returns the signal that asks for a stop, whoever got it; a failure is one, too."""
        while received := self.channel.receive():
            self._hear(received)
        return self._came() or self._signum or (signal.SIGTERM if self._failure else 0)

    def _wait(self, done: Callable[[], bool], where: str) -> None:
        """Waits until it is done; Interrupted if it is to stop before."""
        while True:
            # First of all: a share of which nobody is at work any more may be lost, not done.
            if signum := self._stop():
                raise Interrupted(signum, where)
            if done():
                return
            if received := self.channel.receive(POLL_SECONDS):
                self._hear(received)

    def _hear(self, received: Received) -> None:
        other, message = received
        name = self.channel.names[other]
        if message is None:
            self._working.discard(other)
            if other not in self._ended:
                self._fail(f"{name} is gone; {GOES_ON}")
            self._ended.add(other)
        elif "ready" in message:
            self._devices[other] = message["ready"]
            if message["data"] != self._digest:
                self._fail(f"{name} has other data (digest {message['data']}, {self._digest} here)")
        elif "advanced" in message:
            self._observer.advanced(message["level"], message["advanced"], None, None)
        elif "note" in message:
            self._observer.note(message["note"])
        elif "done" in message:
            # Of an earlier task, where none of its runs could be pruned, it may come late.
            if message["done"] == self._task:
                self._working.discard(other)
            try:
                wait_to_see(Path(message["saved"]))
            except StoreError as error:
                self._fail(f"{name} has saved its share, but here {error}")
        else:
            self._ended.add(other)
            if "failed" in message:
                self._fail(f"{name}: {message['failed']}; {GOES_ON}")
            self._signum = self._signum or message.get("stopped", 0)

    def _fail(self, line: str) -> None:
        self._failure = self._failure or RunError(line)

    @contextlib.contextmanager
    def _all_ending(self) -> Iterator[None]:
        """Where the block within is stopped, lets the others save and end, too, and says why."""
        try:
            yield
        except Interrupted as stop:
            self._end_others(stop.signum)
            if self._failure:
                raise self._failure from None
            raise

    def _end_others(self, signum: int) -> None:
        """Asks the others to save and end, and waits for them as long as that may take."""
        self.channel.send_all({"do": "stop", "signum": signum})
        until = time.monotonic() + LAST_SECONDS
        while len(self._ended) < len(self.channel.others) and time.monotonic() < until:
            if received := self.channel.receive(POLL_SECONDS):
                self._hear(received)


class _Whole(Observers):
    """Tells of a level as of all its runs, of which other processes have a share."""

    def __init__(self, observer: Observer, runs: int, steps: int):
        super().__init__(observer)
        self._runs, self._steps = runs, steps

    def level_started(self, level: int, density: float, runs: int, steps: int, done: int) -> None:
        """Tells of all runs; what others did before, they say themselves."""
        del runs, steps
        self.tell("level_started", level, density, self._runs, self._steps, done)


class Ended(Exception):
    """The first process ended, and has said why.

    Attributes:
      status: its exit status.
    """

    def __init__(self, status: int):
        super().__init__(status)
        self.status = status


class Lost(RunError):
    """The first process is gone without a word: this one has to say so itself."""


class Follower:
    """One of the processes after the first: it trains what it is told to, and is silent.

    Args:
      channel: to the first.
    """

    def __init__(self, channel: Channel):
        self.channel = channel
        self._came: Callable[[], int] = lambda: 0
        self._tasks: deque[Message] = deque()
        self._signum, self._status, self._is_lost = 0, None, False

    def next(self) -> Message:
        """Returns what to do next, once the first process says so.

        Raises:
          Ended, Lost: of the first process; Interrupted: a signal came, here or elsewhere.
        """
        while not self._tasks:
            self.check()
            if received := self.channel.receive(POLL_SECONDS):
                self._hear(received)
        return self._tasks.popleft()

    def check(self) -> None:
        """Raises what `next` does, if there is reason to."""
        if self._status is not None:
            raise Ended(self._status)
        if self._is_lost:
            raise Lost(f"{self.channel.names[0]} is gone; {GOES_ON}")
        if signum := self._came() or self._signum:
            raise Interrupted(signum, "its share")

    def built(self, devices: int, digest: str) -> None:
        """Tells that the experiment is built, for so many devices and with data of that digest."""
        self.channel.send(0, {"ready": devices, "data": digest})

    def follow(
        self,
        train: Callable[[int, Sequence[RunId], Observer, Callable[[], int]], object],
        share: Share,
        came: Callable[[], int],
    ) -> None:
        """Trains shares until the first process says that the experiment is done.

        Args:
          train: prunes, rewinds and trains runs of a level; it is given who is told, and the
            function that gives the number of a signal.
          share: this process's run directory.
          came: gives the number of a signal that came here, or 0.

        Raises:
          as `next`; what was trained until then is saved.
        """
        self._came = came
        try:
            while (task := self.next())["do"] == "train":
                share.knows(ResultRow(*row) for row in task["rows"])
                runs, told = [RunId(*run) for run in task["runs"]], _Telling(self.channel)
                try:
                    train(task["level"], runs, told, self._stop)
                except Interrupted:
                    self.check()
                    raise
                saved = share.progress_checkpoints()
                place = str(saved[-1] if saved else share.path)
                self.channel.send(0, {"done": task["task"], "saved": place})
        finally:
            self._came = lambda: 0

    def _stop(self) -> int:
        while received := self.channel.receive():
            self._hear(received)
        gone = self._is_lost or self._status is not None
        return self._came() or self._signum or (signal.SIGTERM if gone else 0)

    def _hear(self, received: Received) -> None:
        message = received.message
        if message is None:
            self._is_lost = True
        elif message["do"] == "stop":
            self._signum = message["signum"]
        elif message["do"] == "end":
            self._status = message["status"]
        else:
            self._tasks.append(message)


class _Telling(Observer):
    """Tells the first process how far a share is."""

    def __init__(self, channel: Channel):
        self._channel = channel

    def level_started(self, level: int, density: float, runs: int, steps: int, done: int) -> None:
        """Tells what an earlier session did."""
        del density, runs, steps
        self.advanced(level, done, None, None)

    def advanced(
        self, level: int, steps: int, loss: float | None, val_accuracy: float | None
    ) -> None:
        """Tells of the steps."""
        del loss, val_accuracy
        if steps:
            self._channel.send(0, {"advanced": steps, "level": level})

    def note(self, message: str) -> None:
        """Tells it."""
        self._channel.send(0, {"note": f"process {self._channel.index}: {message}"})
