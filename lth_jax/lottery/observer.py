"""What a running experiment tells whoever watches it.

The experiment calls an `Observer`; a terminal, a log or a test implements it. Nothing that an
observer does changes a result.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

from lth_jax.store.results import ResultRow


@dataclasses.dataclass(frozen=True)
class ParameterRow:
    """One leaf of the parameters, as the header of an experiment shows it.

    `count` is its number of elements; `rate` the share of its surviving weights that each level
    removes (0 where `prunable` is False).
    """

    name: str
    shape: tuple[int, ...]
    count: int
    prunable: bool
    rate: float


class Observer(Protocol):
    """The events of one experiment, in the order in which they come.

    `experiment_started`, then for each level that has work left `level_started`, any number of
    `advanced`, `level_finished`; then `experiment_finished`. `note` may come at any time, `close`
    comes last, after an error or an interruption too. Steps are run-steps: one update of one run.
    """

    def experiment_started(
        self,
        *,
        name: str,
        identity: str,
        workdir: str,
        device: str,
        data: str,
        parameters: Sequence[ParameterRow],
        total_steps: int,
        done_steps: int,
    ) -> None:
        """The experiment is built; `done_steps` of its `total_steps` are those of finished runs."""
        ...

    def level_started(self, level: int, density: float, runs: int, steps: int, done: int) -> None:
        """`runs` runs begin or go on at `level`: `done` of their `steps` in all lie behind them."""
        ...

    def advanced(
        self, level: int, steps: int, loss: float | None, val_accuracy: float | None
    ) -> None:
        """`steps` more were done; the trunk's latest loss and accuracy, None if nothing is new."""
        ...

    def level_finished(self, level: int, rows: Sequence[ResultRow], seconds: float) -> None:
        """All runs of `level` are done; `rows` are theirs, `seconds` what the level took."""
        ...

    def note(self, message: str) -> None:
        """Something worth one line, such as where a run was resumed from."""
        ...

    def experiment_finished(self) -> None:
        """Nothing is left to do."""
        ...

    def close(self) -> None:
        """Release the terminal or file; called exactly once, whatever happened before."""
        ...


class SilentObserver:
    """An `Observer` to which nothing matters: the default, and a base that overrides a few."""

    def experiment_started(
        self,
        *,
        name: str,
        identity: str,
        workdir: str,
        device: str,
        data: str,
        parameters: Sequence[ParameterRow],
        total_steps: int,
        done_steps: int,
    ) -> None:
        """Pass over the event."""

    def level_started(self, level: int, density: float, runs: int, steps: int, done: int) -> None:
        """Pass over the event."""

    def advanced(
        self, level: int, steps: int, loss: float | None, val_accuracy: float | None
    ) -> None:
        """Pass over the event."""

    def level_finished(self, level: int, rows: Sequence[ResultRow], seconds: float) -> None:
        """Pass over the event."""

    def note(self, message: str) -> None:
        """Pass over the event."""

    def experiment_finished(self) -> None:
        """Pass over the event."""

    def close(self) -> None:
        """Pass over the event."""


class Observers:
    """Several observers as one: each is told of everything, in their order."""

    def __init__(self, *observers: Observer):
        self._observers = observers

    def experiment_started(self, **facts: Any) -> None:
        """Tell them all."""
        for observer in self._observers:
            observer.experiment_started(**facts)

    def level_started(self, level: int, density: float, runs: int, steps: int, done: int) -> None:
        """Tell them all."""
        for observer in self._observers:
            observer.level_started(level, density, runs, steps, done)

    def advanced(
        self, level: int, steps: int, loss: float | None, val_accuracy: float | None
    ) -> None:
        """Tell them all."""
        for observer in self._observers:
            observer.advanced(level, steps, loss, val_accuracy)

    def level_finished(self, level: int, rows: Sequence[ResultRow], seconds: float) -> None:
        """Tell them all."""
        for observer in self._observers:
            observer.level_finished(level, rows, seconds)

    def note(self, message: str) -> None:
        """Tell them all."""
        for observer in self._observers:
            observer.note(message)

    def experiment_finished(self) -> None:
        """Tell them all."""
        for observer in self._observers:
            observer.experiment_finished()

    def close(self) -> None:
        """Tell them all."""
        for observer in self._observers:
            observer.close()
