"""The campaign: faults of every kind are injected one by one, and what came of each is judged.

Each fault is a function of the seed, its kind and its number alone, so that any can be repeated.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import faulthandler
import functools
import io
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lth_jax.store.tables import RunId

from ..tiny import StopAtPause
from . import damage, fields, scenarios, strangers
from .disk import FAIL, FILL, FREEZE, PASS, TEAR, Disk
from .judgement import Lost, Traceback, Wrong, check, check_line
from .processes import Processes
from .scenarios import SCENARIOS, Answer, Scenario, copy, facts, files, said, shown, train

STAGES = ("fresh", "small", "stopped", "finished", "looked at")
COMPUTING, WAITING = 60, 300  # seconds after which a command hangs


class Hanging(BaseException):
    """A command hangs; no `except Exception` of its own is to catch that."""


@dataclasses.dataclass
class Tally:
    """What came of the faults of one kind."""

    injected: int = 0
    survived: int = 0
    lost: int = 0
    wrong: int = 0
    tracebacks: int = 0
    seconds: float = 0.0


@dataclasses.dataclass
class Undamaged:
    """A scenario at each stage of its life.

    Attributes:
      scenario: which.
      stages: name -> a run directory; `fresh` is none yet.
      facts: every number of the finished one.
      said: what `inspect` says of the finished one.
      calls: (stage, call) -> how many of them the rest of the run makes.
    """

    scenario: Scenario
    stages: dict[str, Path]
    facts: dict[str, Any]
    said: dict[str, Any]
    calls: dict[tuple[str, str], int]


class Campaign:
    """Injects faults below a folder of its own.

    Args:
      folder: where.
      seed: of all that is chosen.
      disk: the library between this process and its disk; None where it is not preloaded.
    """

    def __init__(self, folder: Path, seed: str, disk: Disk | None):
        self.folder, self.seed, self.disk = folder, seed, disk
        self.tallies: dict[str, Tally] = {}
        self.problems: list[str] = []
        self.undamaged: list[Undamaged] = []
        self.processes = Processes(folder)

    # Preparation

    def prepare(self, names: list[str]) -> None:
        """Trains the scenarios, undamaged."""
        for scenario in SCENARIOS:
            if scenario.name in names:
                self.undamaged.append(self._prepare(scenario))

    @functools.cached_property
    def strangers(self) -> strangers.Strangers:
        """Returns what brings files of others, beside the finished runs of this campaign."""
        runs = [one.stages["finished"] for one in self.undamaged]
        return strangers.Strangers(self.folder / "strangers", runs)

    def _prepare(self, scenario: Scenario) -> Undamaged:
        home = self.folder / "undamaged" / scenario.name.replace(" ", "-")
        stages = {name: home / name for name in STAGES}
        self._must(train(stages["small"], scenario.small))
        with scenarios.listening(StopAtPause(scenario.pause)):
            answer = train(stages["stopped"], scenario.whole)
        if answer.status != 130:
            raise AssertionError(answer.err)
        self._must(train(stages["finished"], scenario.whole))
        calls: dict[tuple[str, str], int] = {}
        if self.disk:
            for stage in ("fresh", "small", "stopped"):
                path = copy(stages[stage], self.folder / "run")
                self.disk.arm(path, "write", PASS)
                self._must(train(path, scenario.whole))
                calls |= {(stage, call): n for call, n in self.disk.counts().items()}
                self.disk.disarm()
        finished = stages["finished"]
        copy(finished, stages["looked at"])
        return Undamaged(scenario, stages, facts(finished), said(shown(finished)), calls)

    @staticmethod
    def _must(answer: Answer) -> None:
        if answer.status != 0:
            raise AssertionError(answer.err)

    # One fault

    def inject(self, kind: str, number: int) -> None:
        """Injects one fault, and counts what came of it."""
        rng = random.Random(f"{self.seed}/{kind}/{number}")
        tally = self.tallies.setdefault(kind, Tally())
        tally.injected += 1
        self.what = ""
        began = time.monotonic()
        try:
            with hanging():
                KINDS[kind](self, rng)
        except Wrong as error:
            tally.wrong += 1
            self._note("wrong", kind, number, error)
        except Lost as error:
            tally.lost += 1
            self._note("lost", kind, number, error)
        except (Exception, Hanging) as error:
            tally.tracebacks += 1
            self._note("traceback", kind, number, error)
        else:
            tally.survived += 1
        finally:
            if self.disk:
                self.disk.disarm()
            tally.seconds += time.monotonic() - began

    def _note(self, what: str, kind: str, number: int, error: BaseException) -> None:
        text = " ".join(str(error).split()) if isinstance(error, Wrong | Lost) else str(error)
        if not isinstance(error, Wrong | Lost | Traceback):
            import traceback

            text = "".join(traceback.format_exception(error))
        self.problems.append(f"{what}: {kind}:{number} ({self.what}): {text[-1500:]}")
        print(self.problems[-1], flush=True)

    def _any(self, rng: random.Random, *stages: str) -> tuple[Undamaged, str, Path]:
        chosen = rng.choice(self.undamaged)
        stage = rng.choice(stages)
        path = copy(chosen.stages[stage], self.folder / "run")
        self.what = f"{chosen.scenario.name}, {stage}"
        return chosen, stage, path

    # Judgement

    def same(self, wanted: dict[str, Any], path: Path, *, named: str = "") -> None:
        """Checks that a run directory holds the undamaged numbers; what is damaged is `named`."""
        found = facts(path)
        for name, value in wanted.items():
            if found.get(name) != value:
                if named and found.get(name) is None:
                    continue
                raise Wrong(f"{name} differs: {_short(found.get(name), value)}")

    def goes_on(self, chosen: Undamaged, path: Path, *, after: set[Any] | None = None) -> None:
        """Runs the experiment to its end; it ends with the bits of the undamaged one.

        Args:
          chosen: the scenario.
          path: its run directory.
          after: the runs that were recorded there, which must not be trained again.
        """
        answer = train(path, chosen.scenario.whole)
        check(answer)
        if answer.status != 0:
            raise Wrong(f"it does not go on: {answer.err[-800:]}")
        self.same(chosen.facts, path)
        again = {run_id for place, run_id in answer.trained if place == path} & (after or set())
        if again:
            raise Lost(f"trained again: {sorted(again)[:3]}: {answer.err[-500:]}")

    def recorded(self, path: Path) -> set[Any]:
        """Returns the runs that a run directory has rows of; it must be readable."""
        if not (path / "spec.json").exists():
            return set()
        answer = shown(path)
        check(answer)
        if answer.status != 0:
            raise Wrong(f"it cannot be inspected: {answer.err[-500:]}")
        found = said(answer)
        if found["problems"]:
            raise Wrong(f"a kill left damage: {found['problems'][:3]}")
        return {
            RunId(*(row[name] for name in ("branch", "level", "replicate", "draw")))
            for row in found["results"]
        }

    # Kinds

    def kill(self, rng: random.Random) -> None:
        """Lets nothing reach the disk from the n-th call on, then starts again."""
        assert self.disk
        chosen, stage, path = self._any(rng, "fresh", "small", "stopped")
        call = rng.choice(["write", "fsync", "rename", "unlink", "create"])
        count = chosen.calls[stage, call]
        if not count:
            return
        n = rng.randint(1, count)
        action = rng.choice([FREEZE, TEAR]) if call == "write" else FREEZE
        self.what += f", {call} {n} of {count}"
        self.disk.arm(path, call, action, n)
        # Whatever this process says, which is dead by then and need not train on for long.
        with scenarios.listening(lambda: signal.SIGTERM if self.disk and self.disk.fired() else 0):
            train(path, chosen.scenario.whole)
        self.disk.disarm()
        self.goes_on(chosen, path, after=self.recorded(path))

    def failing_disk(self, rng: random.Random) -> None:
        """Lets the n-th call fail, or all from it on."""
        assert self.disk
        chosen, stage, path = self._any(rng, "fresh", "small", "stopped")
        full = rng.random() < 0.5
        calls = ["write", "create"] if full else ["write", "fsync", "rename", "unlink", "create"]
        call = rng.choice(calls)
        count = chosen.calls[stage, call]
        if not count:
            return
        n = rng.randint(1, count)
        numbers = ["ENOSPC", "EROFS", "EDQUOT"] if full else ["EIO", "ENOSPC", "EACCES", "EPERM"]
        number = rng.choice(numbers)
        self.what += f", {call} {n} of {count}: {number}{' from there on' if full else ''}"
        before = self.recorded(path)
        self.disk.arm(path, call, FILL if full else FAIL, n, getattr(errno, number))
        answer = train(path, chosen.scenario.whole)
        self.disk.disarm()
        check(answer)
        after = self.recorded(path)
        if not before <= after:
            raise Lost(f"rows: {sorted(before - after)[:3]}")
        if answer.status == 0:
            self.same(chosen.facts, path)
        self.goes_on(chosen, path, after=after)

    def failing_read(self, rng: random.Random) -> None:
        """Lets the n-th file that is opened to be read fail: what cannot be read is not damaged."""
        assert self.disk
        chosen, stage, path = self._any(rng, "small", "stopped", "finished")
        count = chosen.calls.get((stage, "read"), 60)
        n, number = (
            rng.randint(1, count),
            rng.choice(["EIO", "EMFILE", "ENFILE", "ENOMEM", "EACCES"]),
        )
        self.what += f", open {n} of {count}: {number}"
        before, kept = self.recorded(path), facts(path)
        look = stage == "finished"
        self.disk.arm(path, "read", FAIL, n, getattr(errno, number))
        answer = shown(path) if look else train(path, chosen.scenario.whole)
        self.disk.disarm()
        check(answer)
        if look and answer.status == 0:
            found = said(answer)
            if found != chosen.said and not found["problems"]:
                raise Wrong(f"inspect says something else: {_differs(found, chosen.said)}")
        now = facts(path)
        gone = [name for name, value in kept.items() if value is not None and now.get(name) is None]
        if gone:
            raise Lost(f"gone: {gone[:3]}")
        if not look:
            if answer.status == 0:
                self.same(chosen.facts, path)
            self.goes_on(chosen, path, after=before)

    def damaged(self, rng: random.Random, kind: str) -> None:
        """Damages one file, looks at the run, and sometimes starts it again."""
        if kind == "exchange" or rng.random() < 0.03:
            chosen, stage, path = self._any(rng, "finished", "stopped")
            name = self._spoil(rng, kind, path)
            self._look(chosen, stage, path, name)
            self._start_damaged(chosen, path, name)
            return
        # Who only looks changes nothing: instead of the whole copy, the one file is put back.
        chosen = rng.choice(self.undamaged)
        path = chosen.stages["looked at"]
        self.what = chosen.scenario.name
        name = self._spoil(rng, kind, path)
        try:
            self._look(chosen, "finished", path, name)
        finally:
            if (path / name).is_dir() and not (path / name).is_symlink():
                (path / name).rmdir()
            (path / name).unlink(missing_ok=True)
            shutil.copy2(chosen.stages["finished"] / name, path / name)

    def _spoil(self, rng: random.Random, kind: str, path: Path) -> str:
        """Damages one file of a run directory; returns its name."""
        names = list(files(path))
        # Checkpoints have many small files: tables and records get their share.
        few = [name for name in names if "checkpoints" not in name]
        if kind == "exchange":  # another run's record is a record
            names = [name for name in names if not name.endswith("spec.json")]
            few = names
        name = rng.choice(few if rng.random() < 0.5 else names)
        self.what += f", {name}: {damage.DAMAGES[kind](rng, path / name)}"
        return name

    def _look(self, chosen: Undamaged, stage: str, path: Path, name: str) -> None:
        """Inspects a damaged run: what is damaged is named, and nothing else is shown than was."""
        harmless = _read(path / name) == _read(chosen.stages[stage] / name)
        within = path / "source" if name.startswith("source/") else path
        answer = shown(within)
        check(answer)
        if answer.status != 0 or within != path or stage != "finished":
            return
        found = said(answer)
        if found["problems"] and harmless:
            raise Wrong(f"what is sound is called damaged: {found['problems'][:2]}")
        # A line that is taken out, as one repairs a table, is a run that is to be trained again.
        taken_out = found["status"] == "stopped" and len(found["results"]) < len(
            chosen.said["results"]
        )
        if found != chosen.said and not found["problems"] and not taken_out:
            raise Wrong(f"inspect says something else: {_differs(found, chosen.said)}")
        other = [row for row in found["results"] if row not in chosen.said["results"]]
        if other:
            raise Wrong(f"a row that is none: {other[0]}")

    def _start_damaged(self, chosen: Undamaged, path: Path, name: str) -> None:
        """Starts a damaged run: it ends with its bits, or in one line with nothing else changed."""
        before, kept = files(path), facts(path)
        answer = train(path, chosen.scenario.whole)
        check(answer)
        if answer.status == 0:
            folders = [one for one in (path, path / "source") if one.exists()]
            looks = [shown(one) for one in folders]
            named = [look.err if look.status else said(look)["problems"] for look in looks]
            self.same(chosen.facts, path, named=str(named) if any(named) else "")
            return
        now, found = files(path), facts(path)
        if found == kept:  # it did not go on: nothing else may have changed
            free = (name, "spec.json", "source/spec.json")
            gone = [one for one in before if now.get(one) != before[one] and one not in free]
        else:
            gone = [one for one in kept if kept[one] and not _holds(found.get(one), kept[one])]
        if gone:
            raise Lost(f"exit {answer.status}, and changed: {gone[:3]}: {answer.err[-300:]}")

    def brought(self, rng: random.Random, kind: str) -> None:
        """Reads what a stranger brought."""
        try:
            strangers.KINDS[kind](self.strangers, rng)
        finally:
            self.what = self.strangers.what

    def config_field(self, rng: random.Random) -> None:
        """Sets fields to nonsense."""
        self.what, line = fields.inject(rng)
        if line is not None:
            check_line(line)

    def stream(self, rng: random.Random) -> None:
        """Lets a standard stream fail from its n-th write on."""
        chosen, _, path = self._any(rng, "stopped")
        number, n = (
            rng.choice([errno.EIO, errno.ENOSPC, errno.EPIPE, errno.EBADF]),
            rng.randint(0, 40),
        )
        which = rng.choice(["stdout", "stderr"])
        self.what += f", {which}, write {n}: {errno.errorcode[number]}"
        real = getattr(sys, which)
        answer = None
        out, err = io.StringIO(), io.StringIO()
        streams = {"stdout": out, "stderr": err, which: Failing(n, number)}
        with (
            contextlib.redirect_stdout(streams["stdout"]),
            contextlib.redirect_stderr(streams["stderr"]),
        ):
            status = scenarios.run.main([*chosen.scenario.whole, f"--workdir={path}"])
        answer = Answer(status, "", err.getvalue(), set())
        assert getattr(sys, which) is real
        check(answer)
        self.same(chosen.facts, path)

    def real_kill(self, rng: random.Random) -> None:
        """Kills a process at an instant, or at its n-th call."""
        chosen, stage, path = self._any(rng, "fresh", "small", "stopped")
        how: tuple[str, int] | float = rng.uniform(0.0, 4.0)
        if self.disk and rng.random() < 0.7:
            call = rng.choice(["write", "rename", "create", "unlink"])
            if count := chosen.calls[stage, call]:
                how = (call, rng.randint(1, count))
        self.what += f", SIGKILL at {how}"
        self.processes.run(path, chosen.scenario.whole, kill=how)
        self.goes_on(chosen, path, after=self.recorded(path))

    def signalled(self, rng: random.Random) -> None:
        """Sends a process signals that ask for an end, at any instants."""
        chosen, _, path = self._any(rng, "fresh", "small", "stopped")
        names = [
            rng.choice(["SIGINT", "SIGTERM", "SIGHUP"]) for _ in range(rng.choice([1, 1, 2, 3]))
        ]
        times = sorted(rng.uniform(0.0, 4.0) for _ in names)
        if rng.random() < 0.5:
            times = [times[0] + 0.02 * index for index in range(len(names))]
        self.what += f", {', '.join(f'{n} at {t:.2f}' for n, t in zip(names, times, strict=True))}"
        sent = [(getattr(signal, name), at) for name, at in zip(names, times, strict=True)]
        answer = self.processes.run(path, chosen.scenario.whole, signals=sent)
        check(answer)
        if answer.status not in (0, *(128 + number for number, _ in sent)):
            raise Wrong(f"exit {answer.status} after signals: {answer.err[-300:]}")
        self.goes_on(chosen, path, after=self.recorded(path))

    def two(self, rng: random.Random) -> None:
        """Starts a second process on a directory."""
        chosen, _, path = self._any(rng, "fresh", "small", "stopped")
        wait = rng.uniform(0.0, 1.5)
        self.what += f", a second process after {wait:.2f} s"
        first, second = self.processes.both(path, chosen.scenario.whole, wait)
        for answer in (first, second):
            check(answer)
            if answer.status != 0 and "in use" not in answer.err:
                raise Wrong(f"exit {answer.status}: {answer.err[-300:]}")
        if first.status and second.status:
            raise Wrong("neither went on")
        self.goes_on(chosen, path, after=self.recorded(path))

    def environment(self, rng: random.Random) -> None:
        """Starts a process in odd surroundings."""
        chosen, _, path = self._any(rng, "stopped")
        name = rng.choice(list(ENVIRONMENTS))
        value = rng.choice(ENVIRONMENTS[name])
        self.what += f", {name}={value}"
        answer = self.processes.run(path, chosen.scenario.whole, environment={name: value})
        check(answer)
        if answer.status == 0:
            if "no native kernels" in answer.err:
                chosen = self._by_xla(chosen)
            self.same(chosen.facts, path)
        self.goes_on(chosen, path)

    def _by_xla(self, chosen: Undamaged) -> Undamaged:
        """Returns a stopped run with the facts of one that went on without native kernels.

        A run says which kernels trained it, and those of XLA round otherwise.
        """
        path = copy(chosen.stages["stopped"], self.folder / "by XLA")
        self._must(self.processes.run(path, [*chosen.scenario.whole, "--config.train.kernel=xla"]))
        return dataclasses.replace(chosen, facts=facts(path))


ENVIRONMENTS: dict[str, list[str | None]] = {
    "HOME": [None, "", "/nonexistent", "/dev/null"],
    "XDG_CACHE_HOME": ["", "/dev/null/x", "/proc", "relative"],
    "TMPDIR": ["/nonexistent", "/dev/null"],
    "TERM": [None, "", "dumb", "xterm-256color", "no such terminal"],
    "COLUMNS": ["", "0", "-1", "1", "x", "100000"],
    "LINES": ["x", "0"],
    "NO_COLOR": ["1"],
    "FORCE_COLOR": ["1"],
    "CXX": ["", 'g++ "', "/nonexistent", "false", "true"],
    "LC_ALL": ["C", "POSIX", "xx_YY.UTF-8"],
    "TFDS_DATA_DIR": [None, "", "/nonexistent", "/dev/null", "\t"],
    "MPLBACKEND": ["no such backend"],
    "OMP_NUM_THREADS": ["0", "x"],
    "SOURCE_DATE_EPOCH": ["x"],
    "PWD": ["/nonexistent"],
}


class Failing(io.StringIO):
    """A stream that fails from its n-th write on."""

    def __init__(self, n: int, number: int):
        super().__init__()
        self.left, self.number = n, number

    def write(self, text: str) -> int:
        """Writes, or fails."""
        self.left -= 1
        if self.left < 0:
            raise OSError(self.number, os.strerror(self.number))
        return super().write(text)

    def flush(self) -> None:
        """Flushes, or fails."""
        if self.left < 0:
            raise OSError(self.number, os.strerror(self.number))


@contextlib.contextmanager
def hanging() -> Iterator[None]:
    """Raises Hanging where the block computes or waits for too long.

    What it computes is measured by its own seconds, since other work may slow a machine down.
    """

    def alarm(*_: object) -> None:
        raise Hanging(f"it hangs: {COMPUTING} s of computing or {WAITING} s in all are over")

    faulthandler.dump_traceback_later(2 * WAITING)  # where not even the alarm comes through
    timers = {
        signal.SIGPROF: (signal.ITIMER_PROF, COMPUTING),
        signal.SIGALRM: (signal.ITIMER_REAL, WAITING),
    }
    before = {signum: signal.signal(signum, alarm) for signum in timers}
    for timer, seconds in timers.values():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for timer, _ in timers.values():
            signal.setitimer(timer, 0)
        faulthandler.cancel_dump_traceback_later()
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _holds(found: Any, kept: Any) -> bool:
    """Whether a table has all rows that it had, and whether arrays are what they were."""
    if isinstance(found, list) and isinstance(kept, list):
        return all(row in found for row in kept)
    return found == kept


def _read(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def _short(found: Any, wanted: Any) -> str:
    if isinstance(found, list) and isinstance(wanted, list):
        odd = [row for row in found if row not in wanted]
        return f"{len(found)} rows, not {len(wanted)}; {odd[:1]}"
    if isinstance(found, dict) and isinstance(wanted, dict):
        return f"arrays {[name for name in wanted if found.get(name) != wanted[name]][:3]}"
    return f"{str(found)[:200]} is not {str(wanted)[:200]}"


def _differs(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    names = [name for name in wanted if found.get(name) != wanted[name]]
    return f"{names}: {str(found.get(names[0]) if names else found)[:300]}"


KINDS: dict[str, Callable[[Campaign, random.Random], None]] = {
    "field of a config": Campaign.config_field,
    **{
        kind: lambda campaign, rng, kind=kind: campaign.damaged(rng, kind)
        for kind in damage.DAMAGES
    },
    **{
        kind: lambda campaign, rng, kind=kind: campaign.brought(rng, kind)
        for kind in strangers.KINDS
    },
    "kill at a call": Campaign.kill,
    "full or failing disk": Campaign.failing_disk,
    "failing read": Campaign.failing_read,
    "failing stream": Campaign.stream,
    "kill of a process": Campaign.real_kill,
    "signals": Campaign.signalled,
    "two processes": Campaign.two,
    "environment": Campaign.environment,
}
# How many of each kind are injected in turn: those that take a second or more are rarer.
SHARES = {
    "field of a config": 400,
    "bit flip": 240,
    "truncation": 120,
    "plausible edit": 240,
    "something else": 90,
    "exchange": 5,
    "forged file": 90,
    "odd image": 120,
    "damaged cache": 90,
    "nonsense arguments": 120,
    "kill at a call": 30,
    "full or failing disk": 6,
    "failing read": 6,
    "failing stream": 3,
    "kill of a process": 3,
    "signals": 1,
    "two processes": 0.5,
    "environment": 1,
}
NEED_DISK = ("kill at a call", "full or failing disk", "failing read")
NEED_PROCESSES = ("kill of a process", "signals", "two processes", "environment")


def run(campaign: Campaign, seconds: float, kinds: list[str]) -> None:
    """Injects faults of these kinds, in their shares, until the time is over."""
    done = dict.fromkeys(kinds, 0)
    end = time.monotonic() + seconds
    rounds = 0.0
    while time.monotonic() < end:
        rounds += 0.05
        for kind in kinds:
            while done[kind] < SHARES[kind] * rounds and time.monotonic() < end:
                campaign.inject(kind, done[kind])
                done[kind] += 1


def table(campaign: Campaign) -> str:
    """Returns the table of what came of the faults, in Markdown."""
    columns = [field.name for field in dataclasses.fields(Tally)]
    lines = ["| fault | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    whole = Tally()
    for kind, tally in campaign.tallies.items():
        values = [getattr(tally, name) for name in columns]
        lines.append(f"| {kind} | " + " | ".join(f"{value:,.0f}" for value in values) + " |")
        for name, value in zip(columns, values, strict=True):
            setattr(whole, name, getattr(whole, name) + value)
    values = [getattr(whole, name) for name in columns]
    lines.append("| all | " + " | ".join(f"{value:,.0f}" for value in values) + " |")
    return "\n".join(lines)
