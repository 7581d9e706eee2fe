"""Processes of `run`, forked from one that has imported everything and begun nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .scenarios import Answer

SECONDS = 120  # after which a process is killed, and said to hang


class Processes:
    """Starts and ends processes.

    Args:
      folder: where what they print goes.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._server: subprocess.Popen[str] | None = None
        self._number = 0

    def start(self) -> None:
        """Starts the process that the others are forked from."""
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._ask({})  # it answers once everything is imported

    def close(self) -> None:
        """Ends it."""
        if self._server:
            self._server.kill()
            self._server.wait()

    def run(
        self,
        path: Path,
        given: Sequence[str],
        *,
        kill: tuple[str, int] | float | None = None,
        signals: Sequence[tuple[int, float]] = (),
        environment: Mapping[str, str | None] | None = None,
    ) -> Answer:
        """Runs an experiment in a process of its own.

        Args:
          path: its run directory.
          given: its arguments.
          kill: the call at which it is killed (which, and the how many-th), or after how many
            seconds.
          signals: (number, seconds) of signals that it gets.
          environment: what is changed of it; None takes a variable away.
        """
        arm = list(kill) if isinstance(kill, tuple) else None
        process = self._fork(path, given, arm=arm, environment=dict(environment or {}))
        if isinstance(kill, float):
            signals = [(signal.SIGKILL, kill)]
        began = time.monotonic()
        for number, at in signals:
            if process.wait(max(0.0, at - (time.monotonic() - began))) is None:
                process.send(number)
        return process.answer()

    def both(self, path: Path, given: Sequence[str], wait: float) -> tuple[Answer, Answer]:
        """Runs two processes in one directory, the second after `wait` seconds."""
        first = self._fork(path, given)
        time.sleep(wait)
        second = self._fork(path, given)
        return first.answer(), second.answer()

    def _fork(self, path: Path, given: Sequence[str], **more: Any) -> _Process:
        self._number += 1
        out, err = (self._folder / f"{name}_{self._number}" for name in ("out", "err"))
        arguments = [*given, f"--workdir={path}"]
        streams = {"out": str(out), "err": str(err)}
        answer = self._ask({"arguments": arguments, "folder": str(path), **streams, **more})
        return _Process(answer["pid"], out, err)

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        assert self._server
        requests, answers = self._server.stdin, self._server.stdout
        assert requests
        assert answers
        requests.write(json.dumps(request) + "\n")
        requests.flush()
        return json.loads(answers.readline())


class _Process:
    """A process that the server forked; it writes its status beside its output when it ended."""

    def __init__(self, pid: int, out: Path, err: Path):
        self.pid, self.out, self.err = pid, out, err
        self.status_file = out.with_name(f"{out.name}.status")

    def wait(self, seconds: float) -> int | None:
        """Waits for its end; returns its status, or None where it goes on."""
        end = time.monotonic() + seconds
        while True:
            if self.status_file.exists():
                return int(self.status_file.read_text())
            if time.monotonic() >= end:
                return None
            time.sleep(0.005)

    def send(self, number: int) -> None:
        """Sends a signal."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return

    def answer(self) -> Answer:
        """Waits for its end, and returns what it said."""
        status = self.wait(SECONDS)
        if status is None:
            self.send(signal.SIGKILL)
            self.wait(SECONDS)
        texts = [file.read_text("utf-8", "replace") for file in (self.out, self.err)]
        for file in (self.out, self.err, self.status_file):
            file.unlink(missing_ok=True)
        if status is None:
            texts[1] += f"\nTraceback: none, it hangs: killed after {SECONDS} s"
        return Answer(status, texts[0], texts[1], set())
